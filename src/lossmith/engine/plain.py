"""The contract of the engine in ordinary torch: any device and dtype, differentiable twice, traceable, vmappable.

It is what accelerators run today, and what the kernels are held against. One softmax serves everything; a one-hot
target never exists.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Curve, Event, Problem, Stats, Want

_PIECE = 1 << 18  # logits that are worked on at once on a CPU, so that what is made of them stays in its cache


def statistics(problem: Problem) -> Stats:
    """Everything that `problem.want` names, and the events if it names a pixel value."""
    stats = _joined([_measured(piece) for piece in _pieces(problem)])
    if problem.want.u:
        stats.events = [_unflatten(event, problem) for event in stats.events]
        stats.every = [_unflatten(event, problem) for event in stats.every]
        assert stats.weight is not None
        stats.weight = stats.weight.reshape(_pixel_shape(problem))
    return stats


def _pieces(problem: Problem) -> list[Problem]:
    """The problem with one axis of pixels; on a CPU cut along it."""
    n, c, *space = problem.logits.shape
    z = problem.logits.reshape(n, c, math.prod(space))
    target = problem.target.reshape(*problem.target.shape[: 1 if problem.hard else 2], z.shape[2])
    weight = None if problem.weight is None else problem.weight.reshape(n, z.shape[2])
    size = max(1, _PIECE // max(n * c, 1)) if can_look(z) else z.shape[2]
    if size >= z.shape[2]:
        return [replace(problem, logits=z, target=target, weight=weight)]
    parts, targets = torch.split(z, size, -1), torch.split(target, size, -1)
    weights = [None] * len(parts) if weight is None else torch.split(weight, size, -1)
    pieces = zip(parts, targets, weights, strict=True)
    return [replace(problem, logits=z, target=target, weight=weight) for z, target, weight in pieces]


def _joined(pieces: list[Stats]) -> Stats:
    """What the pieces add up to."""
    first = pieces[0]
    if len(pieces) == 1:
        return first

    def joined(name: str) -> Any:
        values = [getattr(piece, name) for piece in pieces]
        return None if values[0] is None else torch.stack(values).sum(0)

    def along(values: tuple[Any, ...]) -> Any:
        return torch.cat(values, -1) if isinstance(values[0], Tensor) else values[0]

    def events(name: str) -> list[Event]:
        same = zip(*(getattr(piece, name) for piece in pieces), strict=True)
        return [Event(*map(along, zip(*event, strict=True))) for event in same]

    spans = [piece.target_range for piece in pieces if piece.target_range is not None]
    return Stats(
        **{name: joined(name) for name in ("n", "t", "tt", "fp", "fn", "fp2", "fn2", "spread")},
        curves={curve: torch.stack([piece.curves[curve] for piece in pieces]).sum(0) for curve in first.curves},
        events=events("events"),
        every=events("every"),
        weight=None if first.weight is None else torch.cat([p.weight for p in pieces if p.weight is not None], -1),
        target_range=(min(low for low, _ in spans), max(high for _, high in spans)) if spans else None,
    )


def _measured(problem: Problem) -> Stats:
    """One piece: logits (N, C, S)."""
    z = problem.logits if problem.logits.dtype == torch.float64 else problem.logits.float()
    if problem.task != "multiclass":
        stats = _sigmoid(problem, z)
    elif problem.hard:
        stats = _softmax(problem, z)
    else:
        stats = _soft_softmax(problem, z)
    for event in stats.events:
        for curve in problem.want.curves:
            stats.curves[curve] = _add(stats.curves.get(curve), _curve_sums(event, curve, stats, problem))
    if not problem.want.u:
        stats.events, stats.every, stats.weight = [], [], None
    return stats


def _softmax(problem: Problem, z: Tensor) -> Stats:
    """One label a pixel."""
    want, n_classes = problem.want, z.shape[1]
    labels, weight, span = _valid(problem, problem.target.long(), z, n_classes - 1)
    t = _by_label(weight, labels, n_classes)
    n = t.sum(1, keepdim=True).expand_as(t)
    stats = Stats(n, t, t, weight=weight, target_range=span)
    simple = can_look(weight) and bool((weight == 1).all())  # nothing ignored, nothing weighted: the common case
    stats.fp, stats.fn, stats.fp2, stats.fn2, u = _SoftmaxSums.apply(  # type: ignore[no-untyped-call]
        z, labels, None if simple else weight, want
    )
    if u is not None:
        stats.events = [Event(u, labels, None)]
    if want.spread:
        z = z.masked_fill((weight == 0).unsqueeze(1), 0.0)
        _add_spread(stats, _surprise(z, z, z.softmax(1)), weight.unsqueeze(1))
    return stats


class _SoftmaxSums(torch.autograd.Function):
    """fp, fn, fp2, fn2 and u of hard labels, with the gradient in closed form.

    Autograd would keep and move a dozen tensors of the logits' size. With q = ∂L/∂p, h = ∂L/∂u and t the label,
    ∂L/∂z_k = p_k (q_k − Σ_j p_j q_j) + h (p_k − [k = t]); at k = t both parts are written with 1 − p_t = Σ_{j≠t} p_j,
    which does not cancel. The backward is made of differentiable operations of its own.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, labels: Tensor, weight: Tensor | None, want: Want) -> tuple[Tensor | None, ...]:
        z = _cleared(z, weight)
        p = z.softmax(1)
        others = p.scatter(1, labels.unsqueeze(1), 0.0)
        miss = others.sum(1)
        fp = fn = fp2 = fn2 = u = None
        if want.errors:
            fp, fn = _total(_times(weight, others)), _by_label(_times(weight, miss), labels, z.shape[1])
        if want.squares:
            fp2 = _total(_times(weight, others.square()))
            fn2 = _by_label(_times(weight, miss.square()), labels, z.shape[1])
        if want.u or want.curves:
            far = _surprise(z.gather(1, labels.unsqueeze(1)), z, p).squeeze(1)
            u = torch.where(miss < 0.5, -torch.log1p(-miss), far)
        return fp, fn, fp2, fn2, u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor, None, None, None]:
        z, labels, weight = ctx.saved_tensors
        fp, fn, fp2, fn2, h = (None if g is None else g.to(z.dtype) for g in upstream)
        index = labels.unsqueeze(1)
        p = _cleared(z, weight).softmax(1)
        own, others = p.gather(1, index).squeeze(1), p.scatter(1, index, 0.0)
        del p
        miss = others.sum(1)
        q = z.new_zeros(()) if fp is None else fp.unsqueeze(2)
        q = q if fp2 is None else q + 2 * fp2.unsqueeze(2) * others
        q_own = torch.zeros_like(miss) if fn is None else -fn.gather(1, labels)
        q_own = q_own if fn2 is None else q_own - 2 * miss * fn2.gather(1, labels)
        h = torch.zeros_like(miss) if h is None else h
        push = others * q
        inner = push.sum(1)
        rest = torch.addcmul(_times(weight, push), others, (h - _times(weight, inner + own * q_own)).unsqueeze(1))
        mine = _times(weight, own * (q_own * miss - inner)) - h * miss
        return rest.scatter(1, index, mine.unsqueeze(1)), None, None, None


