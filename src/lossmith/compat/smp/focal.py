"""The focal loss of segmentation_models_pytorch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...loss import Loss
from ...losses.pixel import FocalLoss as OurFocal
from ..peer import Fault, stands_for
from .reading import BINARY_MODE, MODE, REFUSES, Moded, Numbers


@stands_for(
    "segmentation_models_pytorch.losses.FocalLoss",
    "FocalLoss, task='multilabel'",
    MODE
    | {
        "mode": "'multiclass' too is a yes or no for every class, under a sigmoid",
        "alpha": "alpha",
        "gamma": "gamma",
        "eps": "without effect: p.logit() needs no margin",
        "class_weights": "class_weight",
        "reduction": "'sum' and 'batchwise_mean' divide by the classes; of several classes 'none' is 'mean'",
    },
    (
        Fault(
            "from_logits=False, mode='multiclass'",
            "takes ln p for a logit, whose sigmoid is p / (1 + p)",
            "p.logit(), whose sigmoid is p",
        ),
        Fault("ignore_index, mode='multilabel'", "raises an IndexError", "single elements are ignored"),
        Fault(
            "class_weights, reduction='batchwise_mean' or 'none'",
            "multiplies the last axis of space by them, which mostly raises a RuntimeError",
            "the weights of the classes",
        ),
        Fault(
            "soft targets",
            "turns them down by e to the minus cross-entropy, no probability of anything",
            "the mean of the losses of yes and no",
        ),
    ),
    {
        "normalized": "it divides by what the network says, gradient included; lossmith.FocalLoss()(…, denominator=…)",
        "reduced_threshold": "the curve has a step there; lossmith.FocalLoss turns all down smoothly",
    }
    | REFUSES,
)
class FocalLoss(Moded):
    """SMP's focal loss, α_t (1 − p_t)^γ (−ln p_t), of a yes or no for every class under a sigmoid.

    >>> FocalLoss("multiclass", alpha=0.25).ours(3)
    FocalLoss(alpha=0.25, task='multilabel')
    """

    def __init__(
        self,
        mode: str,
        alpha: float | None = None,
        gamma: float | None = 2.0,
        ignore_index: int | None = None,
        from_logits: bool = True,
        eps: float = 1e-7,
        reduction: str | None = "mean",
        normalized: bool = False,
        reduced_threshold: float | None = None,
        class_weights: Numbers = None,
    ) -> None:
        super().__init__(mode, ignore_index, from_logits, class_weights)
        for name, given in {"normalized": normalized, "reduced_threshold": reduced_threshold is not None}.items():
            if given:
                raise ValueError(
                    f"{self._who()}: there is no {name} here; drop it, or use lossmith.FocalLoss with denominator="
                )
        if reduction not in ("mean", "sum", "none", "batchwise_mean", None):
            raise ValueError(
                f"{self._who()}: reduction must be 'mean', 'sum', 'none' or 'batchwise_mean', got {reduction!r}"
            )
        if gamma is None:
            raise ValueError(f"{self._who()}: gamma must be a number >= 0, got None")
        self.alpha, self.gamma, self.eps, self.reduction = alpha, gamma, eps, reduction or "none"

    def task(self, channels: int) -> Any:
        return "binary" if channels == 1 else "multilabel"

    def ours(self, channels: int) -> Loss:
        settings: dict[str, Any] = {"gamma": float(self.gamma), "task": self.task(channels)} | self.ignoring()
        if self.alpha is not None:
            settings["alpha"] = float(self.alpha)
        if self.class_weights is not None and channels > 1:
            settings["class_weight"] = self.weights(channels)
        if self.mode == BINARY_MODE and self.reduction == "none":
            settings["reduction"] = "none"
        return OurFocal(**settings)

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        """The loss of y_pred (N, C, *S) and y_true."""
        logits, target = self.read(y_pred, y_true)
        loss = self.built(logits.shape[1], logits.device)
        if self.mode == BINARY_MODE and self.reduction == "none":
            every: Tensor = loss(logits, target)
            return every.reshape(-1) if self.ignore_index is None else every[target[:, 0] != self.ignore_index]
        if self.reduction in ("mean", "none"):
            value: Tensor = loss(logits, target)
            return value
        total: Tensor = loss(logits, target, denominator=self._divisor(logits, target))
        return total

    def _divisor(self, logits: Tensor, target: Tensor) -> float:
        """What the sum over all is divided by."""
        channels = logits.shape[1]
        if self.reduction == "sum" or self.mode == BINARY_MODE or self.ignore_index is not None:
            return sum(self.weights(channels))
        return sum(self.weights(channels)) * (logits[0, 0].numel() if self.mode != BINARY_MODE else 1)
