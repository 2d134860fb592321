"""The pass where several labels are possible at a pixel: the yes and no of channels, the shares of a soft target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract import Event, Measured, Sums, Want
from ..curves import Curve
from ..tensors import floating, likeliest, wide
from .pixels import cleared, times, total


def of_shares(z: Tensor, target: Tensor, weight: Tensor | None, want: Want) -> Measured:
    """A distribution over the classes at each pixel: every class is a possible label. (N, C, S), weights (N, S)."""
    z = floating(z)
    p, miss, u = of_every_class(cleared(z, weight))
    target = target.to(z.dtype)
    yes = times(weight, target)
    t = total(yes)
    n = total(torch.ones_like(yes[:, :1]) if weight is None else weight.unsqueeze(1)).expand_as(t)
    result = Measured(Sums(n=n, t=t, tt=total(yes * target), **_errors(want, times(weight, 1 - target), yes, p, miss)))
    if want.u or want.curves:
        result.events = share_events(u, target)
    result.curves = {curve: _curve_sums(curve, result, weight) for curve in want.curves}
    if want.spread:
        add_spread(result, u, weight)
    return result


def of_channels(z: Tensor, target: Tensor, weight: Tensor | None, want: Want) -> Measured:
    """A yes or no in every channel. All (N, C, S)."""
    z = cleared(floating(z), weight)
    p, miss = z.sigmoid(), (-z).sigmoid()
    yes, no = times(weight, target), times(weight, 1 - target)
    t, n = total(yes), total(torch.ones_like(z) if weight is None else weight)
    result = Measured(Sums(n=n, t=t, tt=total(yes * target), **_errors(want, no, yes, p, miss)))
    if want.u or want.curves:
        if target.is_floating_point():
            result.events = channel_events(-F.logsigmoid(-z), -F.logsigmoid(z), target)
        else:
            result.events = [Event(-F.logsigmoid(torch.where(target > 0, z, -z)), target, None)]
    result.curves = {curve: _curve_sums(curve, result, weight) for curve in want.curves}
    if want.spread:
        off, on = -F.logsigmoid(-z), -F.logsigmoid(z)
        result.spread = torch.stack([total(times(weight, off)), total(times(weight, on))], 2)
        result.every = [Event(off, 0, None), Event(on, 1, None)]
    return result


def share_events(u: Tensor, target: Tensor) -> list[Event]:
    """Every class of a soft target, (N, C, …). An impossible label costs nothing, however surprising."""
    possible = u.masked_fill(target == 0, 0.0)
    return [Event(possible[:, k], k, target[:, k]) for k in range(u.shape[1])]


def channel_events(off: Tensor, on: Tensor, target: Tensor) -> list[Event]:
    """The no and the yes of channels with a soft target."""
    off, on = off.masked_fill(target == 1, 0.0), on.masked_fill(target == 0, 0.0)
    return [Event(off, 0, 1 - target), Event(on, 1, target)]


def missed_by_every_class(p: Tensor) -> Tensor:
    """1 − p, which cancels for the likeliest class alone: for it, the sum over the others."""
    best = likeliest(p)
    return (1 - p).scatter(1, best, p.scatter(1, best, 0.0).sum(1, keepdim=True))


def of_every_class(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, 1 − p and −ln p of every class, none of them by a difference that cancels."""
    p = z.softmax(1)
    miss = missed_by_every_class(p)
    near = -torch.log1p(-torch.where(miss < 0.5, miss, 0.0))
    far = (z.amax(1, keepdim=True) - z) - p.amax(1, keepdim=True).log()  # loses digits where p is nearly 1
    return p, miss, torch.where(miss < 0.5, near, far)


def add_spread(result: Measured, u: Tensor, weight: Tensor | None) -> None:
    """What label smoothing spreads over, of classes that exclude each other."""
    result.spread = total(times(weight, u))
    result.every = [Event(u[:, k], k, None) for k in range(u.shape[1])]


def _errors(want: Want, no: Tensor, yes: Tensor, p: Tensor, miss: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    if want.errors:
        found |= {"fp": total(no * p), "fn": total(yes * miss)}
    if want.squares:
        found |= {"fp2": total(no * p.square()), "fn2": total(yes * miss.square())}
    return found


def _curve_sums(curve: Curve, result: Measured, weight: Tensor | None) -> Tensor:
    """Σ w f(u) per image and label: of the yes and no of channels, or of all classes of soft labels."""
    values = [
        times(weight, value if event.chance is None else value * event.chance)
        for event in result.events
        for value in (curve(event.u),)
    ]
    if isinstance(result.events[0].label, int):
        return torch.stack([wide(value.sum(-1)) for value in values], -1)
    label, value = result.events[0].label, wide(values[0])
    return value.new_zeros(*result.sums.t.shape, 2).scatter_add(2, label, value)
