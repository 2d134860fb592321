"""How a kernel is run, and how its failures are told from others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels import compiling

_COMPILING = compiling("triton", ("triton",))


def launch(kernel: Any, programs: int, *arguments: Any, num_warps: int = 4, **constants: Any) -> None:
    """On the device of the first argument, if there is anything to do."""
    first: Tensor = arguments[0]
    # Elsewhere it is the interpreter: NumPy would warn of what a GPU works out without a word, as ∞ − ∞.
    here = torch.cuda.device(first.device) if first.is_cuda else np.errstate(all="ignore")
    if programs:
        with _COMPILING, here:
            kernel[(programs,)](*arguments, num_warps=num_warps, **constants)
