"""How two boxes lie to each other, as numbers without a unit, each worked out once per call.

A box loss is a formula over `Boxes`, and names the fields that it reads. A sum of box losses asks once for the
union. With w, h the sizes of the prediction, W, H those of the target, iw, ih those of the intersection, cw, ch those
of the enclosing box (the hull), dx, dy from the target's centre to the prediction's, I, U and A the areas of
intersection, union and hull:

    lack     1 − I/U                     iou      I/U
    spare    (A − U)/A                   drift    (dx² + dy²)/(cw² + ch²)
    turn     atan(W/H) − atan(w/h)       detour   Σ 1 − e^−(2 − Λ)ρ over ρ = (dx/cw)², (dy/ch)²
    grow_x   (w − W)/cw                  grow_y   (h − H)/ch
    shape_x  1 − e^−|w − W|/max(w, W)    shape_y  1 − e^−|h − H|/max(h, H)

Λ = 2 |dx dy|/(dx² + dy²) is 1 on a diagonal and 0 along an axis.

Sizes are never negative: an inverted box has none, and the hull contains its centre. IoU is 0 where U = 0, everything
else is 0 where its denominator is 0.

The errors are sums of parts that are not negative (what one box has beyond the other), so nothing cancels when two
boxes nearly agree. Where two edges coincide the derivative is the mean of both sides: identical boxes have gradient 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...arithmetic import TINY, over
from ..contract import Boxes


def overlap(a: Tensor, b: Tensor, reads: Iterable[str]) -> Boxes:
    """The fields named in `reads` for boxes (…, 4) with corners x1, y1, x2, y2; they broadcast."""
    x1, y1, x2, y2 = a.unbind(-1)
    left, top, right, bottom = b.unbind(-1)
    x, y = _axis(x1, x2, left, right), _axis(y1, y2, top, bottom)
    return Boxes({name: _FORMULAS[name](x, y) for name in reads})


class Axis(NamedTuple):
    """Two intervals: their sizes, those of the common part and of the hull, and from one centre to the other."""

    size: Tensor
    other: Tensor
    shared: Tensor
    hull: Tensor
    shift: Tensor


def _axis(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Axis:
    shift = ((low - other_low) + (high - other_high)) / 2
    return Axis(
        size=_length(high - low),
        other=_length(other_high - other_low),
        shared=_length(torch.minimum(high, other_high) - torch.maximum(low, other_low)),
        hull=_length(torch.maximum(torch.maximum(high, other_high) - torch.minimum(low, other_low), shift.abs())),
        shift=shift,
    )


def _length(x: Tensor) -> Tensor:
    """Not below 0, and 0 if it is too short for its inverse, which slopes are made of."""
    x = x.clamp(min=0)
    return torch.where((x > 0) & (x < TINY), 0.0, x)


def _missed(x: Axis, y: Axis) -> Tensor:
    """U − I: what each box has beyond the other."""
    own = (x.size - x.shared) * y.size + x.shared * (y.size - y.shared)
    return own + (x.other - x.shared) * y.other + x.shared * (y.other - y.shared)


def _lack(x: Axis, y: Axis) -> Tensor:
    missed = _missed(x, y)
    union = missed + x.shared * y.shared
    return torch.where(union.abs() < TINY, 1.0, over(missed, union))


def _iou(x: Axis, y: Axis) -> Tensor:
    shared = x.shared * y.shared
    return over(shared, _missed(x, y) + shared)


def _spare(x: Axis, y: Axis) -> Tensor:
    """The corners that neither box covers, and the gaps between boxes that do not touch."""
    a, b, c, d = x.size - x.shared, x.other - x.shared, y.size - y.shared, y.other - y.shared
    cover = x.shared + a + b
    corners = a * d + b * c + (x.hull - cover) * y.hull + (y.hull - (y.shared + c + d)) * cover
    return over(corners, x.hull * y.hull)


def _drift(x: Axis, y: Axis) -> Tensor:
    return over(x.shift.square() + y.shift.square(), x.hull.square() + y.hull.square())


def _turn(x: Axis, y: Axis) -> Tensor:
    return _angle(x.other, y.other) - _angle(x.size, y.size)


def _angle(w: Tensor, h: Tensor) -> Tensor:
    """atan(w / h), 0 (without a gradient) for a point."""
    point = w.square() + h.square() < TINY
    return torch.atan2(torch.where(point, 0.0, w), torch.where(point, 1.0, h))


def _detour(x: Axis, y: Axis) -> Tensor:
    steep = 2 - over(2 * x.shift.abs() * y.shift.abs(), x.shift.square() + y.shift.square())
    shift_x, shift_y = over(x.shift, x.hull), over(y.shift, y.hull)
    return -torch.expm1(-steep * shift_x.square()) - torch.expm1(-steep * shift_y.square())


def _shape(x: Axis) -> Tensor:
    return -torch.expm1(-over((x.size - x.other).abs(), torch.maximum(x.size, x.other)))


_FORMULAS: dict[str, Any] = {
    "lack": _lack,
    "iou": _iou,
    "spare": _spare,
    "drift": _drift,
    "turn": _turn,
    "detour": _detour,
    "grow_x": lambda x, y: over(x.size - x.other, x.hull),
    "grow_y": lambda x, y: over(y.size - y.other, y.hull),
    "shape_x": lambda x, y: _shape(x),
    "shape_y": lambda x, y: _shape(y),
}
