"""Whether there are kernels in this process."""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..choice import warn
from ..contract import Overlap, Question
from ..kernels import in_a_line


def away(question: Question[Any]) -> str | None:
    """Why there are no kernels in this process, or none where a question's tensors are; None if there are."""
    tensor = question.prediction if isinstance(question, Overlap) else question.problem.logits  # type: ignore[attr-defined]
    device = tensor.device.type
    return unavailable() if device == "cpu" else f"the kernels run on the CPU, not on {device}"


@functools.cache
def unavailable() -> str | None:
    """Why there are no kernels in this process. Looks once, and says once what is missing."""
    try:
        if find_spec("numba") is None:
            reason = "pip install numba"
        else:
            for name in ("sums", "order", "overlap"):
                import_module(f"{__package__}.{name}")
            if not import_module("numba").config.DISABLE_JIT:
                return None
            reason = "NUMBA_DISABLE_JIT is set, and uncompiled they are wrong"
    except Exception as error:  # an import can raise anything, and does
        reason = f"numba cannot be used {in_a_line(error)}"
    warn(reason)
    return "numba is not installed" if reason == "pip install numba" else reason
