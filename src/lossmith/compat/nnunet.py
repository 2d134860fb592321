"""nnU-Net v2's losses, and a trainer with them.

A file `my_trainers/lossmith_trainer.py` with `from lossmith.compat.nnunet import nnUNetTrainerLossmith`, the variable
`nnUNet_extTrainer=my_trainers`, and `nnUNetv2_train … -tr nnUNetTrainerLossmith`. nnU-Net is imported when the trainer
is, and not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..inputs.call import unwrapped
from ..loss import Loss
from ..losses.pixel import CrossEntropyLoss
from ..losses.region import DiceLoss
from .peer import Fault, Peer, numbers, stands_for

TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
DICE = {"batch_dice": False, "do_bg": True, "smooth": 1.0, "ddp": True}
ARGUMENTS = {
    "soft_dice_kwargs": "batch_dice is per_image=False, with ddp over all processes (group=); do_bg include_background",
    "weight_ce, weight_dice": "the weights of the sum; the value is less by weight_dice: they have −Dice for 1 − Dice",
    "dice_class": "without effect: both of theirs have one value",
}
REFUSES = {"clip_tp in soft_dice_kwargs": "hits are not clipped; smooth= keeps an empty image from 0 / 0"}
VOID = Fault(
    "ignored pixels, an image without any other",
    "it counts as a Dice of 1, so that more void is less loss",
    "it leaves the mean",
)


class Compound(Peer):
    """−Dice and a cross-entropy, of logits (B, C, *S)."""

    def __init__(self, soft_dice_kwargs: dict[str, Any], weight_ce: float, weight_dice: float) -> None:
        super().__init__()
        unknown = soft_dice_kwargs.keys() - DICE.keys()
        if unknown:
            raise ValueError(
                f"{self._who()}: soft_dice_kwargs may hold {', '.join(DICE)}, got {', '.join(sorted(unknown))}"
            )
        self.dice = DICE | soft_dice_kwargs
        self.weight_ce, self.weight_dice = weight_ce, weight_dice

    def overlap(self, channels: int, **settings: Any) -> DiceLoss:
        """The Dice of the classes, over all processes where they share it."""
        if channels > 1 and not self.dice["do_bg"]:
            settings["include_background"] = False
        if self.shared:
            settings["group"] = "world"
        return DiceLoss(smooth=self.dice["smooth"], per_image=not self.dice["batch_dice"], **settings)

    @property
    def shared(self) -> bool:
        return bool(self.dice["ddp"] and self.dice["batch_dice"]) and _several_processes()

    def _weighed(self, overlap: Loss, entropy: Loss) -> Loss:
        return self.weight_dice * overlap + self.weight_ce * entropy


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@stands_for(
    "nnunetv2.training.loss.compound_losses.DC_and_CE_loss",
    "DiceLoss + CrossEntropyLoss",
    ARGUMENTS | {"ce_kwargs": "weight is class_weight; label_smoothing", "ignore_label": "ignore_index"},
    (VOID,),
    REFUSES | {"other ce_kwargs": "the mean is over the valid pixels, and ignore_label says which they are"},
)
class DC_and_CE_loss(Compound):
    """nnU-Net's loss of labels (B, 1, *S): cross-entropy minus Dice under a softmax.

    With batch_dice and ddp both are those of all processes: with ignored labels their cross-entropy is the mean of the
    processes' means, ours the mean over all pixels.

    >>> DC_and_CE_loss({"batch_dice": True, "smooth": 1e-5, "do_bg": False}, {}).ours(3)  # doctest: +ELLIPSIS
    DiceLoss(smooth=1e-05, per_image=False, include_background=False, task='multiclass') + CrossEntropyLoss(task=...)
    """

    def __init__(
        self,
        soft_dice_kwargs: dict[str, Any],
        ce_kwargs: dict[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        ignore_label: int | None = None,
        dice_class: Any = None,
    ) -> None:
        super().__init__(soft_dice_kwargs, weight_ce, weight_dice)
        unknown = ce_kwargs.keys() - {"weight", "label_smoothing"}
        if unknown:
            raise ValueError(
                f"{self._who()}: ce_kwargs may hold weight and label_smoothing, got {', '.join(sorted(unknown))}"
            )
        self.ce_kwargs, self.ignore_label = dict(ce_kwargs), ignore_label

    def ours(self, channels: int) -> Loss:
        if channels == 1:
            raise ValueError(f"{self._who()}: a softmax of one channel is 1 everywhere; use DC_and_BCE_loss")
        settings: dict[str, Any] = {"task": "multiclass"}
        if self.ignore_label is not None:
            settings["ignore_index"] = self.ignore_label
        group: dict[str, Any] = {"group": "world"} if self.shared else {}
        weight, smoothing = self.ce_kwargs.get("weight"), float(self.ce_kwargs.get("label_smoothing", 0.0))
        return self._weighed(
            self.overlap(channels, **settings),
            CrossEntropyLoss(class_weight=weight, label_smoothing=smoothing, **settings, **group),
        )

    def forward(self, net_output: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, C, *S) and labels (B, 1, *S)."""
        net_output, target = unwrapped(self._who(), (net_output, target))
        value: Tensor = self.built(net_output.shape[1], net_output.device)(net_output, target)
        return value - self.weight_dice


