"""The contract of the engine in ordinary torch: any device and dtype, differentiable twice, traceable, vmappable.

It is what accelerators run today, and what the kernels are held against. One softmax serves everything; a one-hot
target never exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Curve, Event, Problem, Stats, Want
from .tensors import can_look, forward_mode, indices, product

TINY = 1e-30  # probabilities below it are computed from the logits
SLACK = 1e-4  # by which soft labels that were interpolated or normalised may leave [0, 1]
_PIECE = 3 << 16  # logits that are worked on at once on a CPU, so that what is made of them stays in its cache


def statistics(problem: Problem) -> Stats:
    """Everything that `problem.want` names, and the events if it names a pixel value."""
    n, c, *space = problem.logits.shape
    flat = replace(
        problem,
        logits=problem.logits.reshape(n, c, math.prod(space)),
        target=problem.target.reshape(n, *[c] * (not problem.hard), math.prod(space)),
        weight=None if problem.weight is None else problem.weight.reshape(n, math.prod(space)),
    )
    if problem.task != "multiclass":
        stats = _sigmoid(flat)
    elif problem.hard:
        stats = _softmax(flat)
    else:
        stats = _soft_softmax(flat)
    for curve in problem.want.curves:
        if curve not in stats.curves:
            stats.curves[curve] = _curve_sums(curve, stats)
    if problem.want.u:
        stats.events = [_unflatten(event, problem) for event in stats.events]
        stats.every = [_unflatten(event, problem) for event in stats.every]
        assert stats.weight is not None
        stats.weight = stats.weight.reshape(_pixel_shape(problem))
    else:
        stats.events, stats.every, stats.weight = [], [], None
    return stats


def _softmax(problem: Problem) -> Stats:
    """One label a pixel."""
    want, z, c = problem.want, problem.logits, problem.logits.shape[1]
    z = floating(z) if want.spread else z  # two gradients add up below: not in half precision
    labels, weight, span = validated(problem, problem.target.long(), c - 1)
    tracked = forward_mode() or (weight is not None and weight.requires_grad)  # then all is left to autograd
    measure: Any = _forward if tracked else _SoftmaxSums.apply
    u, t, fp, fn, fp2, fn2, *sums = measure(z, labels, weight, want)
    t = t if tracked else t.detach()  # saying so in the Function would mislead torch.compile
    stats = Stats(t.sum(1, keepdim=True).expand_as(t), t, t, fp, fn, fp2, fn2, target_range=span)
    stats.curves = dict(zip(want.curves, sums, strict=True))
    if want.u:
        stats.weight = torch.ones_like(u.detach()) if weight is None else weight
        stats.events = [Event(u, labels, None)]
    if want.spread:
        _add_spread(stats, _of_every_class(_cleared(floating(z), weight))[2], weight)
    return stats


class _SoftmaxSums(torch.autograd.Function):
    """u, t, fp, fn, fp2, fn2 of hard labels and the sums of curves of u, with the gradient in closed form.

    Autograd would keep and move a dozen tensors of the logits' size; here nothing is kept, and on a CPU the pixels are
    worked on in pieces that stay in its cache. The backward is made of differentiable operations of its own.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, labels: Tensor, weight: Tensor | None, want: Want) -> tuple[Tensor | None, ...]:
        parts: list[Tensor] = []
        sums: list[Tensor | None] = []
        for part, own, w in cut(z, labels, weight):
            u, *more = _forward(part, own, w, want)
            parts += [] if u is None else [u]
            if sums:  # in place: a new tensor after each piece would be in the way of the next one's memory
                more = [None if x is None or y is None else x.add_(y) for x, y in zip(sums, more, strict=True)]
            sums = more
        return torch.cat(parts, 1) if len(parts) > 1 else u, *sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.curves = inputs[3].curves
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        z, labels, weight = ctx.saved_tensors
        dtype = computed(z)
        u, _, fp, fn, fp2, fn2, *sums = (None if g is None else g.to(dtype) for g in upstream)
        curves = [(curve, g) for curve, g in zip(ctx.curves, sums, strict=True) if g is not None]
        if torch.is_grad_enabled() or not can_look(z, labels, weight, *upstream):
            return _backward(z, labels, weight, (fp, fn, fp2, fn2), u, curves).to(z.dtype), None, None, None
        out = torch.empty_like(z, dtype=dtype, memory_format=torch.contiguous_format)
        for part, own, w, h, here in cut(z, labels, weight, u, out):
            _backward(part, own, w, (fp, fn, fp2, fn2), h, curves, here)
        return out.to(z.dtype), None, None, None


