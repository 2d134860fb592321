"""Which engine answers: what the user chose, who takes the question, and what is done when kernels fail."""

from __future__ import annotations

import functools
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from . import plain
from .contract import Engine, Question
from .tensors import dispatches, forward_mode, recorded, transformed

T = TypeVar("T")

KERNELS = ("numba", "triton")  # what "fused" means, and "auto" asks before plain: in this order
ENGINES = (*KERNELS, "plain")  # folders beside this file; one that is not among the kernels answers by its name alone
CHOICES = ("auto", "fused", *ENGINES)

_lock = threading.Lock()
_here: ContextVar[tuple[str, ...]] = ContextVar("lossmith engine", default=())  # what open blocks chose
_open: tuple[str, ...] = ()  # what blocks of all threads chose: torch.compile can read this, not a ContextVar
_failures: dict[str, str] = {}  # why an engine is out of use in this process


class use_engine:
    """Chooses the engine: from now on when called, or for a block when used with `with`.

    "auto" (the default) takes kernels where they can run and plain torch elsewhere; "fused" insists on kernels, "numba"
    on those for the CPU, "triton" on those for a GPU, and all raise a RuntimeError that says why where there is none
    for a loss or its input; "plain" never uses them. A call holds for the whole process, all threads included; a block
    for the thread, or the asyncio task, that entered it.

    >>> import lossmith as ls
    >>> with ls.use_engine("plain"):
    ...     value = ls.DiceLoss()(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long))
    >>> ls.use_engine("cuda")
    Traceback (most recent call last):
    ValueError: use_engine takes 'auto', 'fused', 'numba', 'triton' or 'plain', got 'cuda'
    """

    def __init__(self, choice: str) -> None:
        if choice not in CHOICES:
            *first, last = map(repr, CHOICES)
            raise ValueError(f"use_engine takes {', '.join(first)} or {last}, got {choice!r}")
        self._choice = choice
        with _lock:
            _calls.append(_Call(weakref.ref(self), choice))
            # What came before a call that no `with` can take back any more will never hold again.
            del _calls[: max((i for i, call in enumerate(_calls) if call.by() is None), default=0)]

    def __enter__(self) -> None:
        global _open
        with _lock:
            _calls[:] = [call for call in _calls if call.by() is not self]  # it was no call after all
            _open = (*_open, self._choice)
        _here.set((*_here.get(), self._choice))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _open
        with _lock:
            last = len(_open) - 1 - _open[::-1].index(self._choice)
            _open = (*_open[:last], *_open[last + 1 :])
        _here.set(_here.get()[:-1])


class _Call:
    """A call of use_engine, which may yet turn out to be the beginning of a block."""

    def __init__(self, by: Callable[[], Any], choice: str) -> None:
        self.by, self.choice = by, choice
        self._thread, self._time = threading.get_ident(), time.monotonic()

    def holds(self) -> bool:
        """A block is entered right after its call: until that can be told, other threads do not listen."""
        mine = self._thread == threading.get_ident()
        return mine or self.by() is None or time.monotonic() - self._time > _MOMENT


_MOMENT = 0.05  # seconds
_calls = [_Call(lambda: None, "auto")]  # the last one that holds


def chosen() -> str:
    """What holds here."""
    blocks = _here.get()
    return blocks[-1] if blocks else next((call.choice for call in reversed(_calls) if call.holds()), "auto")


def _of_kernels(choice: str) -> bool:
    """Whether it means that kernels must answer."""
    return choice == "fused" or choice in KERNELS


def _insists() -> str | None:
    """The kernels that must answer, if some must."""
    choice = chosen()
    return choice if _of_kernels(choice) else None


_insists._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch.compile asks while it traces, and believes


def ask(question: Question[T]) -> T:
    """The answer of the first engine that does not refuse, among those that the user chose.

    What goes wrong while kernels are imported or compiled leads to the next engine as well, with a warning: a container
    without a place to write to, or a broken installation, must not end a training run that torch can serve.
    """
    if torch.compiler.is_compiling():
        return _traced(question)
    choice = chosen()
    if choice == "plain":
        return plain.answer(question)
    reasons = []
    for name in KERNELS if choice in ("auto", "fused") else (choice,):
        engine = _engine(name)
        reason = _failures.get(name) or engine.refuses(question)
        if reason is None:
            try:
                return engine.answer(question)
            except KernelFailure as error:
                reason = _failed(error)
        reasons.append(reason)
    if choice == "auto":
        return plain.answer(question)
    raise RuntimeError(_refusal(choice, "; ".join(dict.fromkeys(reasons))))


