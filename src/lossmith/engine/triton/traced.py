"""Questions of a call that a compiler traces, which has no use for what `Folder` keeps."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from ..contract import MapSums, Order, Pass, Question
from . import maps, order, sums

T = TypeVar("T")


def refuses(question: Question[Any]) -> str | None:
    """Why the kernels do not answer; None if they will."""
    if isinstance(question, Pass):
        return sums.refuses(question)
    if isinstance(question, Order):
        return order.refuses(question)
    return maps.refuses(question) if isinstance(question, MapSums) else "no kernel for it"


def answer(question: Question[T]) -> T:
    """By the kernels, which do not refuse."""
    if isinstance(question, Pass):
        return cast(T, sums.measured(question))
    if isinstance(question, Order):
        return cast(T, order.ranked(question))
    return cast(T, maps.summed(cast(MapSums, question)))
