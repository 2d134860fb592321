"""The contract of the engine in ordinary torch: any device and dtype, differentiable twice, traceable, vmappable.

It is what accelerators run today, and what the kernels are held against. One softmax serves everything; a one-hot
target never exists.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Curve, Event, Problem, Stats, Want


def statistics(problem: Problem) -> Stats:
    """Everything that `problem.want` names, and the events if it names a pixel value."""
    logits = problem.logits if problem.logits.dtype == torch.float64 else problem.logits.float()
    logits = logits.flatten(2) if logits.ndim > 2 else logits.unsqueeze(2)
    if problem.task != "multiclass":
        stats = _sigmoid(problem, logits)
    elif problem.hard:
        stats = _softmax(problem, logits)
    else:
        stats = _soft_softmax(problem, logits)
    for event in stats.events:
        for curve in problem.want.curves:
            stats.curves[curve] = _add(stats.curves.get(curve), _curve_sums(event, curve, stats, problem))
    stats.events = [_unflatten(event, problem) for event in stats.events] if problem.want.u else []
    stats.every = [_unflatten(event, problem) for event in stats.every] if problem.want.u else []
    if stats.weight is not None:
        stats.weight = stats.weight.reshape(_pixel_shape(problem))
    return stats


def _softmax(problem: Problem, z: Tensor) -> Stats:
    """One label a pixel."""
    want, n_classes = problem.want, z.shape[1]
    labels = problem.target.flatten(1) if problem.target.ndim > 1 else problem.target.unsqueeze(1)
    labels, weight, span = _valid(problem, labels.long(), z, n_classes - 1)
    t = _by_label(weight, labels, n_classes)
    n = t.sum(1, keepdim=True).expand_as(t)
    z = z.masked_fill((weight == 0).unsqueeze(1), 0.0)
    stats = Stats(n, t, t, weight=weight, target_range=span)
    stats.fp, stats.fn, stats.fp2, stats.fn2, u = _SoftmaxSums.apply(z, labels, weight, want)  # type: ignore[no-untyped-call]
    if u is not None:
        stats.events = [Event(u, labels, None)]
    if want.spread:
        _add_spread(stats, z.logsumexp(1, keepdim=True) - z, weight.unsqueeze(1))
    return stats


class _SoftmaxSums(torch.autograd.Function):
    """fp, fn, fp2, fn2 and u of hard labels, with the gradient in closed form.

    Autograd would keep and move a dozen tensors of the logits' size. With q = ∂L/∂p, h = ∂L/∂u and t the label,
    ∂L/∂z_k = p_k (q_k − Σ_j p_j q_j) + h (p_k − [k = t]); at k = t both parts are written with 1 − p_t = Σ_{j≠t} p_j,
    which does not cancel. The backward is made of differentiable operations of its own.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, labels: Tensor, weight: Tensor, want: Want) -> tuple[Tensor | None, ...]:
        p = z.softmax(1)
        others = p.scatter(1, labels.unsqueeze(1), 0.0)
        miss = others.sum(1)
        fp = fn = fp2 = fn2 = u = None
        if want.errors:
            fp, fn = _total(others * weight.unsqueeze(1)), _by_label(miss * weight, labels, z.shape[1])
        if want.squares:
            fp2 = _total(others.square() * weight.unsqueeze(1))
            fn2 = _by_label(miss.square() * weight, labels, z.shape[1])
        if want.u or want.curves:
            far = _normaliser(z, p).squeeze(1) - z.gather(1, labels.unsqueeze(1)).squeeze(1)
            u = torch.where(miss < 0.5, -torch.log1p(-miss), far)  # p_t may be too small to write, but not 1 − p_t
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
        p = z.softmax(1)
        own, others = p.gather(1, index).squeeze(1), p.scatter(1, index, 0.0)
        miss = others.sum(1)
        push = z.new_zeros(()) if fp is None else fp.unsqueeze(2)  # q of the other classes
        pull = torch.zeros_like(miss) if fn is None else -fn.gather(1, labels)  # q of the label
        push = push if fp2 is None else push + 2 * fp2.unsqueeze(2) * others
        pull = pull if fn2 is None else pull - 2 * miss * fn2.gather(1, labels)
        h = torch.zeros_like(miss) if h is None else h
        inner = (others * push).sum(1)
        rest = others * (weight.unsqueeze(1) * push + (h - weight * (inner + own * pull)).unsqueeze(1))
        mine = weight * own * (pull * miss - inner) - h * miss
        return rest.scatter(1, index, mine.unsqueeze(1)), None, None, None


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
        u = torch.where(miss < 0.5, _small_surprise(miss), _normaliser(z, p) - z)
        u = u.masked_fill(target == 0, 0.0)  # an impossible label costs nothing, however surprising
        stats.events = [Event(u[:, k], k, target[:, k]) for k in range(z.shape[1])]
    if want.spread:
        _add_spread(stats, _normaliser(z, p) - z, w)
    return stats


def _sigmoid(problem: Problem, z: Tensor) -> Stats:
    """A yes or no in every channel."""
    want = problem.want
    if problem.hard and problem.task == "multilabel":  # one against the rest; label C is none of them
        labels = problem.target.flatten(1) if problem.target.ndim > 1 else problem.target.unsqueeze(1)
        labels, weight, span = _valid(problem, labels.long(), z, z.shape[1])
        target = (labels.unsqueeze(1) == torch.arange(z.shape[1], device=z.device).unsqueeze(1)).to(z)
        weight = weight.unsqueeze(1).expand(z.shape)
    else:
        target, weight, span = _valid(problem, _like(problem.target.reshape(problem.logits.shape), z), z, 1)
    z = z.masked_fill(weight == 0, 0.0)
    p, miss = z.sigmoid(), (-z).sigmoid()
    n, t = _total(weight), _total(weight * target)
    stats = Stats(n, t, _total(weight * target.square()), weight=weight, target_range=span)
    _add_errors(stats, problem, weight, target, p, miss)
    if want.u or want.curves:
        if problem.target.is_floating_point():
            no, yes = (-F.logsigmoid(-z)).masked_fill(target == 1, 0.0), (-F.logsigmoid(z)).masked_fill(target == 0, 0.0)
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
    outside = (target < 0) | (target > top)
    span = None
    if can_look(target):
        low, high = target.detach().aminmax() if target.numel() else (torch.zeros(()), torch.zeros(()))
        span = (float(low), float(high))
    else:  # a label out of range makes the loss NaN instead: looking at it would stall the device
        bad = outside if valid.ndim == target.ndim else outside.any(1)
        weight = torch.where(bad, torch.nan, weight)
    return target if target.is_floating_point() else target.masked_fill(outside, 0), weight, span


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


def _small_surprise(miss: Tensor) -> Tensor:
    return -torch.log1p(-torch.where(miss < 0.5, miss, 0.0))


def _normaliser(z: Tensor, p: Tensor) -> Tensor:
    """ln Σ exp z: the largest logit minus the log of its probability."""
    return z.amax(1, keepdim=True) - p.amax(1, keepdim=True).log()


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
