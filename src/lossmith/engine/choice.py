"""Which engine answers: what the user chose, what can take the call, and what is done when the kernels fail."""

from __future__ import annotations

import functools
import gc
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from .tensors import dispatches, forward_mode, recorded, transformed

T = TypeVar("T")
Choice = Literal["auto", "fused", "plain"]

_lock = threading.Lock()
_here: ContextVar[tuple[Choice, ...]] = ContextVar("lossmith engine", default=())  # what open blocks chose
_insisting = 0  # `with use_engine("fused")` that are open: torch.compile can read a number, not a ContextVar
_failure: str | None = None  # why the kernels are out of use in this process


class use_engine:
    """Chooses the engine: from now on when called, or for a block when used with `with`.

    "auto" (the default) takes the kernels where they can run and plain torch elsewhere; "fused" insists on the kernels
    and raises a RuntimeError that says why where they cannot run; "plain" never uses them. A call holds for the whole
    process, all threads included; a block for the thread, or the asyncio task, that entered it.

    >>> import lossmith as ls
    >>> with ls.use_engine("plain"):
    ...     value = ls.DiceLoss()(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long))
    >>> ls.use_engine("cuda")
    Traceback (most recent call last):
    ValueError: use_engine takes 'auto', 'fused' or 'plain', got 'cuda'
    """

    def __init__(self, choice: Choice) -> None:
        if choice not in get_args(Choice):
            raise ValueError(f"use_engine takes 'auto', 'fused' or 'plain', got {choice!r}")
        self._choice: Choice = choice
        with _lock:
            _calls.append(_Call(weakref.ref(self), choice))
            # What came before a call that no `with` can take back any more will never hold again.
            del _calls[: max((i for i, call in enumerate(_calls) if call.by() is None), default=0)]

    def __enter__(self) -> None:
        global _insisting
        with _lock:
            _calls[:] = [call for call in _calls if call.by() is not self]  # it was no call after all
            _insisting += self._choice == "fused"
        _here.set((*_here.get(), self._choice))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _insisting
        with _lock:
            _insisting -= self._choice == "fused"
        _here.set(_here.get()[:-1])


class _Call:
    """A call of use_engine, which may yet turn out to be the beginning of a block."""

    def __init__(self, by: Callable[[], Any], choice: Choice) -> None:
        self.by, self.choice = by, choice
        self._thread, self._time = threading.get_ident(), time.monotonic()

    def holds(self) -> bool:
        """A block is entered right after its call: until that can be told, other threads do not listen."""
        mine = self._thread == threading.get_ident()
        return mine or self.by() is None or time.monotonic() - self._time > _MOMENT


_MOMENT = 0.05  # seconds
_calls = [_Call(lambda: None, "auto")]  # the last one that holds


def chosen() -> Choice:
    """What holds here."""
    blocks = _here.get()
    return blocks[-1] if blocks else next((call.choice for call in reversed(_calls) if call.holds()), "auto")


def _insists() -> bool:
    return chosen() == "fused"


_insists._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch.compile asks while it traces, and believes


def answer(why_not: Callable[[], str | None], by_kernels: Callable[[], T], by_torch: Callable[[], T]) -> T:
    """Asks the kernels where they serve, and torch elsewhere. `why_not` says why they do not take this call.

    What goes wrong while kernels are imported or compiled leads to torch as well, with a warning: a container without
    a place to write to, or a broken installation, must not end a training run that torch can serve.
    """
    return attempt(by_kernels, by_torch) if _serves(why_not) else by_torch()


class KernelFailure(RuntimeError):
    """Kernels that could not be compiled or loaded. Nothing else is one: what a hook, a signal or a user's own code
    raises in the middle of a call is theirs."""


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
        raise KernelFailure(f"the kernels failed {_in_a_line(error)}") from error
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


def attempt(by_kernels: Callable[[], T], by_torch: Callable[[], T]) -> T:
    """The kernels, or torch if they fail, now and from now on; with "fused" their failure is an error."""
    global _failure
    try:
        return by_kernels()
    except KernelFailure as error:
        reason = str(error)
        if chosen() == "fused":
            raise RuntimeError(_refusal(reason)) from error
        _failure = reason
        _warn(reason)
    return by_torch()


def gradient(by_kernels: Callable[[], Tensor], by_torch: Callable[[bool], Tensor]) -> Tensor:
    """What a backward returns; `by_torch` is asked to keep the graph where the gradient is differentiated further."""
    twice = torch.is_grad_enabled()

    def followed() -> Tensor:
        with torch.enable_grad():
            return by_torch(twice)

    return followed() if twice else attempt(by_kernels, followed)


def unusual(*tensors: Tensor | None) -> str | None:
    """Why kernels, which read memory, can see nothing in these tensors; None if they can."""
    given = [x for x in tensors if x is not None]
    if any(transformed(x) for x in given):
        return "the kernels cannot be traced by torch.compile or torch.func"
    if any(x.is_neg() or x._is_zerotensor() for x in given):
        return "the kernels read memory, which does not hold the values of this view"
    if forward_mode():
        return "the kernels have no forward-mode derivatives"
    if recorded():
        reason = "torch.jit.trace cannot record the kernels"
    else:
        strange = next((x for x in given if dispatches(x)), None)
        if strange is None:
            return None
        reason = f"the kernels take ordinary dense tensors, not {type(strange).__name__}"
    if chosen() == "auto":
        _warn(reason)
    return reason


def _serves(why_not: Callable[[], str | None]) -> bool:
    if torch.compiler.is_compiling():
        if (_insisting or _calls[-1].choice == "fused") and _insists():
            raise RuntimeError(_refusal("the kernels cannot be traced by torch.compile or torch.func"))
        return False
    choice = chosen()
    if choice == "plain":
        return False
    reason = _unavailable() or _failure or why_not()
    if reason is not None and choice == "fused":
        raise RuntimeError(_refusal(reason))
    return reason is None


def _refusal(reason: str) -> str:
    return f"use_engine('fused') cannot serve this call: {reason}; use_engine('auto') falls back"


@functools.cache
def _unavailable() -> str | None:
    """Why there are no kernels in this process. Looks once, and says once what is missing."""
    try:
        if find_spec("numba") is None:
            reason = "pip install numba"
        else:
            import_module(f"{__package__}.kernels")
            import_module(f"{__package__}.box_kernels")
            if not import_module("numba").config.DISABLE_JIT:
                return None
            reason = "NUMBA_DISABLE_JIT is set, and uncompiled they are wrong"
    except Exception as error:  # an import can raise anything, and does
        reason = f"numba cannot be used {_in_a_line(error)}"
    _warn(reason)
    return "numba is not installed" if reason == "pip install numba" else reason


@functools.cache
def _warn(reason: str) -> None:
    """Each reason once."""
    warnings.warn(f"lossmith runs without its fast CPU kernels: {reason}", RuntimeWarning, stacklevel=2)
