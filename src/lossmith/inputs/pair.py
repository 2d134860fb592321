"""Pair: predictions and targets of the same shape, the input called "box". Boxes and any other numbers to regress.

Box losses and regression losses read the same pair, so that `giou + smooth_l1` is one call. A box loss needs (…, 4) and
sees the boxes' overlap, computed once whatever the number of terms; a regression loss sees the residuals as they are,
in whatever format the boxes have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import checks
from ..engine import ask
from ..engine.contract import Boxes, Overlap
from ..engine.images import Images, Split
from ..engine.tensors import computed

Format = Literal["xyxy", "xywh", "cxcywh"]


class Elements:
    """What the inputs of losses by element share: a weight for each element or row, a denominator, and their errors.

    Args:
        reading: what the losses want.
        given: the tensor that the values are computed from; float64 stays, everything else becomes float32.
        shape: of the elements.
        weight: shaped like the elements, or like their rows (without the last axis). Weight 0 is inert.
        denominator: what a mean divides by instead of the weight of the elements.
    """

    def __init__(
        self,
        reading: PairReading,
        given: Tensor,
        shape: torch.Size,
        weight: Tensor | None,
        denominator: checks.Denominator,
    ) -> None:
        who = self.who = reading.who
        self.denominator, self.images = checks.denominator(who, denominator), Images(None, reading.split)
        self.dtype = computed(given)
        self.weight = None if weight is None else self._checked(weight, given, shape)

    def _checked(self, weight: Tensor, given: Tensor, shape: torch.Size) -> Tensor:
        checks.weights(self.who, weight, "the input is", given)
        if weight.shape not in (shape, shape[:-1]):
            raise ValueError(
                f"{self.who}: weight must be {tuple(shape[:-1])}, one per row, or {tuple(shape)}, one per element, "
                f"got {tuple(weight.shape)}"
            )
        return weight.to(self.dtype)

    def ready(self, x: Tensor) -> Tensor:
        """A tensor of elements, or of rows, in the dtype of the computation and with 0 where the weight is 0."""
        x = x.to(self.dtype)
        if self.weight is None:
            return x
        hidden = self.weight == 0
        return x.masked_fill(hidden.reshape(*hidden.shape, *[1] * (x.ndim - hidden.ndim)), 0.0)

    def weighed(self, amount: Tensor) -> tuple[Tensor, Tensor | float]:
        """w ℓ and w, or the count where nothing is weighted."""
        if self.weight is None:
            return amount, amount.numel()
        weight = self.weight if self.weight.ndim == amount.ndim else self.weight.unsqueeze(-1).expand_as(amount)
        return amount * weight, weight


@dataclass(frozen=True)
class PairReading:
    """What losses by element want of a call: the fields of the boxes' overlap, in the format of the boxes; and what
    others hold of the batch, see `Images`."""

    who: str
    reads: tuple[str, ...]
    fmt: Format
    split: Split | None = None


class Pair(Elements):
    """Predictions and targets.

    Args:
        reading: what the losses want.
        prediction, target: the same shape; (…, 4) if a box loss reads it.
        weight: per row, (…,) for boxes (…, 4); regression losses alone also take one per element.

    Raises:
        TypeError, ValueError: when shapes, dtypes or devices do not fit; the text names the loss and the likely fix.
    """

    overlap: Boxes

    def __init__(
        self,
        reading: PairReading,
        prediction: Tensor,
        target: Tensor | None,
        *,
        weight: Tensor | None = None,
        denominator: checks.Denominator = None,
    ) -> None:
        who = reading.who
        target = _fit(who, prediction, target)
        super().__init__(reading, prediction, prediction.shape, weight, denominator)
        if reading.reads and (prediction.ndim == 0 or prediction.shape[-1] != 4):
            raise ValueError(f"{who}: boxes must be (…, 4), got {tuple(prediction.shape)}")
        if reading.reads and self.weight is not None and self.weight.ndim == prediction.ndim:
            raise ValueError(
                f"{who}: boxes are weighed as a whole: weight must be {tuple(prediction.shape[:-1])}, "
                f"got {tuple(self.weight.shape)}"
            )
        self.prediction, self.target = self.ready(prediction), self.ready(target)
        if reading.reads:
            a, b = (corners(x, reading.fmt) for x in (self.prediction, self.target))
            self.overlap = ask(Overlap(a, b, reading.reads))


def corners(boxes: Tensor, fmt: Format) -> Tensor:
    """Boxes (…, 4) as x1, y1, x2, y2: from that ("xyxy"), corner and size ("xywh"), or centre and size ("cxcywh")."""
    if fmt == "xyxy":
        return boxes
    at, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([at, at + size] if fmt == "xywh" else [at - size / 2, at + size / 2], -1)


def _fit(who: str, prediction: Tensor, target: Tensor | None) -> Tensor:
    checks.floating(who, "predictions", prediction, "; use .float()")
    checks.real(who, "the target", target, "; call loss(prediction, target)")
    assert target is not None
    checks.together(who, "predictions are", prediction, "target", target)
    if target.shape != prediction.shape:
        raise ValueError(
            f"{who}: predictions {tuple(prediction.shape)} and target {tuple(target.shape)} must have the same shape; "
            "pick the target of each prediction first"
        )
    return target
