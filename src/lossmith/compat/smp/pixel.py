"""The cross-entropies of segmentation_models_pytorch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...checks import shape
from ...inputs.call import unwrapped
from ...loss import Loss
from ...losses.pixel import CrossEntropyLoss
from ..peer import Fault, Peer, matching, over_all, stands_for

IGNORED = "ignore_index; ignored elements stay in the mean's divisor, as there (denominator=)"


class Entropy(Peer):
    """A cross-entropy, reduced over all elements."""

    def __init__(self, reduction: str, ignore_index: int | None, smooth: float) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{self._who()}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction, self.ignore_index, self.smooth = reduction, ignore_index, smooth

    def settings(self) -> dict[str, Any]:
        settings = self.ignoring()
        if self.smooth:
            settings["label_smoothing"] = self.smooth
        return settings | ({"reduction": "none"} if self.reduction == "none" else {})


@stands_for(
    "segmentation_models_pytorch.losses.SoftCrossEntropyLoss",
    "CrossEntropyLoss",
    {
        "smooth_factor": "label_smoothing",
        "ignore_index": IGNORED,
        "reduction": "reduction; 'none' is (N, 1, *S) where there is an ignore_index",
        "dim": "the axis of the classes is moved to 1",
    },
    (Fault("smooth_factor=None, the default", "raises a TypeError", "no smoothing"),),
)
class SoftCrossEntropyLoss(Entropy):
    """SMP's cross-entropy of logits (N, C, *S) and labels (N, *S), with label smoothing.

    Raises:
        ValueError: another reduction; shapes that do not fit.

    >>> SoftCrossEntropyLoss(smooth_factor=0.1).ours(3)
    CrossEntropyLoss(label_smoothing=0.1, task='multiclass')
    """

    def __init__(
        self,
        reduction: str = "mean",
        smooth_factor: float | None = None,
        ignore_index: int | None = -100,
        dim: int = 1,
    ) -> None:
        super().__init__(reduction, ignore_index, smooth_factor or 0.0)
        self.smooth_factor, self.dim = smooth_factor, dim

    def ours(self, channels: int) -> Loss:
        return CrossEntropyLoss(task="multiclass", **self.settings())

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        """The loss of y_pred, with the classes on the axis `dim`, and y_true without it."""
        y_pred, y_true = unwrapped(self._who(), (y_pred, y_true))
        logits = y_pred.movedim(self.dim, 1)
        target = y_true.squeeze(self.dim) if y_true.ndim == y_pred.ndim else y_true
        loss, more = self.built(logits.shape[1], logits.device), over_all(self.reduction, target.numel())
        value: Tensor = loss(logits, target, **more)
        if self.reduction != "none" or self.ignore_index is None:
            return value
        return value.unsqueeze(self.dim)


@stands_for(
    "segmentation_models_pytorch.losses.SoftBCEWithLogitsLoss",
    "CrossEntropyLoss, task='multilabel'",
    {
        "weight": "a factor of the elements, that the mean does not divide by",
        "smooth_factor": "half of label_smoothing",
        "pos_weight": "pos_weight, one number, or one for each channel as (C, 1, 1)",
        "ignore_index": IGNORED,
        "reduction": "reduction",
    },
    refuses={
        "pos_weight of another shape": "one number for each channel, (C, 1, 1) where the prediction is (N, C, H, W)",
        "smooth_factor above ½": "it would exchange yes and no; 1 − smooth_factor with 1 − y_true",
    },
)
class SoftBCEWithLogitsLoss(Entropy):
    """SMP's binary cross-entropy of logits and a target shaped like them, with ignored elements and label smoothing.

    Raises:
        ValueError: another reduction; shapes that do not fit; a smooth_factor beyond [0, ½].
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
        reduction: str = "mean",
        smooth_factor: float | None = None,
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(reduction, ignore_index, 2 * (smooth_factor or 0.0))
        if not 0 <= self.smooth <= 1:
            raise ValueError(f"{self._who()}: smooth_factor must lie in [0, 0.5], got {smooth_factor}")
        self.smooth_factor = smooth_factor
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def ours(self, channels: int) -> Loss:
        settings = self.settings() | ({"reduction": "none"} if self.weight is not None else {})
        if self.pos_weight is not None:
            settings["pos_weight"] = self.pos_weight.detach().reshape(-1).tolist()
        return CrossEntropyLoss(task="binary" if channels == 1 else "multilabel", **settings)

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        """The loss of y_pred and y_true, of one shape."""
        y_pred, y_true = unwrapped(self._who(), (y_pred, y_true))
        matching(self._who(), y_pred, y_true, error=ValueError)
        logits, target = (x.reshape(self._flat(y_pred)) for x in (y_pred, y_true))
        loss = self.built(logits.shape[1], logits.device)
        if self.weight is None:
            value: Tensor = loss(logits, target, **over_all(self.reduction, y_pred.numel()))
            return value.reshape(y_pred.shape) if self.reduction == "none" else value
        every: Tensor = loss(logits, target).reshape(y_pred.shape) * self.weight
        return every if self.reduction == "none" else every.mean() if self.reduction == "mean" else every.sum()

    def _flat(self, y_pred: Tensor) -> tuple[int, ...]:
        """(N, C, P) where the channels have prices of their own, else all elements in one."""
        if self.pos_weight is None or self.pos_weight.numel() == 1:
            return 1, 1, -1
        channels, *rest = self.pos_weight.shape
        if y_pred.ndim < 2 or channels != y_pred.shape[1] or rest != [1] * (y_pred.ndim - 2):
            wanted = (y_pred.shape[1], *[1] * (y_pred.ndim - 2)) if y_pred.ndim > 1 else (1,)
            raise ValueError(f"{self._who()}: pos_weight must be {wanted}, got {shape(self.pos_weight)}")
        return len(y_pred), channels, -1