def _cleared(z: Tensor, weight: Tensor | None) -> Tensor:
    """Logits with the ignored pixels at 0: whatever they were, NaN included, they can touch nothing."""
    return z if weight is None else z.masked_fill((weight == 0).unsqueeze(1), 0.0)


def _times(weight: Tensor | None, x: Tensor) -> Tensor:
    """Values of pixels, (N, S) or (N, C, S), times the weights of the pixels (N, S), if there are any."""
    return x if weight is None else x * (weight if x.ndim == 2 else weight.unsqueeze(1))


def _soft_softmax(problem: Problem, z: Tensor) -> Stats:
    """A distribution over the classes at each pixel: every class is a possible label."""
    want = problem.want
    target, weight, span = _valid(problem, _like(problem.target, z), z, 1)
    z = z.masked_fill((weight == 0).unsqueeze(1), 0.0)
    p = z.softmax(1)
    best = z.argmax(1, keepdim=True)
    rest = p.scatter(1, best, 0.0).sum(1, keepdim=True)  # 1 − p of the likeliest class; the others' do not cancel
    miss = (1 - p).scatter(1, best, rest)
    w = weight.unsqueeze(1)
    n, t = _total(w).expand(z.shape[:2]), _total(w * target)
    stats = Stats(n, t, _total(w * target.square()), weight=weight, target_range=span)
    _add_errors(stats, problem, w, target, p, miss)
    if want.u or want.curves:
        near = -torch.log1p(-torch.where(miss < 0.5, miss, 0.0))
        u = torch.where(miss < 0.5, near, _surprise(z, z, p))
        u = u.masked_fill(target == 0, 0.0)  # an impossible label costs nothing, however surprising
        stats.events = [Event(u[:, k], k, target[:, k]) for k in range(z.shape[1])]
    if want.spread:
        _add_spread(stats, _surprise(z, z, p), w)
    return stats


def _sigmoid(problem: Problem, z: Tensor) -> Stats:
    """A yes or no in every channel."""
    want = problem.want
    if problem.hard and problem.task == "multilabel":  # one against the rest; label C is none of them
        labels, weight, span = _valid(problem, problem.target.long(), z, z.shape[1])
        target = (labels.unsqueeze(1) == torch.arange(z.shape[1], device=z.device).unsqueeze(1)).to(z)
        weight = weight.unsqueeze(1).expand(z.shape)
    else:
        target, weight, span = _valid(problem, _like(problem.target, z), z, 1)
    z = z.masked_fill(weight == 0, 0.0)
    p, miss = z.sigmoid(), (-z).sigmoid()
    n, t = _total(weight), _total(weight * target)
    stats = Stats(n, t, _total(weight * target.square()), weight=weight, target_range=span)
    _add_errors(stats, problem, weight, target, p, miss)
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
        stats.spread = torch.stack([_total(no * weight), _total(yes * weight)], 2)
        stats.every = [Event(no, 0, None), Event(yes, 1, None)]
    return stats


