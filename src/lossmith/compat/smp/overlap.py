"""The losses of overlaps of segmentation_models_pytorch: Dice, Jaccard, Tversky."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...arithmetic import power
from ...losses.region import DiceLoss as OurDice
from ...losses.region import JaccardLoss as OurJaccard
from ...losses.region import RegionLoss
from ...losses.region import TverskyLoss as OurTversky
from ..overlap import overlap
from ..peer import Fault, numbers, stands_for
from .reading import BINARY_MODE, MODE, MULTICLASS_MODE, REFUSES, Moded, Numbers

COMMON = MODE | {
    "classes": "classes",
    "log_loss": "−ln of the score, from −log1p(−loss) of each class",
    "eps": "the score counts as eps at least under the logarithm; no denominator of ours is 0",
    "class_weights": "weights of the mean, over absent classes too",
    "y_true": "per_image=False, absent='skip', but an absent class counts as 0; of real numbers hits are min(p, r)",
}


class Overlap(Moded):
    """A loss with one value for each class of the whole batch."""

    def __init__(
        self,
        mode: str,
        classes: Sequence[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        class_weights: Numbers = None,
    ) -> None:
        super().__init__(mode, ignore_index, from_logits, class_weights)
        if classes is not None and mode == BINARY_MODE:
            raise AssertionError(f"{self._who()}: classes have no effect with mode='binary', one class; drop them")
        self.classes = None if classes is None else [int(k) for k in numbers(classes)]
        self.log_loss, self.smooth, self.eps = log_loss, float(smooth), float(eps)

    def ours(self, channels: int, soft: bool = False) -> RegionLoss:
        """The loss of each class; `soft`: of a target of real numbers."""
        settings: dict[str, Any] = {"task": self.task(channels), "per_image": False, "absent": "skip"}
        settings |= {"reduction": "none"} | self.ignoring()
        if self.classes is not None:
            settings["classes"] = self.classes
        return self.term(settings, soft)

    def term(self, settings: dict[str, Any], soft: bool) -> RegionLoss:
        raise NotImplementedError

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        """The loss of y_pred (N, C, *S) and y_true."""
        logits, target = self.read(y_pred, y_true)
        channels, soft = logits.shape[1], target.is_floating_point() and self.mode != MULTICLASS_MODE
        key = f"{channels}{'soft' if soft else ''}"
        if key not in self._built:
            self._built[key] = self.ours(channels, soft).to(logits.device)
        loss: Tensor = self._built[key](logits, target).squeeze(0)
        if self.log_loss:
            most = 1 - self.eps
            loss = torch.where(loss < most, -torch.log1p(-loss.clamp(max=most)), -math.log(self.eps))
        if self.class_weights is None:
            return self.raised(loss.mean())
        weights = self.weights(channels)
        w = loss.new_tensor(weights if self.classes is None else [weights[k] for k in self.classes])
        return self.raised((loss * w).sum() / w.sum())

    def raised(self, value: Tensor) -> Tensor:
        """What becomes of the mean."""
        return value


@stands_for(
    "segmentation_models_pytorch.losses.DiceLoss",
    "DiceLoss, reduction='none'",
    COMMON | {"smooth": "half of smooth"},
    refuses=REFUSES,
)
class DiceLoss(Overlap):
    """SMP's Dice loss: 1 − (TP + smooth) / (TP + ½ FP + ½ FN + smooth) of each class over the batch, then their mean.

    A class that the target lacks counts as 0, and stays in the mean.

    >>> import torch
    >>> loss = DiceLoss("multiclass")
    >>> loss.ours(3)
    DiceLoss(smooth=0.0, per_image=False, absent='skip', task='multiclass', reduction='none')
    >>> round(loss(torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.long)).item(), 4)  # ½, of three classes
    0.1667
    """

    def term(self, settings: dict[str, Any], soft: bool) -> RegionLoss:
        return overlap(OurDice, 2 * self.smooth, 2 * self.smooth, soft, settings)


@stands_for(
    "segmentation_models_pytorch.losses.JaccardLoss",
    "JaccardLoss, reduction='none'",
    COMMON | {"smooth": "smooth"},
    refuses=REFUSES,
)
class JaccardLoss(Overlap):
    """SMP's Jaccard loss: 1 − (TP + smooth) / (TP + FP + FN + smooth) of each class over the batch, then their mean.

    A class that the target lacks counts as 0, and stays in the mean.
    """

    def term(self, settings: dict[str, Any], soft: bool) -> RegionLoss:
        return overlap(OurJaccard, self.smooth, self.smooth, soft, settings)


@stands_for(
    "segmentation_models_pytorch.losses.TverskyLoss",
    "TverskyLoss, reduction='none'",
    COMMON
    | {
        "smooth": "smooth",
        "alpha": "fp_weight",
        "beta": "fn_weight",
        "gamma": "the mean over the classes to that power; `FocalTverskyLoss` raises each class",
    },
    (Fault("gamma below 1, no class that counts is there", "a gradient of NaN", "a gradient of 0"),),
    REFUSES,
)
class TverskyLoss(Overlap):
    """SMP's Tversky loss: (mean over the classes of 1 − (TP + smooth) / (TP + alpha FP + beta FN + smooth)) ^ gamma.

    A class that the target lacks counts as 0, and stays in the mean.
    """

    def __init__(
        self,
        mode: str,
        classes: Sequence[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        class_weights: Numbers = None,
    ) -> None:
        super().__init__(mode, classes, log_loss, from_logits, smooth, ignore_index, eps, class_weights)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def term(self, settings: dict[str, Any], soft: bool) -> RegionLoss:
        prices = {"fp_weight": self.alpha, "fn_weight": self.beta}
        return overlap(OurTversky, self.smooth, self.smooth, soft, settings | prices)

    def raised(self, value: Tensor) -> Tensor:
        return value if self.gamma == 1 else power(value, self.gamma)


__all__ = ["DiceLoss", "JaccardLoss", "TverskyLoss"]
