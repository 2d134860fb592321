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

from ..choice import gradient, unusual
from ..contract import Event, Measured, Order, Pass, Sums
from ..curves import Curve
from ..plain import sums as plain
from ..problem import Problem
from . import pixels as px
from .launch import fresh
from .plan import NOTHING, Plan, plan_of

_LOGITS = {torch.float32, torch.bfloat16, torch.float16}
_TARGETS = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float64,
    *_LOGITS,
}


def refuses(question: Pass | Order) -> str | None:
    """Why the kernels cannot take logits and their target; None if they can."""
    problem = question.problem
    logits, target = problem.logits, problem.target
    strange = unusual(logits, target, problem.weight, problem.sample)
    if strange is not None:
        return strange
    if logits.device.type != "cpu":
        return f"the kernels run on the CPU, not on {logits.device.type}"
    if logits.dtype not in _LOGITS:
        return f"the kernels take float32, bfloat16 and float16, not {logits.dtype}"
    if logits.layout != torch.strided:
        return f"the kernels take ordinary dense tensors, not {logits.layout}"
    if target.dtype not in _TARGETS:
        return f"a target of {target.dtype}"
    if target.requires_grad:
        return "a target that requires a gradient"
    if problem.weight is not None and problem.weight.requires_grad:
        return "a weight that requires a gradient"
    if not isinstance(question, Pass):
        return None
    want = question.want
    if want.u and not problem.hard and (problem.exclusive or target.is_floating_point()):
        return "per-pixel values of soft targets"
    if want.u and want.spread:
        return "per-pixel values of every label"
    return None


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
        known = (problem, ctx.plan, u, sums)
        return gradient(lambda: _gradient(*known), lambda further: _by_torch(*known, further)), None, None, None


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


def _by_torch(
    problem: Problem, plan: Plan, upstream_u: Tensor | None, upstream: tuple[Tensor | None, ...], further: bool
) -> Tensor:
    """The same gradient by the plain engine, which autograd can follow further."""
    found = plain.measured(Pass(problem, plan.want._replace(labels=True)))
    known: dict[Any, Any] = {**found.sums.known, **found.curves, "spread": found.spread}
    pairs = [(known[name], g) for name, g in zip(plan.rows, upstream, strict=True) if g is not None]
    if upstream_u is not None:
        pairs.append((found.events[0].u, upstream_u))
    values = [value for value, _ in pairs]
    gradients = [g.to(value.dtype) for value, g in pairs]
    return torch.autograd.grad(values, problem.logits, gradients, create_graph=further)[0]
