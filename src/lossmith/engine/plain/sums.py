"""The pass over the logits in ordinary torch: any device and dtype, differentiable twice, traceable, vmappable.

It is what the kernels are held against. One softmax serves everything; a one-hot target never exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..contract import Event, Measured, Pass, Sums, Want
from ..curves import Curve
from ..tensors import can_look, computed, flat, floating, forward_mode, product, wide
from . import several
from .pixels import cleared, times, total

TINY = 1e-30  # probabilities below it are computed from the logits
_PIECE = 3 << 16  # logits that are worked on at once on a CPU, so that what is made of them stays in its cache


def measured(question: Pass) -> Measured:
    """Everything that is wanted, and the events if a pixel value is."""
    problem, want = question.problem, question.want
    axes = problem.logits.ndim - 2
    target, weight, span = problem.labels
    z, target = flat(problem.logits, axes), flat(target, axes)
    weight = None if weight is None else flat(weight, axes)
    if not problem.exclusive:
        found = several.of_channels(z, target, weight, want)
    elif problem.hard:
        found = _of_labels(z, target, weight, want)
    else:
        found = several.of_shares(z, target, weight, want)
    found.span = span
    found.complete = weight is None and problem.sample is None and can_look(z) and z.numel() > 0
    if not want.u:
        found.events, found.every, found.weight = [], [], None
        return found
    shape = problem.logits.shape[:1] + problem.logits.shape[2:] if problem.exclusive else problem.logits.shape
    found.events, found.every = ([_shaped(event, shape) for event in some] for some in (found.events, found.every))
    found.weight = None if weight is None else weight.reshape(shape)
    return found


def _shaped(event: Event, shape: torch.Size) -> Event:
    label = event.label if isinstance(event.label, int) else event.label.reshape(shape)
    return Event(event.u.reshape(shape), label, None if event.chance is None else event.chance.reshape(shape))


def _of_labels(z: Tensor, labels: Tensor, weight: Tensor | None, want: Want) -> Measured:
    """One label a pixel."""
    z = floating(z) if want.spread else z  # two gradients add up below: not in half precision
    tracked = forward_mode() or (weight is not None and weight.requires_grad)  # then all is left to autograd
    measure: Any = _forward if tracked else _LabelSums.apply
    u, t, *found = measure(z, labels, weight, want)
    t = t if tracked or t is None else t.detach()  # saying so in the Function would mislead torch.compile
    if t is None:
        counted = torch.ones_like(labels, dtype=computed(z)) if z.numel() == 0 else weight
        result = Measured(Sums() if counted is None else Sums(n=_total(counted)))
    else:
        names = ("fp", "fn", "fp2", "fn2")
        result = Measured(Sums(t=t, tt=t, **{k: x for k, x in zip(names, found, strict=False) if x is not None}))
    result.curves = dict(zip(want.curves, found[4:], strict=True))
    if want.u:
        result.events = [Event(u, labels, None)]
    if want.spread:
        several.add_spread(result, several.of_every_class(cleared(floating(z), weight))[2], weight)
    return result


class _LabelSums(torch.autograd.Function):
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
        errors = fp, fn, fp2, fn2
        pieces = 1 if torch.is_grad_enabled() or not can_look(z, labels, weight, *upstream) else _pieces(z)
        if pieces == 1:
            return _backward(z, labels, weight, errors, u, curves).to(z.dtype), None, None, None
        out = torch.empty_like(z, dtype=dtype, memory_format=torch.contiguous_format)
        for part, own, w, h, here in cut(z, labels, weight, u, out):
            _backward(part, own, w, errors, h, curves, here)
        return out.to(z.dtype), None, None, None


def _pieces(z: Tensor) -> int:
    return max(1, -(-max(z.shape[2], 1) // max(64, _PIECE // max(z.shape[0] * z.shape[1], 1) // 64 * 64)))


def cut(z: Tensor, *more: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The last axis, the pixels, by the piece, on a CPU; elsewhere the whole is the only piece. z is (N, C, S)."""
    if not can_look(z) or _pieces(z) == 1:
        yield (z, *more)
        return
    size = max(64, _PIECE // max(z.shape[0] * z.shape[1], 1) // 64 * 64)
    for begin in range(0, z.shape[2], size):
        yield tuple(None if x is None else x[..., begin : begin + size] for x in (z, *more))


def put(values: Tensor | float, labels: Tensor, out: Tensor) -> Tensor:
    """`out` with a value of every pixel at its label; in place where autograd and functional transforms are away."""
    seen = out, labels, values if isinstance(values, Tensor) else None
    scatter = out.scatter_ if can_look(*seen) and not torch.is_grad_enabled() else out.scatter
    put_in: Tensor = scatter(1, labels.unsqueeze(1), values.unsqueeze(1) if isinstance(values, Tensor) else values)
    return put_in


def _others(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """p of the label, and the p of all classes with 0 for the label."""
    p = z.softmax(1)
    return p.gather(1, labels.unsqueeze(1)).squeeze(1), put(0.0, labels, p)


def _forward(z: Tensor, labels: Tensor, weight: Tensor | None, want: Want) -> tuple[Tensor | None, ...]:
    z = cleared(floating(z), weight)
    own, others = _others(z, labels)
    miss = others.sum(1)
    u = _surprise_at(z, own, others, miss, labels) if want.u or want.curves else None
    curves = [] if u is None else [times(weight, curve(u)) for curve in want.curves]
    pixels: dict[str, Tensor] = {}
    if want.by_label:
        pixels["t"] = torch.ones_like(miss) if weight is None else weight
    if want.errors:
        pixels["fn"] = times(weight, miss)
    if want.squares:
        pixels["fn2"] = times(weight, miss.square())
    if want.by_label:
        sums = _by_label([*pixels.values(), *curves], labels, z.shape[1])
    else:
        sums = [_total(curve) for curve in curves]
    known = dict(zip(pixels, sums, strict=False))
    fp = total(times(weight, others)) if want.errors else None
    fp2 = total(times(weight, others.square())) if want.squares else None
    told = known.get("t"), fp, known.get("fn"), fp2, known.get("fn2")
    return u if want.u else None, *told, *sums[len(pixels) :]


def _surprise_at(z: Tensor, own: Tensor, others: Tensor, miss: Tensor, labels: Tensor) -> Tensor:
    """u = −ln p = ln(1 + (1 − p) / p), exact at both ends, unless p is too small to write: then by the logits."""
    if can_look(z) and own.numel() and float(own.detach().amin()) >= TINY:
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
    """∂L/∂z, in `out` if it is given. With q = ∂L/∂p, h = ∂L/∂u and t the label, ∂L/∂z_k = p_k (q_k − Σ_j p_j q_j + h)
    for k ≠ t. They add up to 0 over k, which says what it is at t without 1 − p_t, which cancels.
    """
    z = cleared(floating(z), weight)
    own, others = _others(z, labels)
    fp, fn, fp2, fn2 = sums
    if fn2 is not None or not all(curve.straight for curve, _ in curves):
        miss = others.sum(1)
        u = _surprise_at(z, own, others, miss, labels)
    for curve, g in curves:
        by_label = times(weight, g.gather(1, labels) if g.shape[1] == z.shape[1] else g)
        h = _add(h, by_label if curve.straight else by_label * curve.slope(u))
    q: Tensor | None = None  # per class
    pull: Tensor | None = None  # −Σ p q, per pixel
    if fp is not None:
        q, pull = fp.unsqueeze(2), -product(fp.unsqueeze(1), others).squeeze(1)
    if fp2 is not None:
        push = 2 * fp2.unsqueeze(2) * others
        q, pull = _add(q, push), _add(pull, -(push * others).sum(1))
    if fn is not None:
        g_own = fn.gather(1, labels)
        pull = own * g_own if pull is None else torch.addcmul(pull, own, g_own)
    if fn2 is not None:
        pull = _add(pull, 2 * own * miss * fn2.gather(1, labels))
    pull = h if pull is None else _add(h, times(weight, pull))
    if pull is None:
        return torch.zeros_like(others)
    factor = pull.unsqueeze(1)
    if q is not None:
        factor = torch.add(times(weight, q.expand_as(others)), factor, out=out)
    gradient = torch.mul(others, factor, out=out)
    return put(-gradient.sum(1), labels, gradient)


def _add(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def _by_label(values: list[Tensor], labels: Tensor, n_classes: int) -> list[Tensor]:
    """Each summed over the pixels of each label, per image."""
    x = torch.stack(values, 1) if len(values) > 1 else values[0].unsqueeze(1)
    pixels = labels.shape[1]
    lanes = next((k for k in (256, 128, 64, 32, 16) if pixels % k == 0), None)  # summed as they are
    if lanes is None:
        x, lanes = wide(x), pixels
    x = x.view(*x.shape[:2], pixels // lanes, lanes)
    at = labels.reshape(len(labels), 1, *x.shape[2:]).expand_as(x)
    return list(wide(x.new_zeros(*x.shape[:3], n_classes).scatter_add(3, at, x)).sum(2).unbind(1))


def _total(x: Tensor) -> Tensor:
    """Values of pixels (N, S) as one sum per image, (N, 1)."""
    return wide(x.sum(1, keepdim=True))
