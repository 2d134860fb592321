"""Box losses: formulas over one overlap, for pairs of boxes (…, 4), one loss a box.

The overlap (`engine/plain/overlap.py`) is made of ratios, so every loss here is the same in pixels and in shares of the
image. It is computed in float32 (float64 stays), whatever the dtype of the boxes; coordinates may lie up to 1e18.
Degenerate boxes have finite values and gradients: an empty or inverted box has IoU 0, and a ratio over nothing is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..arithmetic import over, power
from ..bounds import Fraction, NonNegative, Positive
from ..engine.contract import Boxes
from ..inputs.pair import Format, Pair
from .element import ElementLoss

_FLOOR = 1e-6  # an IoU, or an error of shape, below which logarithms and roots would have slopes without bound


class BoxLoss(ElementLoss):
    """A formula over the overlap, `Boxes`, and the names of the fields that it reads.

    Shapes: predictions (…, 4), targets the same; `weight=` (…,), one per box; `reduction="none"` gives (…,).

    Args:
        fmt: what the four numbers are: "xyxy" corners, "xywh" corner and size, "cxcywh" centre and size.
    """

    family = "box"
    slot = "box"
    needs = "pairs of boxes (lossmith lab box-regression compares such losses)"
    inputs: ClassVar[Callable[..., Any]] = Pair
    fmt: Format = "xyxy"

    def formula(self, o: Boxes) -> Tensor:
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
    source = "Yu et al. 2016, arXiv 1608.01471"
    form: Literal["linear", "log"] = "linear"

    def reads(self) -> tuple[str, ...]:
        return ("lack",) if self.form == "linear" else ("lack", "iou")

    def formula(self, o: Boxes) -> Tensor:
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
    source = "Rezatofighi et al. 2019, arXiv 1902.09630"

    def reads(self) -> tuple[str, ...]:
        return ("lack", "spare")

    def formula(self, o: Boxes) -> Tensor:
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
    source = "Zheng et al. 2020, arXiv 1911.08287"

    def reads(self) -> tuple[str, ...]:
        return ("lack", "drift")

    def formula(self, o: Boxes) -> Tensor:
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
    source = "Zheng et al. 2022, arXiv 2005.03572"
    gate: Fraction | None = None

    def reads(self) -> tuple[str, ...]:
        return (*super().reads(), "turn")

    def formula(self, o: Boxes) -> Tensor:
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
    source = "Zhang et al. 2022, arXiv 2101.08158"
    focal: NonNegative = 0.0

    def reads(self) -> tuple[str, ...]:
        return (*super().reads(), "grow_x", "grow_y", *(["iou"] if self.focal > 0 else []))

    def formula(self, o: Boxes) -> Tensor:
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
    source = "Gevorgyan 2022, arXiv 2205.12740"
    theta: Positive = 4.0

    def reads(self) -> tuple[str, ...]:
        return ("lack", "detour", "shape_x", "shape_y")

    def formula(self, o: Boxes) -> Tensor:
        shape = power(o.shape_x, self.theta, _FLOOR) + power(o.shape_y, self.theta, _FLOOR)
        return o.lack + (o.detour + shape) / 2
