"""kornia's focal losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...inputs.call import unwrapped
from ...loss import Loss
from ...losses.pixel import FocalLoss as OurFocal
from ..peer import matching, over_all, stands_for, times
from .reading import IGNORED, ONE_CHANNEL, REFUSES, Labelled, at_labels, constant, weights

REDUCTION = "'mean' divides by all elements of pred, ignored ones too (denominator=); 'none' has the shape of pred"


class Focal(Labelled):
    """A focal loss, reduced over all elements of the prediction."""

    def __init__(self, gamma: float, reduction: str, ignore_index: int | None) -> None:
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise NotImplementedError(f"{self._who()}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
        self.gamma, self.reduction, self.ignore_index = gamma, reduction, ignore_index

    def settings(self) -> dict[str, Any]:
        kind = "none" if self.reduction == "none" else "mean"
        return {"gamma": float(self.gamma), "reduction": kind} | self.ignoring()


@stands_for(
    "kornia.losses.FocalLoss",
    "FocalLoss, task='multiclass'",
    {
        "alpha": "alpha of the classes: 1 − alpha of class 0, alpha of the others",
        "gamma": "gamma",
        "weight": "alpha of the classes, times it",
        "reduction": REDUCTION,
        "ignore_index": IGNORED,
    },
    refuses=ONE_CHANNEL | REFUSES,
)
class FocalLoss(Focal):
    """kornia's focal loss of logits (B, C, *S) and labels (B, *S): α_t (1 − p_t)^γ (−ln p_t) under a softmax.

    Raises:
        NotImplementedError: another reduction. ValueError: shapes that do not fit, a weight that learns.

    >>> import torch
    >>> loss = FocalLoss(alpha=0.25, reduction="mean")
    >>> loss.ours(3)
    FocalLoss(alpha=[0.75, 0.25, 0.25], task='multiclass')
    """

    weight: Tensor | None

    def __init__(
        self,
        alpha: float | None,
        gamma: float = 2.0,
        reduction: str = "none",
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(gamma, reduction, ignore_index)
        self.alpha = alpha
        self.register_buffer("weight", constant(self._who(), weight), persistent=False)

    def ours(self, channels: int) -> Loss:
        alphas = [1.0] * channels
        if self.alpha is not None:
            alphas = [1 - float(self.alpha)] + [float(self.alpha)] * (channels - 1)
        given = weights(self._who(), self.weight, channels)
        prices = [a * w for a, w in zip(alphas, given, strict=True)]
        more: dict[str, Any] = {"alpha": prices} if any(price != 1 for price in prices) else {}
        return OurFocal(task="multiclass", **more, **self.settings())

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = self.read(pred, target)
        value: Tensor = self.built(self.soft(pred).shape[1], pred.device)(
            pred, target, **over_all(self.reduction, pred.numel())
        )
        return at_labels(value, target, pred.shape[1]) if self.reduction == "none" else value


@stands_for(
    "kornia.losses.BinaryFocalLossWithLogits",
    "FocalLoss, task='multilabel'",
    {
        "alpha": "alpha; None is ½ of twice the loss",
        "gamma": "gamma",
        "pos_weight, weight": "alpha and class_weight, the prices of a yes and a no in each channel",
        "reduction": REDUCTION,
        "ignore_index": "ignore_index, of single elements; None is -100",
    },
    refuses=REFUSES,
)
class BinaryFocalLossWithLogits(Focal):
    """kornia's focal loss of logits (B, C, *S), every element a yes or no of its own, and a target shaped like them.

    Raises:
        NotImplementedError: another reduction. ValueError: shapes that do not fit, a weight that learns.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        alpha: float | None,
        gamma: float = 2.0,
        reduction: str = "none",
        pos_weight: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__(gamma, reduction, ignore_index)
        self.alpha = alpha
        self.register_buffer("pos_weight", constant(self._who(), pos_weight, "pos_weight"), persistent=False)
        self.register_buffer("weight", constant(self._who(), weight), persistent=False)

    def _prices(self, channels: int) -> tuple[list[float], list[float]]:
        """What yes and no cost together in each channel, and the share of yes."""
        who = self._who()
        yes, no = (1.0, 1.0) if self.alpha is None else (float(self.alpha), 1 - float(self.alpha))
        both = [
            (yes * p * w, no * w)
            for p, w in zip(
                weights(who, self.pos_weight, channels, "pos_weight"), weights(who, self.weight, channels), strict=True
            )
        ]
        return [sum(x) for x in both], [x[0] / sum(x) if sum(x) else 0.5 for x in both]

    def ours(self, channels: int) -> Loss:
        totals, shares = self._prices(channels)
        settings: dict[str, Any] = {"task": "multilabel"} | self.settings()
        if {*shares} != {0.5} or self.reduction == "none":
            settings["alpha"] = shares if len({*shares}) > 1 else shares[0]
        factor = totals[0] if "alpha" in settings else totals[0] / 2
        if len({*totals}) > 1:
            settings["class_weight"] = totals if "alpha" in settings else [total / 2 for total in totals]
            factor = 1.0
        return OurFocal(**settings) if self.reduction == "none" else times(factor, OurFocal(**settings))

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = unwrapped(self._who(), (pred, target))
        matching(self._who(), pred, target, error=ValueError)
        loss = self.built(pred.shape[1], pred.device)
        value: Tensor = loss(pred, target, **over_all(self.reduction, pred.numel()))
        if self.reduction != "none":
            return value
        totals, _ = self._prices(pred.shape[1])
        return (value if len({*totals}) > 1 else value * totals[0]).reshape(pred.shape)


@stands_for("kornia.losses.focal_loss", "FocalLoss, task='multiclass'", {"all": "see FocalLoss"})
def focal_loss(
    pred: Tensor,
    target: Tensor,
    alpha: float | None,
    gamma: float = 2.0,
    reduction: str = "none",
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
) -> Tensor:
    """kornia's focal loss as a function; see `FocalLoss`."""
    value: Tensor = FocalLoss(alpha, gamma, reduction, weight, ignore_index)(pred, target)
    return value


@stands_for(
    "kornia.losses.binary_focal_loss_with_logits",
    "FocalLoss, task='multilabel'",
    {"all": "see BinaryFocalLossWithLogits"},
)
def binary_focal_loss_with_logits(
    pred: Tensor,
    target: Tensor,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    pos_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
) -> Tensor:
    """kornia's focal loss of yes and no as a function; see `BinaryFocalLossWithLogits`."""
    loss = BinaryFocalLossWithLogits(alpha, gamma, reduction, pos_weight, weight, ignore_index)
    value: Tensor = loss(pred, target)
    return value
