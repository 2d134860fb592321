"""The types of settings, with their bounds: what a number, a list or a matrix may be, and how an error says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """The numbers a setting may take, both ends included."""

    low: float
    high: float

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"a number >= {self.low:g}" if self.high == math.inf else f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class OddSize:
    """The sizes of a window that has a middle."""

    def __contains__(self, value: Any) -> bool:
        return bool(value >= 1 and value % 2 == 1)

    def __str__(self) -> str:
        return "an odd number >= 1"


@dataclass(frozen=True)
class PerAxis:
    """A positive number for each spatial axis; how many axes there are, the call tells."""

    def __contains__(self, value: Any) -> bool:
        return all(0 < step < math.inf for step in value)

    def __str__(self) -> str:
        return "positive numbers, one per spatial axis"


@dataclass(frozen=True)
class Square:
    """A matrix over pairs of classes; how many classes there are, the call tells."""

    def __contains__(self, value: Any) -> bool:
        return all(isinstance(row, list) and len(row) == len(value) for row in value) and not any(
            isinstance(entry, list) for row in value for entry in row
        )

    def __str__(self) -> str:
        return "a square matrix, (C, C)"


@dataclass(frozen=True)
class Ordered:
    """A lower and an upper bound of something positive."""

    def __contains__(self, value: Any) -> bool:
        return len(value) == 2 and bool(0 < value[0] <= value[1] < math.inf)

    def __str__(self) -> str:
        return "two numbers, 0 < low <= high"


@dataclass(frozen=True)
class Distinct:
    """Numbers of which none is there twice: a class would count twice."""

    def __contains__(self, value: Any) -> bool:
        return len({*value}) == len(value)

    def __str__(self) -> str:
        return "a list of integers, each once"


@dataclass(frozen=True)
class YesOrNo:
    """For settings that mean something where every channel is a yes or no, not under a softmax; the call tells."""

    def __contains__(self, value: Any) -> bool:
        return True


NonNegative = Annotated[float, Interval(0.0, math.inf)]
Positive = Annotated[float, Interval(1e-3, math.inf)]
Fraction = Annotated[float, Interval(0.0, 1.0)]
Percent = Annotated[float, Interval(0.0, 100.0)]
Count = Annotated[int, Interval(0, math.inf)]
Levels = Annotated[int, Interval(1, 2**20)]  # float32 tells that many apart
BelowOne = Annotated[float, Interval(0.0, 1.0 - 1e-3)]
AboveOne = Annotated[float, Interval(1.0 + 1e-6, math.inf)]
Classes = Annotated[tuple[int, ...], Distinct()]
Bounds = Annotated[tuple[float, float], Ordered()]
Window = Annotated[int, OddSize()]
Spacing = Annotated[tuple[float, ...], PerAxis()]
ClassPairs = Annotated[Tensor, Square()]
PositiveWeight = Annotated[NonNegative | Tensor | None, YesOrNo()]
