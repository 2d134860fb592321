"""The plain engine: every question in ordinary torch, on any device and dtype. It refuses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..contract import Field, Levels, MapSums, Order, Overlap, Pass, Question, Residuals, Scores
from .field import probabilities
from .maps import summed
from .order import OnLevels, ranked
from .overlap import overlap
from .scores import answers, residuals
from .sums import measured

T = TypeVar("T")

ANSWERS: dict[type, Callable[[Any], Any]] = {
    Pass: measured,
    Order: ranked,
    Levels: OnLevels,
    MapSums: summed,
    Field: probabilities,
    Overlap: lambda q: overlap(q.prediction, q.target, q.reads),
    Scores: answers,
    Residuals: residuals,
}


def refuses(question: Question[Any]) -> str | None:
    """Nothing."""
    return None


def answer(question: Question[T]) -> T:
    """The answer to any question."""
    return cast(T, ANSWERS[type(question)](question))