def cut(z: Tensor, *more: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The last axis, the pixels, by the piece, on a CPU; elsewhere the whole is the only piece. z is (N, C, S)."""
    size = max(64, _PIECE // max(z.shape[0] * z.shape[1], 1) // 64 * 64) if can_look(z) else max(z.shape[2], 1)
    for begin in range(0, max(z.shape[2], 1), size):
        yield tuple(None if x is None else x[..., begin : begin + size] for x in (z, *more))


def _odds(z: Tensor, labels: Tensor, weight: Tensor | None) -> tuple[Tensor, ...]:
    """The logits in floating point, p of the label, the p of the others with 0 for the label, and their sum 1 − p."""
    z, at = _cleared(floating(z), weight), labels.unsqueeze(1)
    p = z.softmax(1)
    own = p.gather(1, at).squeeze(1)
    others = put(own.new_zeros(()).expand_as(own), labels, p)
    return z, own, others, others.sum(1)


def put(values: Tensor, labels: Tensor, out: Tensor) -> Tensor:
    """`out` with a value of every pixel at its label; in place where autograd and functional transforms are away."""
    scatter = out.scatter_ if can_look(out, labels, values) and not torch.is_grad_enabled() else out.scatter
    return scatter(1, labels.unsqueeze(1), values.unsqueeze(1))


def _forward(z: Tensor, labels: Tensor, weight: Tensor | None, want: Want) -> tuple[Tensor | None, ...]:
    z, own, others, miss = _odds(z, labels, weight)
    t = _by_label(labels.new_ones(1, 1).expand_as(labels) if weight is None else weight, labels, z.shape[1])
    fp = fn = fp2 = fn2 = u = None
    if want.errors:
        fp, fn = total(_times(weight, others)), _by_label(_times(weight, miss), labels, z.shape[1])
    if want.squares:
        fp2 = total(_times(weight, others.square()))
        fn2 = _by_label(_times(weight, miss.square()), labels, z.shape[1])
    sums = []
    if want.u or want.curves:
        u = _surprise_at(z, own, others, miss, labels)
        sums = [_by_label(_times(weight, curve(u)), labels, z.shape[1]) for curve in want.curves]
    return u if want.u else None, t, fp, fn, fp2, fn2, *sums


def _surprise_at(z: Tensor, own: Tensor, others: Tensor, miss: Tensor, labels: Tensor) -> Tensor:
    """u = −ln p = ln(1 + (1 − p) / p), exact at both ends, unless p is too small to write: then by the logits."""
    if can_look(z) and own.numel() and bool(own.amin() >= TINY):
        return torch.log1p(miss / own)
    tiny = own < TINY
    largest = torch.maximum(others.amax(1), own)
    far = z.amax(1) - z.gather(1, labels.unsqueeze(1)).squeeze(1) - largest.log()
    return torch.where(tiny, far, torch.log1p(miss / torch.where(tiny, 1.0, own)))


def _backward(
    z: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    sums: tuple[Tensor | None, ...],
    h: Tensor | None,
    curves: list[tuple[Curve, Tensor]],
    out: Tensor | None = None,
) -> Tensor:
    """∂L/∂z, in `out` if it is given. With q = ∂L/∂p, h = ∂L/∂u and t the label, ∂L/∂z_k = p_k (q_k − Σ_j p_j q_j) +
    h (p_k − [k = t]); at k = t both parts are written with 1 − p_t = Σ_{j≠t} p_j, which does not cancel.
    """
    z, own, others, miss = _odds(z, labels, weight)
    fp, fn, fp2, fn2 = sums
    u = None if all(curve.straight for curve, _ in curves) else _surprise_at(z, own, others, miss, labels)
    for curve, g in curves:
        pull = _times(weight, g.gather(1, labels))
        h = _add(h, pull if u is None or curve.straight else pull * curve.slope(u))
    q = inner = q_own = None
    if fp is not None:
        q, inner = fp.unsqueeze(2), product(fp.unsqueeze(1), others).squeeze(1)
    if fp2 is not None:
        push = 2 * fp2.unsqueeze(2) * others
        q, inner = _add(q, push), _add(inner, (push * others).sum(1))
    if fn is not None:
        q_own = -fn.gather(1, labels)
    if fn2 is not None:
        q_own = _add(q_own, -2 * miss * fn2.gather(1, labels))
    inner = torch.zeros_like(miss) if inner is None else inner
    q_own = torch.zeros_like(miss) if q_own is None else q_own
    pull = -_times(weight, torch.addcmul(inner, own, q_own))
    mine = _times(weight, own * (q_own * miss - inner))
    if h is not None:
        pull, mine = pull + h, mine - h * miss
    pull = pull.unsqueeze(1)
    factor = pull if q is None else torch.add(_times(weight, q.expand_as(others)), pull, out=out)
    return put(mine, labels, torch.mul(others, factor, out=out))


def _cleared(z: Tensor, weight: Tensor | None) -> Tensor:
    """Logits with the ignored pixels at 0: whatever they were, NaN included, they can touch nothing."""
    return z if weight is None else z.masked_fill((weight == 0).unsqueeze(1), 0.0)


def _times(weight: Tensor | None, x: Tensor) -> Tensor:
    """Values of pixels, (N, S) or (N, C, S), times the weights of the pixels (N, S), if there are any."""
    return x if weight is None else x * (weight if x.ndim == 2 else weight.unsqueeze(1))


def _soft_softmax(problem: Problem) -> Stats:
    """A distribution over the classes at each pixel: every class is a possible label."""
    want, z = problem.want, floating(problem.logits)
    target, weight, span = validated(problem, like(problem.target, z), 1)
    p, miss, u = _of_every_class(_cleared(z, weight))
    yes = _times(weight, target)
    t = total(yes)
    n = total(torch.ones_like(yes[:, :1]) if weight is None else weight.unsqueeze(1)).expand_as(t)
    stats = Stats(n, t, total(yes * target), target_range=span)
    _add_errors(stats, want, _times(weight, 1 - target), yes, p, miss)
    if want.u or want.curves:
        possible = u.masked_fill(target == 0, 0.0)  # an impossible label costs nothing, however surprising
        stats.events = [Event(possible[:, k], k, target[:, k]) for k in range(z.shape[1])]
        stats.weight = torch.ones_like(target[:, 0]) if weight is None else weight
    if want.spread:
        _add_spread(stats, u, weight)
    return stats


def likeliest(p: Tensor) -> Tensor:
    """The class with the largest value, (N, 1, …). On a CPU torch's argmax takes ten times as long."""
    return p.max(1, keepdim=True).indices


def missed_by_every_class(p: Tensor) -> Tensor:
    """1 − p, which cancels for the likeliest class alone: for it, the sum over the others."""
    best = likeliest(p)
    return (1 - p).scatter(1, best, p.scatter(1, best, 0.0).sum(1, keepdim=True))


def _of_every_class(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, 1 − p and −ln p of every class, none of them by a difference that cancels."""
    p = z.softmax(1)
    miss = missed_by_every_class(p)
    near = -torch.log1p(-torch.where(miss < 0.5, miss, 0.0))
    return p, miss, torch.where(miss < 0.5, near, _surprise(z, z, p))


def _sigmoid(problem: Problem) -> Stats:
    """A yes or no in every channel."""
    want, z = problem.want, floating(problem.logits)
    if problem.hard and problem.task == "multilabel":  # one against the rest; label C is none of them
        labels, weight, span = validated(problem, problem.target.long(), z.shape[1])
        target = (labels.unsqueeze(1) == indices(z.shape[1], z, 1)).to(z)
        weight = None if weight is None else weight.unsqueeze(1).expand(z.shape)
    else:
        target, weight, span = validated(problem, like(problem.target, z), 1)
    weight = torch.ones_like(target) if weight is None else weight
    z = z.masked_fill(weight == 0, 0.0)
    p, miss = z.sigmoid(), (-z).sigmoid()
    n, t = total(weight), total(weight * target)
    stats = Stats(n, t, total(weight * target.square()), weight=weight, target_range=span)
    _add_errors(stats, want, weight * (1 - target), weight * target, p, miss)
    if want.u or want.curves:
        if problem.target.is_floating_point():
            no, yes = (
                (-F.logsigmoid(-z)).masked_fill(target == 1, 0.0),
                (-F.logsigmoid(z)).masked_fill(target == 0, 0.0),
            )
            stats.events = [Event(no, 0, 1 - target), Event(yes, 1, target)]
        else:
            stats.events = [Event(-F.logsigmoid(torch.where(target > 0, z, -z)), target.long(), None)]
    if want.spread:
        no, yes = -F.logsigmoid(-z), -F.logsigmoid(z)
        stats.spread = torch.stack([total(no * weight), total(yes * weight)], 2)
        stats.every = [Event(no, 0, None), Event(yes, 1, None)]
    return stats


def validated(problem: Problem, target: Tensor, top: int) -> tuple[Tensor, Tensor | None, tuple[float, float] | None]:
    """The target within 0 … `top`, with the ignored elements at 0; the weight of the pixels with them at 0, or None if
    all weigh 1; and the range of the valid target as it was, where looking at it is free."""
    z = problem.logits
    dtype = computed(z)
    valid = target != problem.ignore_index
    if problem.task == "multiclass" and target.ndim == z.ndim:
        valid = valid.all(1)
    if problem.sample is not None:
        valid = valid & (problem.sample != 0).reshape(-1, *[1] * (valid.ndim - 1))
    given = problem.weight
    if given is not None:
        given = given.to(dtype)
        given = given if given.ndim == valid.ndim else given.unsqueeze(1)
        valid = valid & (given != 0)
    look = can_look(target)
    simple = look and given is None and bool(valid.all())  # nothing ignored, nothing weighted: the common case
    weight = None if simple else valid.to(dtype) if given is None else torch.where(valid, given, 0.0)
    if not simple:
        target = target.masked_fill(~valid if valid.ndim == target.ndim else ~valid.unsqueeze(1), 0)
    if look:
        low, high = target.detach().aminmax() if target.numel() else (0.0, 0.0)
        span = float(low), float(high)
        inside = span[0] >= 0 and span[1] <= top
        return target if inside else target.clamp(0, top), weight, span  # beyond the slack the caller raises
    assert weight is not None
    outside = out_of_range(target, top)  # the loss becomes NaN: looking at a label would stall the device
    weight = weight.masked_fill(outside if valid.ndim == target.ndim else outside.any(1), torch.nan)
    return target.clamp(0, top), weight, None


def out_of_range(target: Tensor, top: int) -> Tensor:
    """Which values no label has, bool; not NaN, which stays one."""
    slack = SLACK if target.is_floating_point() else 0
    return (target < -slack) | (target > top + slack)


def _add_errors(stats: Stats, want: Want, no: Tensor, yes: Tensor, p: Tensor, miss: Tensor) -> None:
    if want.errors:
        stats.fp, stats.fn = total(no * p), total(yes * miss)
    if want.squares:
        stats.fp2, stats.fn2 = total(no * p.square()), total(yes * miss.square())


def _add_spread(stats: Stats, u: Tensor, weight: Tensor | None) -> None:
    stats.spread = total(_times(weight, u))
    stats.every = [Event(u[:, k], k, None) for k in range(u.shape[1])]


def _surprise(own: Tensor, z: Tensor, p: Tensor) -> Tensor:
    """−ln p of logits, also where p is too small to write; it loses digits where p is nearly 1."""
    return (z.amax(1, keepdim=True) - own) - p.amax(1, keepdim=True).log()


def _curve_sums(curve: Curve, stats: Stats) -> Tensor:
    """Σ w f(u) per image and label: of the yes and no of channels, or of all classes of soft labels."""
    assert stats.weight is not None
    values = [curve(event.u) * stats.weight * (1 if event.chance is None else event.chance) for event in stats.events]
    if len(values) > 1 or isinstance(stats.events[0].label, int):
        return torch.stack([_wide(value.sum(-1)) for value in values], -1)
    label, value = stats.events[0].label, _wide(values[0])
    return value.new_zeros(*stats.n.shape, 2).scatter_add(2, label, value)


def _add(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def computed(x: Tensor) -> torch.dtype:
    """Nothing is computed in half precision."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def floating(x: Tensor) -> Tensor:
    """float32, or float64 where it is given: nothing is computed in half precision."""
    return x.to(computed(x))


def like(target: Tensor, z: Tensor) -> Tensor:
    return (target.to(z.dtype) if target.is_floating_point() else target.long()).reshape(z.shape)


def _by_label(x: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Σ x over the pixels of each label, per image."""
    pixels = labels.shape[1]
    lanes = next((k for k in (256, 128, 64, 32, 16) if pixels % k == 0), None)  # summed as they are
    if lanes is None:
        x, lanes = _wide(x), pixels
    x, labels = (v.view(len(v), pixels // lanes, lanes) for v in (x, labels))
    return _wide(x.new_zeros(*x.shape[:2], n_classes).scatter_add(2, labels, x)).sum(1)


def total(x: Tensor) -> Tensor:
    return _wide(x.sum(2))


def _wide(x: Tensor) -> Tensor:
    """float64, where the device has it: sums of many pixels lose digits otherwise."""
    return x.float() if x.device.type == "mps" else x.double()


def _pixel_shape(problem: Problem) -> tuple[int, ...]:
    n, c, *space = problem.logits.shape
    return (n, *space) if problem.task == "multiclass" else (n, c, *space)


def _unflatten(event: Event, problem: Problem) -> Event:
    shape = _pixel_shape(problem)
    label = event.label if isinstance(event.label, int) else event.label.reshape(shape)
    return Event(event.u.reshape(shape), label, None if event.chance is None else event.chance.reshape(shape))
