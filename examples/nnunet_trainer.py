"""A trainer for nnU-Net v2 with another loss: put this file into a folder, point nnUNet_extTrainer at the folder, and
train with `nnUNetv2_train … -tr nnUNetTrainerDiceFocal`. To see the loss alone: python examples/nnunet_trainer.py

Where nnU-Net is not installed, a double of its trainer stands in, of as much as the loss asks. For nnU-Net's own loss
by ours, regions too, nothing is to be written: `lossmith.compat.nnunet.nnUNetTrainerLossmith`.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

import lossmith as ls

try:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
except ImportError:

    class nnUNetTrainer:  # type: ignore[no-redef]
        """The double: three heads, four labels, of which the last is to be ignored."""

        is_ddp, enable_deep_supervision = False, True
        label_manager = SimpleNamespace(has_regions=False, ignore_label=3)
        configuration_manager = SimpleNamespace(batch_dice=True)

        def _get_deep_supervision_scales(self) -> list[list[float]]:
            return [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]


class nnUNetTrainerDiceFocal(nnUNetTrainer):
    """Dice over the batch, as nnU-Net's plans say, and focal loss instead of cross-entropy."""

    def _build_loss(self) -> torch.nn.Module:
        if self.label_manager.has_regions:
            raise ValueError("regions overlap and have a target of their own: take nnUNetTrainerLossmith")
        ignored = self.label_manager.ignore_label
        shared = {"ignore_index": -100 if ignored is None else ignored, "group": "world" if self.is_ddp else None}
        batch_dice = self.configuration_manager.batch_dice
        loss = ls.DiceLoss(smooth=1e-5, per_image=not batch_dice, include_background=False, **shared)
        loss = loss + ls.FocalLoss(**shared)
        if not self.enable_deep_supervision:
            return loss
        weights = [0.5**head for head in range(len(self._get_deep_supervision_scales()))]
        weights[-1] = 1e-6 if self.is_ddp else 0.0  # the coarsest; with DDP every parameter has to have a gradient
        return ls.DeepSupervision(loss, weights=[weight / sum(weights) for weight in weights])


if __name__ == "__main__":
    torch.manual_seed(0)
    loss = nnUNetTrainerDiceFocal()._build_loss()
    outputs = [torch.randn(2, 3, size, size, requires_grad=True) for size in (32, 16, 8)]  # the finest first
    targets = [torch.randint(0, 4, (2, 1, size, size)).short() for size in (32, 16, 8)]
    value = loss(outputs, targets)
    value.backward()
    print(f"{value.item():.3f}; heads with a gradient:", [head.grad is not None for head in outputs])
