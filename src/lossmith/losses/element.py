"""Losses of single elements: boxes, coordinates, scores, distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..inputs.pair import Elements, PairReading
from ..loss import Loss


class ElementLoss(Loss):
    """A loss of single elements: boxes, coordinates, scores, distributions. `amount` is all that a family adds.

    `reduction="mean"` is Σ w ℓ / Σ w, or Σ w ℓ / denominator; `"none"` is w ℓ.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"weight", "denominator"})
    splits = frozenset({"images"})

    def amount(self, given: Any) -> Tensor:
        """ℓ of every element."""
        raise NotImplementedError

    def reads(self) -> tuple[str, ...]:
        """The fields of the boxes' overlap that the loss reads; a loss of something else reads none."""
        return ()

    def value(self, given: Elements) -> Any:
        return self.reduce(given.images, *given.weighed(self.amount(given)), given.denominator)

    @classmethod
    def reading(cls, terms: Sequence[ElementLoss], who: str) -> PairReading:
        reads = {field: None for term in terms for field in term.reads()}
        return PairReading(who, tuple(reads), next((term.settings()["fmt"] for term in terms if term.reads()), "xyxy"))
