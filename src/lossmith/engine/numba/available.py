"""Whether there are kernels in this process, and how their failures are told from others."""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType

from ..choice import KernelFailure, warn


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
        reason = f"numba cannot be used {_in_a_line(error)}"
    warn(reason)
    return "numba is not installed" if reason == "pip install numba" else reason


class compiling:
    """For a call that may compile: its failures are told from others."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, Exception) and _of_compiler(error):
            raise KernelFailure("numba", f"the kernels failed {_in_a_line(error)}") from error


def _in_a_line(error: Exception) -> str:
    """What numba says takes pages."""
    return f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')})"


def _of_compiler(error: Exception) -> bool:
    """Whether Numba or LLVM raised it, or a file or a module that they need is missing."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    raised_by = "" if at is None else str(at.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    missing = isinstance(error, OSError | ImportError) and not isinstance(error, TimeoutError)  # that is an alarm's
    return missing or raised_by in ("numba", "llvmlite")