@stands_for(
    "nnunetv2.training.loss.compound_losses.DC_and_BCE_loss",
    "DiceLoss + CrossEntropyLoss, task='multilabel'",
    ARGUMENTS | {"bce_kwargs": "pos_weight", "use_ignore_label": "the last channel of the target is weight="},
    (
        VOID,
        Fault(
            "use_ignore_label, several regions",
            "the cross-entropy is divided by the pixels alone, and is as many times larger than without ignored "
            "pixels as there are regions",
            "by the pixels and the regions in both cases",
        ),
    ),
    REFUSES | {"other bce_kwargs": "the mean is over the valid pixels and the regions"},
)
class DC_and_BCE_loss(Compound):
    """nnU-Net's loss of regions (B, R, *S), a yes or no each: binary cross-entropy minus Dice under a sigmoid.

    With `use_ignore_label` the target has one more channel, 1 where a pixel is ignored.
    """

    def __init__(
        self,
        bce_kwargs: dict[str, Any],
        soft_dice_kwargs: dict[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        use_ignore_label: bool = False,
        dice_class: Any = None,
    ) -> None:
        super().__init__(soft_dice_kwargs, weight_ce, weight_dice)
        unknown = bce_kwargs.keys() - {"pos_weight"}
        if unknown:
            raise ValueError(f"{self._who()}: bce_kwargs may hold pos_weight, got {', '.join(sorted(unknown))}")
        self.bce_kwargs, self.use_ignore_label = dict(bce_kwargs), use_ignore_label

    def ours(self, channels: int) -> Loss:
        settings: dict[str, Any] = {"task": "binary" if channels == 1 else "multilabel"}
        price: Any = self.bce_kwargs.get("pos_weight")
        price = price if price is None else numbers(price)
        group: dict[str, Any] = {"group": "world"} if self.shared else {}
        return self._weighed(
            self.overlap(channels, **settings), CrossEntropyLoss(pos_weight=price, **settings, **group)
        )

    def forward(self, net_output: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, R, *S) and regions (B, R, *S), or with an ignore map (B, R + 1, *S)."""
        net_output, target = unwrapped(self._who(), (net_output, target))
        more: dict[str, Tensor] = {}
        if self.use_ignore_label:
            more["weight"] = (target[:, -1] == 0).to(net_output.dtype)
            target = target[:, :-1]
        value: Tensor = self.built(net_output.shape[1], net_output.device)(net_output, target, **more)
        return value - self.weight_dice


class Heads(nn.Module):
    """Σ_h w_h L(output_h, target_h) over the heads that have a weight, the finest first."""

    def __init__(self, loss: nn.Module, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.weights = loss, tuple(weights)

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """The loss of lists of outputs and targets."""
        pairs = zip(self.weights, outputs, targets, strict=True)
        return torch.stack([w * self.loss(output, target) for w, output, target in pairs if w]).sum()


def loss_of(trainer: Any) -> nn.Module:
    """The loss that nnU-Net's own trainer builds, by ours: what it knows of labels, regions, batch Dice, processes."""
    dice = {"batch_dice": trainer.configuration_manager.batch_dice, "smooth": 1e-5, "ddp": trainer.is_ddp}
    labels = trainer.label_manager
    loss: nn.Module
    if labels.has_regions:
        loss = DC_and_BCE_loss({}, {**dice, "do_bg": True}, use_ignore_label=labels.ignore_label is not None)
    else:
        loss = DC_and_CE_loss({**dice, "do_bg": False}, {}, ignore_label=labels.ignore_label)
    if not trainer.enable_deep_supervision:
        return loss
    scales = len(trainer._get_deep_supervision_scales())
    weights = [0.5**head for head in range(scales)]
    if scales > 1:  # the coarsest counts for nothing; DDP wants every parameter to have a gradient
        weights[-1] = 1e-6 if trainer.is_ddp else 0.0
    return Heads(loss, [weight / sum(weights) for weight in weights])


def _trainer() -> Any:
    try:
        theirs = import_module(TRAINER).nnUNetTrainer
    except ImportError as error:
        raise ImportError(
            f"nnUNetTrainerLossmith needs nnU-Net, which cannot be imported ({error}): pip install nnunetv2"
        ) from error

    class nnUNetTrainerLossmith(theirs):  # type: ignore[misc, valid-type]  # found by its name
        """nnU-Net's trainer with its loss by lossmith: deep supervision, ignored labels, regions, batch Dice, DDP."""

        def _build_loss(self) -> nn.Module:
            return loss_of(self)

    nnUNetTrainerLossmith.__qualname__ = "nnUNetTrainerLossmith"
    return nnUNetTrainerLossmith


def __getattr__(name: str) -> Any:
    """The trainer, made when it is asked for."""
    if name != "nnUNetTrainerLossmith":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = _trainer()
    return made


__all__ = ["DC_and_BCE_loss", "DC_and_CE_loss", "Heads", "loss_of"]
