"""How a kernel is run, and how its failures are told from others."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from ..kernels import compiling

_COMPILING = compiling("triton", ("triton",))


def launch(kernel: Any, programs: int, *arguments: Any, num_warps: int = 4, **constants: Any) -> None:
    """On the device of the first argument, if there is anything to do."""
    first: Tensor = arguments[0]
    here = torch.cuda.device(first.device) if first.is_cuda else contextlib.nullcontext()  # else: the interpreter
    if programs:
        with _COMPILING, here:
            kernel[(programs,)](*arguments, num_warps=num_warps, **constants)
