"""The answers for a compiler that traces the call: it has no use for what `Folder` keeps."""

from __future__ import annotations

from typing import TypeVar, cast

from .. import plain
from ..contract import MapSums, Order, Pass, Question
from . import maps, order, sums

T = TypeVar("T")


def answer(question: Question[T]) -> T:
    """By the kernels if they do not refuse; the compiler knows what to do with the rest."""
    if isinstance(question, Pass) and sums.refuses(question) is None:
        return cast(T, sums.measured(question))
    if isinstance(question, Order) and order.refuses(question) is None:
        return cast(T, order.ranked(question))
    if isinstance(question, MapSums) and maps.refuses(question) is None:
        return cast(T, maps.summed(question))
    return plain.answer(question)
