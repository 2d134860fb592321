"""The numba engine: kernels for float32, bfloat16 and float16 tensors on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..contract import Order, Overlap, Pass, Question
from . import order, overlap, sums
from .compiling import unavailable

T = TypeVar("T")

ANSWERS: dict[type, tuple[Callable[[Any], str | None], Callable[[Any], Any]]] = {
    Pass: (sums.refuses, sums.measured),
    Order: (order.refuses, order.ranked),
    Overlap: (overlap.refuses, overlap.overlap),
}
NO_KERNEL = {
    "Field": "no kernel hands out probabilities",
    "MapSums": "no kernel sums over a map",
    "Residuals": "no kernel is needed for differences of numbers",
    "Scores": "no kernel reads scores",
}


def refuses(question: Question[Any]) -> str | None:
    """Why there is no kernel for a question, or none for these tensors; None if there is one."""
    known = ANSWERS.get(type(question))
    if known is None:
        return NO_KERNEL[type(question).__name__]
    return unavailable() or known[0](question)


def answer(question: Question[T]) -> T:
    """By the kernels."""
    return cast(T, ANSWERS[type(question)][1](question))
