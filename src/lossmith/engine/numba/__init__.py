"""The numba engine: loops compiled by Numba, for float32, bfloat16 and float16 tensors on a CPU.

    sums.py, order.py, overlap.py               answer a question with the kernels
    plan.py, launch.py                          what is known before a call, and how a kernel is run
    softmax.py, scores.py, soft.py, sigmoid.py  kernels for sums over pixels
    ordered.py, boxes.py                        kernels for errors in order, and for boxes
    arithmetic.py, curves.py, pixels.py         what is pasted into them
    compiler.py, cache.py, available.py         compile them, keep them on disk; whether there are any

Importing any file of this folder but this one and the last one imports numba.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

from ..contract import Field, MapSums, Order, Overlap, Pass, Question, Residuals, Scores
from .available import unavailable

T = TypeVar("T")
ANSWERS: dict[type, tuple[str, str]] = {  # the file, and the function there
    Pass: ("sums", "measured"),
    Order: ("order", "ranked"),
    Overlap: ("overlap", "overlap"),
}
NO_KERNEL: dict[type, str] = {
    Field: "no kernel hands out probabilities",
    MapSums: "no kernel sums over a map",
    Residuals: "no kernel is needed for differences of numbers",
    Scores: "no kernel reads scores",
}


def refuses(question: Question[Any]) -> str | None:
    """Why there is no kernel for a question, or none for these tensors; None if there is one."""
    kind = type(question)
    if kind in NO_KERNEL:
        return NO_KERNEL[kind]
    return unavailable() or _functions(*ANSWERS[kind])[0](question)


def answer(question: Question[T]) -> T:
    """By the kernels."""
    return cast(T, _functions(*ANSWERS[type(question)])[1](question))


@functools.cache
def _functions(file: str, function: str) -> tuple[Callable[[Any], str | None], Callable[[Any], Any]]:
    """What refuses and what answers questions of a kind, imported when there is the first."""
    module = import_module(f"{__package__}.{file}")
    return module.refuses, getattr(module, function)
