"""Calls that may compile, and whether there is anything to compile with."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

from ..choice import KernelFailure, warn


@functools.cache
def unavailable() -> str | None:
    """Why there are no kernels in this process. Looks once, and says once what is missing."""
    try:
        if find_spec("numba") is None:
            reason = "pip install numba"
        else:
            import_module(f"{__package__}.kernels")
            import_module(f"{__package__}.kernels.boxes")
            if not import_module("numba").config.DISABLE_JIT:
                return None
            reason = "NUMBA_DISABLE_JIT is set, and uncompiled they are wrong"
    except Exception as error:  # an import can raise anything, and does
        reason = f"numba cannot be used {_in_a_line(error)}"
    warn(reason)
    return "numba is not installed" if reason == "pip install numba" else reason


@contextmanager
def compiling() -> Iterator[None]:
    """For a call that may compile: its failures are told from others.

    Numba makes millions of small objects, and after every few thousand the garbage collector would look through all of
    torch's: a sixth of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except Exception as error:
        if not _of_compiler(error):
            raise
        raise KernelFailure("numba", f"the kernels failed {_in_a_line(error)}") from error
    finally:
        if collects:
            gc.enable()


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
