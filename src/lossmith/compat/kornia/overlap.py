"""kornia's losses of overlaps: Dice and Tversky."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...engine.contract import Sums
from ...loss import Loss
from ..overlap import SmoothedLoss, SmoothedOverlap
from ..peer import stands_for
from .reading import IGNORED, ONE_CHANNEL, REFUSES, Labelled, constant, weights

VOID = "an image without a valid pixel costs 1 in the mean, as there"


class PooledDice(SmoothedLoss, part="dice"):
    """1 − (2 Σ_c w_c TP_c + ε) / (Σ_c w_c (P_c + R_c) + ε'): one ratio over all classes, w_c given."""

    splits = frozenset({"images", "space"})
    without: ClassVar[dict[str, str]] = {"class_weight": "its prices enter both sums"}
    prices: Tensor | None = None

    def formula(self, s: Sums) -> Tensor:
        w = torch.ones_like(s.t) if self.prices is None else self.prices.to(s.t)
        return self.smoothed((w * (s.fp + s.fn)).sum(1), (w * s.tp).sum(1), 2)


@stands_for(
    "kornia.losses.DiceLoss",
    "DiceLoss, or its ratio pooled over the classes",
    {
        "average": "'macro' is the mean over the classes that are there, absent='skip'; 'micro' one ratio over all",
        "eps": "smoothing below the line alone, where ours have it above and below",
        "weight": "class_weight for 'macro'; for 'micro' prices of the classes in both sums",
        "ignore_index": f"{IGNORED}; {VOID}",
    },
    refuses=ONE_CHANNEL | REFUSES,
)
class DiceLoss(Labelled):
    """kornia's Dice loss of logits (B, C, H, W) and labels (B, H, W), the mean over the images.

    'micro': 1 − 2 Σ_c w_c TP_c / (Σ_c w_c (P_c + R_c) + eps); 'macro': the mean over the classes that are there of
    1 − 2 TP_c / (P_c + R_c + eps), weighted.

    Raises:
        ValueError: another average; shapes that do not fit; a weight that learns.

    >>> import torch
    >>> loss = DiceLoss(average="macro")
    >>> round(loss(torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.long)).item(), 4)  # ⅓ against 1
    0.5
    """

    weight: Tensor | None

    def __init__(
        self,
        average: str = "micro",
        eps: float = 1e-8,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__()
        if average not in ("micro", "macro"):
            raise ValueError(f"{self._who()}: average must be 'micro' or 'macro', got {average!r}")
        self.average, self.eps, self.ignore_index = average, eps, ignore_index
        self.register_buffer("weight", constant(self._who(), weight), persistent=False)

    def ours(self, channels: int) -> Loss:
        given = None if self.weight is None else weights(self._who(), self.weight, channels)
        settings: dict[str, Any] = {"smooth_below": self.eps, "task": "multiclass"} | self.ignoring()
        micro = self.average == "micro"
        if given is not None:
            settings["prices" if micro else "class_weight"] = given
        return PooledDice(**settings) if micro else SmoothedOverlap(hits=2, absent="skip", **settings)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = self.read(pred, target, axes=2)
        return self.with_void(self.built(self.soft(pred).shape[1], pred.device)(pred, target), target)


@stands_for(
    "kornia.losses.TverskyLoss",
    "TverskyLoss, absent='skip'",
    {
        "alpha": "fp_weight",
        "beta": "fn_weight",
        "eps": "smoothing below the line alone",
        "ignore_index": f"{IGNORED}; {VOID}",
    },
    refuses=ONE_CHANNEL | REFUSES,
)
class TverskyLoss(Labelled):
    """kornia's Tversky loss of logits (B, C, H, W) and labels (B, H, W), the mean over the classes that are there, then
    over the images: 1 − TP / (TP + alpha FP + beta FN + eps).

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(self, alpha: float, beta: float, eps: float = 1e-8, ignore_index: int | None = -100) -> None:
        super().__init__()
        self.alpha, self.beta, self.eps, self.ignore_index = alpha, beta, eps, ignore_index

    def ours(self, channels: int) -> Loss:
        settings: dict[str, Any] = {"smooth_below": self.eps, "absent": "skip", "task": "multiclass"} | self.ignoring()
        return SmoothedOverlap(fp_weight=self.alpha, fn_weight=self.beta, **settings)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = self.read(pred, target, axes=2)
        return self.with_void(self.built(self.soft(pred).shape[1], pred.device)(pred, target), target)


@stands_for("kornia.losses.dice_loss", "DiceLoss, or its ratio pooled over the classes", {"all": "see DiceLoss"})
def dice_loss(
    pred: Tensor,
    target: Tensor,
    average: str = "micro",
    eps: float = 1e-8,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
) -> Tensor:
    """kornia's Dice loss as a function; see `DiceLoss`."""
    value: Tensor = DiceLoss(average, eps, weight, ignore_index)(pred, target)
    return value


@stands_for("kornia.losses.tversky_loss", "TverskyLoss, absent='skip'", {"all": "see TverskyLoss"})
def tversky_loss(
    pred: Tensor, target: Tensor, alpha: float, beta: float, eps: float = 1e-8, ignore_index: int | None = -100
) -> Tensor:
    """kornia's Tversky loss as a function; see `TverskyLoss`."""
    value: Tensor = TverskyLoss(alpha, beta, eps, ignore_index)(pred, target)
    return value