def _valid(problem: Problem, target: Tensor, z: Tensor, top: int) -> tuple[Tensor, Tensor, tuple[float, float] | None]:
    """The target with the ignored elements at 0, the weight with them at 0, and the range of the valid target."""
    valid = target != problem.ignore_index
    if problem.task == "multiclass" and target.ndim == z.ndim:
        valid = valid.all(1)
    if problem.sample is not None:
        valid = valid & (problem.sample != 0).reshape(-1, *[1] * (valid.ndim - 1))
    weight = valid.to(z.dtype)
    if problem.weight is not None:
        given = problem.weight.to(z).reshape(z.shape[0], *[1] * (valid.ndim - 2), z.shape[2])
        valid = valid & (given != 0)
        weight = torch.where(valid, given, 0.0)
    hidden = ~valid if valid.ndim == target.ndim else ~valid.unsqueeze(1)
    target = target.masked_fill(hidden, 0)
    if can_look(target):
        low, high = target.detach().aminmax() if target.numel() else (torch.zeros(()), torch.zeros(()))
        span = (float(low), float(high))
        if target.is_floating_point() or (span[0] >= 0 and span[1] <= top):
            return target, weight, span
        return target.clamp(0, top), weight, span  # the caller raises; until then nothing may be out of bounds
    outside = (target < 0) | (target > top)  # the loss becomes NaN: looking at a label would stall the device
    weight = torch.where(outside if valid.ndim == target.ndim else outside.any(1), torch.nan, weight)
    return target if target.is_floating_point() else target.masked_fill(outside, 0), weight, None


def can_look(x: Tensor) -> bool:
    """Whether values may steer the code here: on a CPU, outside of tracing and of functional transforms."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed(x)


def transformed(x: Tensor) -> bool:
    """Whether a functional transform (vmap, grad, jvp) is looking at this tensor."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def _add_errors(stats: Stats, problem: Problem, weight: Tensor, target: Tensor, p: Tensor, miss: Tensor) -> None:
    if problem.want.errors:
        stats.fp, stats.fn = _total(weight * (1 - target) * p), _total(weight * target * miss)
    if problem.want.squares:
        stats.fp2 = _total(weight * (1 - target) * p.square())
        stats.fn2 = _total(weight * target * miss.square())


def _add_spread(stats: Stats, u: Tensor, weight: Tensor) -> None:
    stats.spread = _total(u * weight)
    stats.every = [Event(u[:, k], k, None) for k in range(u.shape[1])]


def _surprise(own: Tensor, z: Tensor, p: Tensor) -> Tensor:
    """−ln p of logits, also where p is too small to write; it loses digits where p is nearly 1."""
    return (z.amax(1, keepdim=True) - own) - p.amax(1, keepdim=True).log()


def _curve_sums(event: Event, curve: Curve, stats: Stats, problem: Problem) -> Tensor:
    """Σ w f(u) per image and label."""
    assert stats.weight is not None
    value = curve(event.u) * stats.weight
    value = _wide(value if event.chance is None else value * event.chance)
    if problem.task == "multiclass":
        n_classes = stats.n.shape[1]
        if isinstance(event.label, int):
            own = torch.arange(n_classes, device=value.device) == event.label
            return value.sum(1, keepdim=True) * own
        return _by_label(value, event.label, n_classes)
    label = torch.full_like(event.u, event.label, dtype=torch.long) if isinstance(event.label, int) else event.label
    return value.new_zeros(*stats.n.shape, 2).scatter_add(2, label, value)


def _add(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def _like(target: Tensor, z: Tensor) -> Tensor:
    return (target.to(z.dtype) if target.is_floating_point() else target.long()).reshape(z.shape)


def _by_label(x: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Σ x over the pixels of each label, per image."""
    x = _wide(x)
    return x.new_zeros(len(x), n_classes).scatter_add(1, labels, x)


def _total(x: Tensor) -> Tensor:
    return _wide(x.sum(2))


def _wide(x: Tensor) -> Tensor:
    """float64, where the device has it: sums of many pixels lose digits otherwise."""
    return x if x.device.type == "mps" else x.double()


def _pixel_shape(problem: Problem) -> tuple[int, ...]:
    n, c, *space = problem.logits.shape
    return (n, *space) if problem.task == "multiclass" else (n, c, *space)


def _unflatten(event: Event, problem: Problem) -> Event:
    shape = _pixel_shape(problem)
    label = event.label if isinstance(event.label, int) else event.label.reshape(shape)
    return Event(event.u.reshape(shape), label, None if event.chance is None else event.chance.reshape(shape))
