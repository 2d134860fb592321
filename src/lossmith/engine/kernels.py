"""What the engines made of kernels have in common: the files of a folder, the tensors they take, and their failures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .choice import KernelFailure, gradient
from .contract import Levels, MapSums, Order, Pass, Question
from .curves import Curve
from .images import Images
from .plain import sums as plain
from .plain.order import OnLevels
from .problem import Problem
from .tensors import transformed

T = TypeVar("T")

LOGITS = {torch.float32, torch.bfloat16, torch.float16}
INTEGERS = {torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64}
TARGETS = INTEGERS | LOGITS | {torch.float64}


class Folder:
    """An engine whose answers stand in files of its folder, imported when the first question comes.

    answers    the file and the function there, by kind of question; `refuses` of that file says what it cannot answer
    no_kernel  why there is none, by kind
    away       why there are no kernels in this process, or none where a question's tensors are; None if there are
    """

    def __init__(
        self,
        package: str,
        answers: dict[type, tuple[str, str]],
        no_kernel: dict[type, str],
        away: Callable[[Question[Any]], str | None],
    ) -> None:
        self._package, self._answers, self._no_kernel = package, answers, no_kernel
        self._away = away
        self._functions: Callable[[Any], Any] = functools.cache(self._imported)

    def refuses(self, question: Question[Any]) -> str | None:
        """Why there is no kernel for a question, or none for these tensors; None if there is one."""
        kind = type(question)
        if kind in self._no_kernel:
            return self._no_kernel[kind]
        return self._away(question) or self._functions(kind)[0](question)

    def answer(self, question: Question[T]) -> T:
        """By the kernels."""
        return cast(T, self._functions(type(question))[1](question))

    def _imported(self, kind: type) -> tuple[Callable[[Any], str | None], Callable[[Any], Any]]:
        file, function = self._answers[kind]
        module = import_module(f"{self._package}.{file}")
        return module.refuses, getattr(module, function)


def strange(question: Pass | Order | Levels | MapSums) -> str | None:
    """Why kernels cannot take these logits and their target, whatever device they are on; None if they can."""
    problem = question.problem
    logits, target = problem.logits, problem.target
    if logits.dtype not in LOGITS:
        return f"the kernels take float32, bfloat16 and float16, not {logits.dtype}"
    if logits.layout != torch.strided:
        return f"the kernels take ordinary dense tensors, not {logits.layout}"
    if target.dtype not in TARGETS:
        return f"a target of {target.dtype}"
    if target.requires_grad:
        return "a target that requires a gradient"
    if problem.weight is not None and problem.weight.requires_grad:
        return "a weight that requires a gradient"
    return None


def by_torch(
    question: Pass,
    upstream: dict[str | Curve, Tensor | None],
    upstream_u: Tensor | None,
    further: bool,
    every: bool = False,
) -> Tensor:
    """The gradient by the plain engine, which autograd can follow further. `every`: u is that of every label."""
    want = question.want._replace(labels=True, spread=question.want.spread or every)
    found = plain.measured(Pass(question.problem, want))
    known: dict[Any, Any] = {**found.sums.known, **found.curves, "spread": found.spread}
    pairs = [(known[name], g) for name, g in upstream.items() if g is not None]
    if upstream_u is not None:
        apart = 1 if question.problem.exclusive else 0
        u = torch.stack([event.u for event in found.every], apart) if every else found.events[0].u
        pairs.append((u, upstream_u))
    values = [value for value, _ in pairs]
    gradients = [g.to(value.dtype) for value, g in pairs]
    return torch.autograd.grad(values, question.problem.logits, gradients, create_graph=further)[0]


def gradient_of(by_kernels: Callable[[], Tensor], by_plain: Callable[[bool], Tensor], *seen: Tensor | None) -> Tensor:
    """What the backward of an operator returns. Autograd may look at many gradients at once: kernels cannot."""
    if torch.compiler.is_compiling():
        return by_kernels()
    if any(x is not None and transformed(x) for x in seen):
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            return by_plain(further)
    return gradient(by_kernels, by_plain)


def charged(question: Levels, span: Tensor, table: Tensor, by_kernels: Callable[..., Tensor]) -> Tensor:
    """What an answer to `Levels` has for `charged`: `by_kernels` gives its gradient, from that of the value and the
    tensors of the problem."""
    problem, ranking = question.problem, question.ranking
    task, ignore = problem.task, problem.ignore_index

    def by_plain(z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None) -> Tensor:
        again = Levels(Problem(z, y, w, sample, task, ignore), ranking, Images(sample))
        return OnLevels(again).charged(span, table)

    tensors = problem.logits, problem.target, problem.weight, problem.sample
    value: Tensor = _Charged.apply(*tensors, span, by_kernels, by_plain)  # type: ignore[no-untyped-call]
    return value


class _Charged(torch.autograd.Function):
    """0 for every group and class, with the gradient that the kernels give it: a value that nobody needs.

    The two ways to the gradient are handed the tensors of the problem again, and hold none: what is kept of them is
    autograd's to let go.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample: Tensor | None,
        span: Tensor,
        by_kernels: Callable[..., Tensor],
        by_plain: Callable[..., Tensor],
    ) -> Tensor:
        ctx.save_for_backward(logits, target, weight, sample)
        ctx.ways = by_kernels, by_plain
        return torch.zeros_like(span)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        tensors, (by_kernels, by_plain) = ctx.saved_tensors, ctx.ways

        def plainly(further: bool) -> Tensor:
            found: Tensor = torch.autograd.grad(by_plain(*tensors), tensors[0], upstream, create_graph=further)[0]
            return found

        return gradient_of(lambda: by_kernels(upstream, *tensors), plainly, upstream), *(None,) * 6


class compiling:
    """For a call that may compile: its failures are told from others. `packages`: what compiles, by name."""

    def __init__(self, engine: str, packages: tuple[str, ...]) -> None:
        self._engine, self._packages = engine, packages

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, Exception) and self._of_compiler(error):
            raise KernelFailure(self._engine, f"the kernels failed {in_a_line(error)}") from error

    def _of_compiler(self, error: Exception) -> bool:
        """Whether the compiler raised it, or a file or a module that it needs is missing."""
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        raised_by = "" if at is None else str(at.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        missing = isinstance(error, OSError | ImportError) and not isinstance(error, TimeoutError)  # that is an alarm's
        full = "out of memory" in str(error)  # of the device: no fault of the kernels, and over in a moment
        return missing or (raised_by in self._packages and not full)


def in_a_line(error: Exception) -> str:
    """What compilers say takes pages."""
    return f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')})"
