"""Pair: predictions and targets of the same shape, the input called "box". Boxes and any other numbers to regress.

Box losses and regression losses read the same pair, so that `giou + smooth_l1` is one call. A box loss needs (…, 4) and
sees the boxes' overlap, computed once whatever the number of terms; a regression loss sees the residuals as they are,
in whatever format the boxes have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .engine.boxes import Overlap, overlap
from .engine.tensors import can_look
from .loss import Loss
from .validation import checked_denominator

Format = Literal["xyxy", "xywh", "cxcywh"]


class Elements:
    """What the inputs of losses by element share: a weight for each element or row, a denominator, and their errors.

    Args:
        who: the losses that read it, for errors.
        given: the tensor that the values are computed from; float64 stays, everything else becomes float32.
        shape: of the elements.
        weight: shaped like the elements, or like their rows (without the last axis). Weight 0 is inert.
        denominator: what a mean divides by instead of the weight of the elements.
    """

    def __init__(
        self, who: str, given: Tensor, shape: torch.Size, weight: Tensor | None, denominator: Tensor | float | None
    ) -> None:
        self.who, self.denominator = who, checked_denominator(who, denominator)
        self.dtype = torch.float64 if given.dtype == torch.float64 else torch.float32
        self.weight = None if weight is None else self._checked(weight, given, shape)

    def _checked(self, weight: Tensor, given: Tensor, shape: torch.Size) -> Tensor:
        who = self.who
        if not isinstance(weight, Tensor) or weight.is_complex():
            raise TypeError(
                f"{who}: weight must be a real tensor, got {getattr(weight, 'dtype', type(weight).__name__)}"
            )
        if weight.device != given.device:
            raise ValueError(f"{who}: the input is on {given.device}, the weight on {weight.device}; move one of them")
        if weight.shape not in (shape, shape[:-1]):
            raise ValueError(
                f"{who}: weight must be {tuple(shape[:-1])}, one per row, or {tuple(shape)}, one per element, "
                f"got {tuple(weight.shape)}"
            )
        if can_look(weight) and bool((weight < 0).any()):
            raise ValueError(f"{who}: weights must be >= 0, got {float(weight.min()):g}")
        return weight.to(self.dtype)

    def ready(self, x: Tensor) -> Tensor:
        """A tensor of elements, or of rows, in the dtype of the computation and with 0 where the weight is 0."""
        x = x.to(self.dtype)
        if self.weight is None:
            return x
        hidden = self.weight == 0
        return x.masked_fill(hidden.reshape(*hidden.shape, *[1] * (x.ndim - hidden.ndim)), 0.0)

    def weighed(self, amount: Tensor) -> tuple[Tensor, Tensor]:
        """w ℓ and w, or the count where nothing is weighted."""
        if self.weight is None:
            return amount, amount.new_full((), amount.numel())
        weight = self.weight if self.weight.ndim == amount.ndim else self.weight.unsqueeze(-1).expand_as(amount)
        return amount * weight, weight


class ElementLoss(Loss):
    """A loss of single elements: boxes, coordinates, scores, distributions. `amount` is all that a family adds.

    `reduction="mean"` is Σ w ℓ / Σ w, or Σ w ℓ / denominator; `"none"` is w ℓ.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"weight", "denominator"})

    def amount(self, given: Any) -> Tensor:
        """ℓ of every element."""
        raise NotImplementedError

    def reads(self) -> tuple[str, ...]:
        """The fields of the boxes' overlap that the loss reads; a loss of something else reads none."""
        return ()

    def value(self, given: Elements) -> Tensor:
        if given.denominator is not None and self.reduction != "mean":
            raise ValueError(f"{given.who}: a denominator belongs to reduction='mean', not to {self.reduction!r}")
        return self.reduce(*given.weighed(self.amount(given)), given.denominator)


class Pair(Elements):
    """Predictions and targets.

    Args:
        terms: the losses that will read it.
        prediction, target: the same shape; (…, 4) if a box loss reads it.
        weight: per row, (…,) for boxes (…, 4); regression losses alone also take one per element.

    Raises:
        TypeError, ValueError: when shapes, dtypes or devices do not fit; the text names the loss and the likely fix.
    """

    overlap: Overlap

    def __init__(
        self,
        terms: Sequence[ElementLoss],
        who: str,
        prediction: Tensor,
        target: Tensor | None,
        *,
        weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
    ) -> None:
        target = _fit(who, prediction, target)
        super().__init__(who, prediction, prediction.shape, weight, denominator)
        reads = {field for term in terms for field in term.reads()}
        if reads and (prediction.ndim == 0 or prediction.shape[-1] != 4):
            raise ValueError(f"{who}: boxes must be (…, 4), got {tuple(prediction.shape)}")
        if reads and self.weight is not None and self.weight.ndim == prediction.ndim:
            raise ValueError(
                f"{who}: boxes are weighed as a whole: weight must be {tuple(prediction.shape[:-1])}, "
                f"got {tuple(self.weight.shape)}"
            )
        self.prediction, self.target = self.ready(prediction), self.ready(target)
        if reads:
            (fmt,) = {term.settings()["fmt"] for term in terms if term.reads()}
            self.overlap = overlap(corners(self.prediction, fmt), corners(self.target, fmt), reads)


def corners(boxes: Tensor, fmt: Format) -> Tensor:
    """Boxes (…, 4) as x1, y1, x2, y2: from that ("xyxy"), corner and size ("xywh"), or centre and size ("cxcywh")."""
    if fmt == "xyxy":
        return boxes
    at, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([at, at + size] if fmt == "xywh" else [at - size / 2, at + size / 2], -1)


def _fit(who: str, prediction: Tensor, target: Tensor | None) -> Tensor:
    if not isinstance(prediction, Tensor) or not prediction.is_floating_point():
        kind = prediction.dtype if isinstance(prediction, Tensor) else type(prediction).__name__
        raise TypeError(f"{who}: predictions must be a floating-point tensor, got {kind}; use .float()")
    if not isinstance(target, Tensor) or target.is_complex():
        got = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"{who}: the target must be a real tensor, got {got}; call loss(prediction, target)")
    if target.device != prediction.device:
        raise ValueError(
            f"{who}: predictions are on {prediction.device}, the target on {target.device}; move one of them"
        )
    if target.shape != prediction.shape:
        raise ValueError(
            f"{who}: predictions {tuple(prediction.shape)} and target {tuple(target.shape)} must have the same shape; "
            "pick the target of each prediction first"
        )
    return target