def _traced(question: Question[T]) -> T:
    """For torch.compile: by kernels that are operators, where they are; by torch elsewhere."""
    problem = getattr(question, "problem", None)
    reason = "the kernels cannot be traced by torch.compile or torch.func"
    spoken = _open or _calls[-1].choice != "auto"  # looked at, so that it is traced again when somebody chooses anew
    if problem is not None and _operators(problem.logits.device.type):
        reason = _IMPORTED["refuses"](question)
        if reason is None:
            return cast(T, _IMPORTED["answer"](question))
    if spoken and (insisted := _insists()):
        raise RuntimeError(_refusal(insisted, reason))
    return plain.answer(question)


def _operators(device: str) -> bool:
    """Whether kernels that compilers need not look into can reach a device, and may. If so, they are imported."""
    if not _reaches(torch.device(device)):
        return False
    traced = import_module(".triton.traced", __package__)
    _IMPORTED.update(refuses=traced.refuses, answer=traced.answer)
    return True


_operators._dynamo_marked_constant = True  # type: ignore[attr-defined]  # compilers see nothing of the imports
_IMPORTED: dict[str, Callable[[Any], Any]] = {}


def _reaches(device: torch.device) -> bool:
    """Whether the kernels for GPUs can be used on a device, and may."""
    if chosen() in ("plain", "numba") or "triton" in _failures:
        return False
    return import_module(".triton.available", __package__).away(device) is None


def on_device(device: torch.device, kernels: str, otherwise: Callable[..., Tensor], *given: Any) -> Tensor:
    """For what is no question of a loss: by the function "file.name" of the triton engine, or otherwise."""
    if _reaches(device):
        file, name = kernels.split(".")
        try:
            return cast(Tensor, getattr(import_module(f".triton.{file}", __package__), name)(*given))
        except KernelFailure as error:
            _failed(error)
    return otherwise(*given)


@functools.cache
def _engine(name: str) -> Engine:
    return cast(Engine, import_module(f".{name}", __package__))


class KernelFailure(RuntimeError):
    """Kernels that could not be compiled or loaded. Nothing else is one: what a hook, a signal or a user's own code
    raises in the middle of a call is theirs."""

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(reason)
        self.engine = engine


def _failed(error: KernelFailure) -> str:
    """Puts an engine out of use, now and from now on; for who insists on it, its failure is an error."""
    reason = str(error)
    if (insisted := _insists()) is not None:
        raise RuntimeError(_refusal(insisted, reason)) from error
    _failures[error.engine] = reason
    warn(reason, "GPU" if error.engine == "triton" else "CPU")
    return reason


def gradient(by_kernels: Callable[[], Tensor], by_torch: Callable[[bool], Tensor]) -> Tensor:
    """What a backward returns; `by_torch` is asked to keep the graph where the gradient is differentiated further."""
    twice = torch.is_grad_enabled()
    if not twice:
        try:
            return by_kernels()
        except KernelFailure as error:
            _failed(error)
    with torch.enable_grad():
        return by_torch(twice)


def unusual(*tensors: Tensor | None, operators: bool = False) -> str | None:
    """Why kernels, which read memory, can see nothing in these tensors; None if they can. `operators`: what torch sees
    of these kernels knows what to do with tensors that have no values."""
    strange = None
    for x in tensors:
        if x is None:
            continue
        if transformed(x):
            return "the kernels cannot be traced by torch.compile or torch.func"
        if x.is_neg() or x._is_zerotensor():
            return "the kernels read memory, which does not hold the values of this view"
        if type(x) is not Tensor and dispatches(x) and not (operators and isinstance(x, FakeTensor)):
            strange = x
    if forward_mode():
        return "the kernels have no forward-mode derivatives"
    if recorded():
        reason = "torch.jit.trace cannot record the kernels"
    elif strange is not None:
        reason = f"the kernels take ordinary dense tensors, not {type(strange).__name__}"
    else:
        return None
    if chosen() == "auto":
        warn(reason, "GPU" if operators else "CPU")
    return reason


def _refusal(choice: str, reason: str) -> str:
    return f"use_engine({choice!r}) cannot serve this call: {reason}; use_engine('auto') falls back"


@functools.cache
def warn(reason: str, where: str = "CPU") -> None:
    """Each reason once."""
    warnings.warn(f"lossmith runs without its fast {where} kernels: {reason}", RuntimeWarning, stacklevel=2)
