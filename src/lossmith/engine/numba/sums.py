"""Sums over pixels by the kernels, for float32, bfloat16 and float16 logits on a CPU.

One read of the logits makes every sum a loss asked for; one more read and one write make the gradient, with the exps
computed anew. Nothing of the logits' size is stored in between: no probabilities, no one-hot target.

The formulas work on the sums in ordinary torch and hand back ∂L/∂sum and ∂L/∂u; `_Sums` turns these into ∂L/∂logits.
Tensors are read where they are, whatever their dtype and layout (channels_last, (N, C), slices), with few exceptions:
spatial dimensions that cannot be walked with one stride, 16-bit integer labels and weights other than float32 are
copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..choice import unusual
from ..contract import Event, Levels, Measured, Order, Pass, Sums
from ..curves import Curve
from ..kernels import by_torch, gradient_of, strange
from ..problem import Problem, certain
from . import pixels as px
from .launch import fresh
from .plan import NOTHING, Plan, plan_of


def refuses(question: Pass | Order | Levels) -> str | None:
    """Why the kernels cannot take logits and their target; None if they can."""
    problem = question.problem
    reason = unusual(problem.logits, problem.target, problem.weight, problem.sample) or strange(question)
    if reason is not None or not isinstance(question, Pass) or not question.want.u:
        return reason
    if not certain(problem):
        return "per-pixel values of soft targets"
    return "per-pixel values of every label" if question.want.spread else None


def measured(question: Pass) -> Measured:
    """The sums a problem asks for, differentiable with respect to its logits."""
    problem, want = question.problem, question.want
    plan = plan_of(problem, want)
    constants: list[Any] = []
    if torch.is_grad_enabled() and problem.logits.requires_grad and (plan.rows or want.u):
        values = iter(_Sums.apply(problem.logits, problem, plan, constants))  # type: ignore[no-untyped-call]
    else:
        values = iter(_forward(problem, plan, constants))
    n, t, tt, span, complete = constants
    counts = {"t": t, "tt": tt} if n is None else {"n": n, "t": t, "tt": tt}
    result = Measured(Sums(**counts), complete=complete, span=span)
    if want.u:
        known = complete and problem.exclusive  # then the target need not be read again
        label, weight = (problem.target, None) if known else problem.labels[:2]
        result.events, result.weight = [Event(next(values), label, None)], weight
    for name, value in zip(plan.rows, values, strict=True):
        if isinstance(name, Curve):
            result.curves[name] = value
        elif name == "spread":
            result.spread = value
        else:
            result.sums.add(name, value)
    return result


class _Sums(torch.autograd.Function):
    """Logits to u, if it is wanted, and the sums. What has no gradient is left in `constants`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, problem: Problem, plan: Plan, constants: list[Any]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits, problem.target, problem.weight, problem.sample)
        ctx.settings = (problem.task, problem.ignore_index)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        return _forward(problem, plan, constants)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        problem = Problem(*ctx.saved_tensors, *ctx.settings)
        u, sums = (upstream[0], upstream[1:]) if ctx.plan.want.u else (None, upstream)
        question, by_name = Pass(problem, ctx.plan.want), dict(zip(ctx.plan.rows, sums, strict=True))
        found = gradient_of(
            lambda: _gradient(problem, ctx.plan, u, sums),
            lambda further: by_torch(question, by_name, u, further),
            *upstream,
        )
        return found, None, None, None


def _forward(problem: Problem, plan: Plan, constants: list[Any]) -> tuple[Tensor, ...]:
    """u, if it is wanted, and the sums. Into constants: n, t, tt, the target's range, whether all pixels count as 1."""
    partial, by_row = plan.table(plan.images if plan.scores else plan.chunks, np.float64)
    limits = np.empty((plan.chunks, 2))
    u = fresh(*plan.u_shape) if plan.want.u else None
    flat_u = () if plan.soft else (NOTHING if u is None else u.numpy().reshape(-1),)
    plan.run(plan.kernels.sums, (*plan.shown(problem), plan.ask, partial, limits, *flat_u), plan.scratch)

    if by_row.shape[1] != plan.images:
        by_row = partial.reshape(plan.images, -1, *partial.shape[1:]).sum(1).swapaxes(0, 1)
    complete = problem.weight is None and problem.sample is None and problem.logits.numel() > 0
    if plan.hard_softmax:  # a pixel is of one class: what all classes have is what all pixels weigh
        t = tt = torch.from_numpy(by_row[plan.t])
        n = None
        complete = complete and bool(by_row[plan.t].sum() == plan.images * plan.pixels)
    else:
        n, t, tt = (torch.from_numpy(by_row[row]) for row in (px.N, px.T, px.TT))
        complete = complete and bool((by_row[px.N] == plan.pixels).all())
    low, high = limits[0].tolist() if len(limits) == 1 else _range(limits)
    constants += n, t, tt, (low, high) if low <= high else (0.0, 0.0), complete
    sums = [_gather(by_row, rows) for rows in plan.rows.values()]
    return tuple(sums) if u is None else (u, *sums)


def _range(limits: np.ndarray[Any, Any]) -> tuple[float, float]:
    return float(limits[:, 0].min(initial=np.inf)), float(limits[:, 1].max(initial=-np.inf))


def _gather(by_row: np.ndarray[Any, Any], rows: list[int]) -> Tensor:
    values = by_row[rows[0]] if len(rows) == 1 else np.moveaxis(by_row[rows], 0, 2)
    return torch.from_numpy(np.ascontiguousarray(values))


def _gradient(problem: Problem, plan: Plan, upstream_u: Tensor | None, upstream: tuple[Tensor | None, ...]) -> Tensor:
    table, by_row = plan.table(plan.images, np.float32)
    for rows, g in zip(plan.rows.values(), upstream, strict=True):
        if g is not None:
            for i, row in enumerate(rows):  # by torch: NumPy would warn of what becomes infinite
                torch.from_numpy(by_row[row]).copy_(g if len(rows) == 1 else g.select(-1, i))
    flat_u = (
        () if plan.soft else (NOTHING if upstream_u is None else upstream_u.detach().contiguous().numpy().reshape(-1),)
    )
    out = plan.output()
    arguments = (*plan.shown(problem), plan.ask, table, *flat_u, plan.out.field(out))
    plan.run(plan.kernels.gradient, arguments, plan.scratch)
    return out
