"""Entry point for boxes: how two boxes lie to each other, as numbers without a unit, each worked out once per call.

A box loss is a formula over an `Overlap`, and names the fields that it reads. A sum of box losses asks once for the
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

Plain torch here; `box_kernels.py` has the same fields for the CPU, and their gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .choice import answer, compiling, gradient, unusual

TINY = 1e-37  # as good as 0: the inverse of anything smaller overflows float32
_ALONE = 1 << 17  # boxes below which another thread costs more than it saves


class Overlap:
    """The fields that were asked for, each shaped like the boxes without their last axis."""

    lack: Tensor
    iou: Tensor
    spare: Tensor
    drift: Tensor
    turn: Tensor
    detour: Tensor
    grow_x: Tensor
    grow_y: Tensor
    shape_x: Tensor
    shape_y: Tensor

    def __init__(self, known: dict[str, Tensor]) -> None:
        for name, value in known.items():
            setattr(self, name, value)


FIELDS = tuple(Overlap.__annotations__)  # in the order of the numbers in box_kernels.py


def over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 (without a gradient) where b is 0. A NaN passes the guard and stays."""
    nothing = b.abs() < TINY
    return torch.where(nothing, 0.0, a / torch.where(nothing, 1.0, b))


def overlap(a: Tensor, b: Tensor, reads: Iterable[str]) -> Overlap:
    """The fields named in `reads` for boxes (…, 4) with corners x1, y1, x2, y2, by the engine that is in use."""
    wanted = sorted({*reads}, key=FIELDS.index)

    def by_kernels() -> Overlap:
        rows = _Fields.apply(a, b, tuple(wanted))  # type: ignore[no-untyped-call]
        return Overlap(dict(zip(wanted, rows, strict=True)))

    return answer(lambda: _refuses(a, b), by_kernels, lambda: plain_overlap(a, b, wanted))


def plain_overlap(a: Tensor, b: Tensor, reads: Iterable[str]) -> Overlap:
    """The same in ordinary torch; the boxes broadcast."""
    x1, y1, x2, y2 = a.unbind(-1)
    left, top, right, bottom = b.unbind(-1)
    x, y = _axis(x1, x2, left, right), _axis(y1, y2, top, bottom)
    return Overlap({name: _FORMULAS[name](x, y) for name in reads})


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


def _refuses(a: Tensor, b: Tensor) -> str | None:
    """Why the kernels cannot take these boxes; None if they can."""
    strange = unusual(a, b)
    if strange is not None:
        return strange
    if a.device.type != "cpu":
        return f"the kernels run on the CPU, not on {a.device.type}"
    if a.dtype != torch.float32:
        return f"the kernels take boxes in float32, bfloat16 and float16, not {a.dtype}"
    if a.layout != torch.strided or b.layout != torch.strided:
        return "the kernels take ordinary dense tensors"
    return "target boxes that require a gradient" if b.requires_grad else None


class _Fields(torch.autograd.Function):
    """Boxes to their wanted fields by the kernels. Nothing is kept but the boxes themselves."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, wanted: tuple[str, ...]) -> tuple[Tensor, ...]:
        from . import box_kernels as k

        ctx.save_for_backward(a, b)
        ctx.wanted = wanted
        out = a.new_empty(len(wanted), *a.shape[:-1])
        _run(k.fields, _numbers(wanted), a, b, out)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        from . import box_kernels as k

        saved: tuple[Tensor, Tensor] = ctx.saved_tensors
        a, b = saved

        def by_torch(further: bool) -> Tensor:
            known = plain_overlap(a, b, ctx.wanted)
            values = [getattr(known, name) for name in ctx.wanted]
            return torch.autograd.grad(values, a, upstream, create_graph=further)[0]

        def by_kernels() -> Tensor:
            out = a.new_empty(a.shape)
            _run(k.gradient, _numbers(ctx.wanted), a, b, torch.stack(upstream), out)
            return out

        return gradient(by_kernels, by_torch), None, None


def _numbers(wanted: tuple[str, ...]) -> Any:
    return np.array([FIELDS.index(name) for name in wanted], np.int64)


def _run(kernel: Any, numbers: Any, *tensors: Tensor) -> None:
    """All boxes, on as many threads as torch uses."""
    from . import box_kernels as k
    from .cpu import _fresh, _pool

    arrays = [tensor.detach().contiguous().view(-1).numpy() for tensor in tensors]
    count = arrays[0].size // 4
    threads = max(1, min(torch.get_num_threads(), count // _ALONE))

    def work(begin: int, end: int) -> None:
        kernel(begin, end, _fresh(k.ROWS * k.LANES).numpy(), numbers, *arrays)

    with compiling():  # here: in a thread it could deadlock on the import lock
        work(0, 0 if threads > 1 else count)
    if threads == 1:
        return
    edges = [count * i // threads for i in range(threads + 1)]
    others = [_pool().submit(work, *edges[i : i + 2]) for i in range(1, threads)]
    work(*edges[:2])
    for other in others:
        other.result()
