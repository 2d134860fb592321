"""Whether there are kernels for GPUs in this process, and which tensors they can be given."""

from __future__ import annotations

import functools
import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from ..choice import chosen, unusual, warn
from ..contract import Question
from ..kernels import in_a_line


@functools.cache
def unavailable() -> str | None:
    """Why there are no kernels in this process. Looks once."""
    if find_spec("triton") is None:
        warn("pip install triton", "GPU")
        return "triton is not installed"
    try:
        import_module(f"{__package__}.operators")
    except Exception as error:  # an import can raise anything, and does
        reason = f"triton cannot be used {in_a_line(error)}"
        warn(reason, "GPU")
        return reason
    return None


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels: on a CPU, and slowly."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def away(device: torch.device) -> str | None:
    """Why there are no kernels for tensors of a device; None if there are."""
    if device.type == "cuda":  # AMD's are called so too
        return "Triton's interpreter runs on the CPU, not on cuda" if interpreted() else unavailable()
    if device.type != "cpu" or not interpreted():
        also = ", or on the CPU with TRITON_INTERPRET=1 in the environment" if device.type == "cpu" else ""
        return f"the kernels run on a GPU, not on {device.type}{also}"
    return unavailable() if chosen() == "triton" else "Triton's interpreter is slow: it has to be asked for by name"


def out_of_reach(question: Question[Any]) -> str | None:
    """The same of a question, and why its tensors hold nothing to be read; None if they do."""
    problem = question.problem  # type: ignore[attr-defined]
    tensors = problem.logits, problem.target, problem.weight, problem.sample
    return away(problem.logits.device) or unusual(*tensors, operators=True)
