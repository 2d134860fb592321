"""Box losses: formulas over one overlap, for pairs of boxes (…, 4), one loss a box.

The overlap of `engine/boxes.py` is made of ratios, so every loss here is the same in pixels and in shares of the image.
It is computed in float32 (float64 stays), whatever the dtype of the boxes; coordinates may lie up to 1e18. Degenerate
boxes have finite values and gradients: an empty or inverted box has IoU 0, and a ratio over nothing is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from .call import unwrapped
from .engine import power
from .engine.boxes import Overlap, over, plain_overlap
from .pair import ElementLoss, Format, Pair, corners
from .settings import Fraction, NonNegative, Positive

Kind = Literal["iou", "giou", "diou", "ciou"]
_FLOOR = 1e-6  # an IoU, or an error of shape, below which logarithms and roots would have slopes without bound
_TABLE = 1 << 20  # pairs of `pairwise_iou` that are worked on at once


class BoxLoss(ElementLoss):
    """A formula over an `Overlap`, and the names of the fields that it reads.

    Shapes: predictions (…, 4), targets the same; `weight=` (…,), one per box; `reduction="none"` gives (…,).

    Args:
        fmt: what the four numbers are: "xyxy" corners, "xywh" corner and size, "cxcywh" centre and size.
    """

    family = "box"
    slot = "box"
    inputs: ClassVar[Callable[..., Any]] = Pair
    fmt: Format = "xyxy"

    def formula(self, o: Overlap) -> Tensor:
        """The loss of each box."""
        raise NotImplementedError

    def amount(self, pair: Pair) -> Tensor:
        return self.formula(pair.overlap)


class IoULoss(BoxLoss):
    """IoU loss: one minus the overlap of two boxes over their union, or its negative logarithm.

    1 − I/U; `form="log"`: −ln max(I/U, 1e-6).

    Args:
        form: "linear", or "log" as in UnitBox.

    Range: [0, 1], 0 for identical boxes; `form="log"`: [0, 13.82].
    Limits: no gradient between boxes that do not overlap.
    Paper: Yu et al., "UnitBox", ACM MM 2016, arXiv 1608.01471.

    >>> import torch, lossmith as ls
    >>> a, b = torch.tensor([[1.0, 1.0, 4.0, 3.0]]), torch.tensor([[2.0, 1.0, 5.0, 4.0]])
    >>> round(ls.IoULoss()(a, b).item(), 4), round(ls.IoULoss(form="log")(a, b).item(), 4)
    (0.6364, 1.0116)
    """

    name = "iou_box"
    range = (0.0, 1.0)
    paper = "Yu et al. 2016, arXiv 1608.01471"
    form: Literal["linear", "log"] = "linear"

    def reads(self) -> tuple[str, ...]:
        return ("lack",) if self.form == "linear" else ("lack", "iou")

    def formula(self, o: Overlap) -> Tensor:
        if self.form == "linear":
            return o.lack
        near = -torch.log1p(-o.lack.clamp(max=0.5))  # exact where the boxes nearly agree
        return torch.where(o.lack < 0.5, near, -o.iou.clamp(min=_FLOOR).log())


class GIoULoss(BoxLoss):
    """Generalised IoU loss: also the share of the enclosing box that neither box covers, so that distant boxes attract.

    1 − I/U + (A − U)/A, A the area of the enclosing box.

    Range: [0, 2]: 0 for identical boxes, 2 infinitely far apart.
    Limits: is the IoU loss when one box contains the other; slow for boxes beside each other.
    Paper: Rezatofighi et al., "Generalized intersection over union", CVPR 2019, arXiv 1902.09630.

    >>> import torch, lossmith as ls
    >>> a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 3.0, 1.0]])
    >>> round(ls.GIoULoss()(a, b).item(), 4)
    1.3333
    """

    name = "giou"
    range = (0.0, 2.0)
    paper = "Rezatofighi et al. 2019, arXiv 1902.09630"

    def reads(self) -> tuple[str, ...]:
        return ("lack", "spare")

    def formula(self, o: Overlap) -> Tensor:
        return o.lack + o.spare


class DIoULoss(BoxLoss):
    """Distance IoU loss: IoU loss plus the squared distance of the centres over the squared diagonal of the hull.

    1 − I/U + ρ²/c².

    Range: [0, 2]: 0 for identical boxes, 2 infinitely far apart.
    Limits: blind to the shape while the centres agree and one box contains the other.
    Paper: Zheng et al., "Distance-IoU loss", AAAI 2020, arXiv 1911.08287.

    >>> import torch, lossmith as ls
    >>> a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 3.0, 1.0]])
    >>> round(ls.DIoULoss()(a, b).item(), 4)
    1.4
    """

    name = "diou"
    range = (0.0, 2.0)
    paper = "Zheng et al. 2020, arXiv 1911.08287"

    def reads(self) -> tuple[str, ...]:
        return ("lack", "drift")

    def formula(self, o: Overlap) -> Tensor:
        return o.lack + o.drift


class CIoULoss(DIoULoss):
    """Complete IoU loss: distance IoU loss plus a penalty on the difference of the aspect ratios.

    1 − I/U + ρ²/c² + α v, v = (4/π²) (atan W/H − atan w/h)², α = v / (1 − I/U + v), held constant in the backward pass;
    α = 0 where IoU = 1 and v = 0.

    Args:
        gate: None, or the IoU up to which α is 0: the authors' later code has 0.5.

    Range: [0, 2.5]: 0 for identical boxes.
    Limits: boxes of equal aspect ratio and unequal size have v = 0; α is not differentiated, so the gradient is not
        that of the value.
    Paper: Zheng et al., "Enhancing geometric factors in model learning", IEEE Trans. Cybern. 2022, arXiv 2005.03572.

    >>> import torch, lossmith as ls
    >>> a, b = torch.tensor([[1.0, 1.0, 4.0, 3.0]]), torch.tensor([[2.0, 1.0, 5.0, 4.0]])
    >>> round(ls.CIoULoss()(a, b).item(), 6), round(ls.CIoULoss(gate=0.5)(a, b).item(), 6)
    (0.686746, 0.686364)
    """

    name = "ciou"
    range = (0.0, 2.5)
    paper = "Zheng et al. 2022, arXiv 2005.03572"
    gate: Fraction | None = None

    def reads(self) -> tuple[str, ...]:
        return (*super().reads(), "turn")

    def formula(self, o: Overlap) -> Tensor:
        v = (2 / math.pi * o.turn).square()
        alpha = over(v, o.lack + v).detach()
        if self.gate is not None:
            alpha = torch.where(1 - o.lack <= self.gate, 0.0, alpha)
        return super().formula(o) + alpha * v


class EIoULoss(DIoULoss):
    """Efficient IoU loss: distance IoU loss plus the squared errors of width and height, relative to the hull.

    1 − I/U + ρ²/c² + (w − W)²/cw² + (h − H)²/ch², times (I/U)^γ.

    Args:
        focal: γ ≥ 0; the paper's focal form has 0.5.

    Range: [0, 3.25]: 0 for identical boxes.
    Limits: with `focal` > 0 boxes that do not overlap cost nothing; a `focal` below 1 is linear up to an IoU of 1e-6.
    Paper: Zhang et al., "Focal and efficient IOU loss", Neurocomputing 2022, arXiv 2101.08158.

    >>> import torch, lossmith as ls
    >>> a, b = torch.tensor([[1.0, 1.0, 4.0, 3.0]]), torch.tensor([[2.0, 1.0, 5.0, 4.0]])
    >>> round(ls.EIoULoss()(a, b).item(), 4), round(ls.EIoULoss(focal=0.5)(a, b).item(), 4)
    (0.7975, 0.4809)
    """

    name = "eiou"
    range = (0.0, 3.25)
    paper = "Zhang et al. 2022, arXiv 2101.08158"
    focal: NonNegative = 0.0

    def reads(self) -> tuple[str, ...]:
        return (*super().reads(), "grow_x", "grow_y", *(["iou"] if self.focal > 0 else []))

    def formula(self, o: Overlap) -> Tensor:
        value = super().formula(o) + o.grow_x.square() + o.grow_y.square()
        return value * power(o.iou, self.focal, _FLOOR) if self.focal > 0 else value


class SIoULoss(BoxLoss):
    """SIoU loss: IoU loss plus penalties on the distance, stronger along an axis than across, and on the shape.

    1 − I/U + (Δ + Ω)/2, Δ = Σ (1 − e^(−(2−Λ)ρ)) over ρ = (dx/cw)², (dy/ch)², Λ = 2 |dx dy|/(dx² + dy²) (0 where the
    centres agree), Ω = Σ (1 − e^(−ω))^θ over ω = |w − W|/max(w, W), |h − H|/max(h, H).

    Args:
        theta: θ ≥ 0.001, how late errors of shape begin to count.

    Range: [0, 2.025] at θ = 4: 0 for identical boxes.
    Limits: follows third-party readings of a preprint whose own text leaves steps open.
    Paper: Gevorgyan, "SIoU loss", 2022, arXiv 2205.12740.

    >>> import torch, lossmith as ls
    >>> a, b = torch.tensor([[1.0, 1.0, 4.0, 3.0]]), torch.tensor([[2.0, 1.0, 5.0, 4.0]])
    >>> round(ls.SIoULoss()(a, b).item(), 4)
    0.6921
    """

    name = "siou"
    range = (0.0, 2.025)
    paper = "Gevorgyan 2022, arXiv 2205.12740"
    theta: Positive = 4.0

    def reads(self) -> tuple[str, ...]:
        return ("lack", "detour", "shape_x", "shape_y")

    def formula(self, o: Overlap) -> Tensor:
        shape = power(o.shape_x, self.theta, _FLOOR) + power(o.shape_y, self.theta, _FLOOR)
        return o.lack + (o.detour + shape) / 2


_KINDS: dict[Kind, type[BoxLoss]] = {"iou": IoULoss, "giou": GIoULoss, "diou": DIoULoss, "ciou": CIoULoss}


def pairwise_iou(a: Tensor, b: Tensor, kind: Kind = "iou", fmt: Format = "xyxy") -> Tensor:
    """The IoU, or a relative of it, of every box with every other: what assigners and suppression need.

    One minus the loss of the same name, so that 1 is identical for all kinds.

    Args:
        a, b: boxes (N, 4) and (M, 4), floating point.
        kind: "iou" in [0, 1], "giou" and "diou" in [−1, 1], "ciou" in [−1.5, 1].
        fmt: as in the box losses.

    Returns:
        (N, M), in float32 (float64 if `a` is).

    Raises:
        TypeError, ValueError: a kind, a format, a dtype or a shape that does not fit.

    >>> import torch, lossmith as ls
    >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [4.0, 4.0, 5.0, 5.0]])
    >>> ls.box.pairwise_iou(a, a[:1], kind="giou")
    tensor([[ 1.0000],
            [-0.8000]])
    """
    if kind not in _KINDS:
        raise ValueError(f"pairwise_iou: kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    a, b = _checked("pairwise_iou", fmt, a, b)
    dtype = torch.float64 if a.dtype == torch.float64 else torch.float32
    a, b = corners(a.to(dtype), fmt), corners(b.to(dtype), fmt)
    loss = _KINDS[kind]()
    rows = torch.split(a, max(1, _TABLE // max(len(b), 1)))
    return torch.cat([1 - loss.formula(plain_overlap(row.unsqueeze(1), b, loss.reads())) for row in rows])


def encode_distances(points: Tensor, boxes: Tensor, stride: Tensor | float, fmt: Format = "xyxy") -> Tensor:
    """From points to the sides of their boxes: (left, top, right, bottom) in units of the stride.

    Args:
        points: (…, 2), x and y in the units of the boxes.
        boxes: (…, 4).
        stride: a number, or (…,).

    Returns:
        (…, 4); negative where a point lies outside.

    >>> import torch, lossmith as ls
    >>> ls.box.encode_distances(torch.tensor([[8.0, 8.0]]), torch.tensor([[0.0, 4.0, 24.0, 8.0]]), stride=8)
    tensor([[1.0000, 0.5000, 2.0000, 0.0000]])
    """
    (boxes,) = _checked("encode_distances", fmt, boxes)
    sides = corners(boxes, fmt)
    return torch.cat([points - sides[..., :2], sides[..., 2:] - points], -1) / _per_row(stride)


def decode_distances(points: Tensor, distances: Tensor, stride: Tensor | float) -> Tensor:
    """The inverse of `encode_distances`: boxes (…, 4) as x1, y1, x2, y2.

    >>> import torch, lossmith as ls
    >>> ls.box.decode_distances(torch.tensor([[8.0, 8.0]]), torch.tensor([[1.0, 0.5, 2.0, 0.0]]), stride=8)
    tensor([[ 0.,  4., 24.,  8.]])
    """
    (distances,) = _checked("decode_distances", "xyxy", distances)
    distances = distances * _per_row(stride)
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def _per_row(stride: Tensor | float) -> Tensor | float:
    return stride.unsqueeze(-1) if isinstance(stride, Tensor) and stride.ndim else stride


def _checked(who: str, fmt: Format, *boxes: Tensor) -> tuple[Tensor, ...]:
    if fmt not in get_args(Format):
        raise ValueError(f"{who}: fmt must be one of {', '.join(map(repr, get_args(Format)))}, got {fmt!r}")
    for some in boxes:
        if not isinstance(some, Tensor) or not some.is_floating_point():
            kind = some.dtype if isinstance(some, Tensor) else type(some).__name__
            raise TypeError(f"{who}: boxes must be floating-point tensors, got {kind}; use .float()")
        if some.ndim == 0 or some.shape[-1] != 4:
            raise ValueError(f"{who}: boxes must be (…, 4), got {tuple(some.shape)}")
    return tuple(unwrapped(who, boxes, {fmt}))
