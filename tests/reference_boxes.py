"""Slow references for boxes, distributions and regression: one box, score or edge at a time, from the papers' formulas.

They share nothing with the library: plain floats, no torch, no vectors. Gradients of boxes are the closed forms worked
out from the formulas, where α of CIoU is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def corners(box: Sequence[float], fmt: str) -> tuple[float, float, float, float]:
    a, b, c, d = (float(v) for v in box)
    if fmt == "xywh":
        return a, b, a + c, b + d
    if fmt == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


def part(a: float, b: float) -> float:
    return 0.0 if b == 0 else a / b


def root(x: float, exponent: float) -> float:
    """x to a power; below 1e-6 a straight line, where the power is below 1."""
    return x * 1e-6 ** (exponent - 1) if 0 < exponent < 1 and x <= 1e-6 else x**exponent


class Lie:
    """How a prediction lies to its target, all in corners."""

    def __init__(self, box: Sequence[float], target: Sequence[float]) -> None:
        self.x1, self.y1, self.x2, self.y2 = box
        self.X1, self.Y1, self.X2, self.Y2 = target
        self.w, self.h = max(self.x2 - self.x1, 0.0), max(self.y2 - self.y1, 0.0)
        self.W, self.H = max(self.X2 - self.X1, 0.0), max(self.Y2 - self.Y1, 0.0)
        self.iw = max(min(self.x2, self.X2) - max(self.x1, self.X1), 0.0)
        self.ih = max(min(self.y2, self.Y2) - max(self.y1, self.Y1), 0.0)
        self.dx = (self.x1 + self.x2) / 2 - (self.X1 + self.X2) / 2
        self.dy = (self.y1 + self.y2) / 2 - (self.Y1 + self.Y2) / 2
        self.cw = max(max(self.x2, self.X2) - min(self.x1, self.X1), abs(self.dx))  # the centre of an inverted box too
        self.ch = max(max(self.y2, self.Y2) - min(self.y1, self.Y1), abs(self.dy))
        self.inter = self.iw * self.ih
        self.union = self.w * self.h + self.W * self.H - self.inter
        self.hull = self.cw * self.ch
        self.rho2, self.diagonal2 = self.dx**2 + self.dy**2, self.cw**2 + self.ch**2
        self.iou = part(self.inter, self.union)

    def angle(self) -> float:
        own = 0.0 if self.w == self.h == 0 else math.atan2(self.w, self.h)
        return (0.0 if self.W == self.H == 0 else math.atan2(self.W, self.H)) - own

    def v(self) -> float:
        return 4 / math.pi**2 * self.angle() ** 2

    def alpha(self, gate: float | None = None) -> float:
        return 0.0 if gate is not None and self.iou <= gate else part(self.v(), (1 - self.iou) + self.v())


def iou_box(lie: Lie, form: str = "linear") -> float:
    return 1 - lie.iou if form == "linear" else -math.log(max(lie.iou, 1e-6))


def giou(lie: Lie) -> float:
    return 1 - lie.iou + part(lie.hull - lie.union, lie.hull)


def diou(lie: Lie) -> float:
    return 1 - lie.iou + part(lie.rho2, lie.diagonal2)


def ciou(lie: Lie, gate: float | None = None) -> float:
    return diou(lie) + lie.alpha(gate) * lie.v()


def eiou(lie: Lie, focal: float = 0.0) -> float:
    value = diou(lie) + part(lie.w - lie.W, lie.cw) ** 2 + part(lie.h - lie.H, lie.ch) ** 2
    return value if focal == 0 else value * root(lie.iou, focal)


def siou(lie: Lie, theta: float = 4.0) -> float:
    sigma = math.hypot(lie.dx, lie.dy)
    slant = 0.0 if sigma == 0 else 1 - 2 * math.sin(math.asin(min(abs(lie.dy) / sigma, 1.0)) - math.pi / 4) ** 2
    distance = shape = 0.0
    for shift, hull in ((lie.dx, lie.cw), (lie.dy, lie.ch)):
        distance += 1 - math.exp(-(2 - slant) * part(shift, hull) ** 2)
    for size, other in ((lie.w, lie.W), (lie.h, lie.H)):
        shape += root(1 - math.exp(-part(abs(size - other), max(size, other))), theta)
    return 1 - lie.iou + (distance + shape) / 2


BOXES: dict[str, Callable[..., float]] = {
    "iou_box": iou_box,
    "giou": giou,
    "diou": diou,
    "ciou": ciou,
    "eiou": eiou,
    "siou": siou,
}


def box_value(name: str, box: Sequence[float], target: Sequence[float], fmt: str = "xyxy", **settings: object) -> float:
    return BOXES[name](Lie(corners(box, fmt), corners(target, fmt)), **settings)


def box_slope(name: str, box: Sequence[float], target: Sequence[float], **settings: object) -> list[float]:
    """∂loss/∂(x1, y1, x2, y2) by central differences of the float64 formula; α of CIoU is held constant."""
    here = Lie(box, target)
    found = []
    for k in range(4):
        step = 1e-6 * max(here.cw, here.ch, 1e-3)
        sides = []
        for sign in (-1, 1):
            moved = list(box)
            moved[k] += sign * step
            lie = Lie(moved, target)
            if name == "ciou":
                sides.append(diou(lie) + here.alpha(settings.get("gate")) * lie.v())  # type: ignore[arg-type]
            else:
                sides.append(BOXES[name](lie, **settings))
        found.append((sides[1] - sides[0]) / (2 * step))
    return found


def closed_slope(name: str, box: Sequence[float], target: Sequence[float]) -> list[float]:
    """The closed forms for boxes in general position: IoU, GIoU, DIoU, CIoU."""
    s = Lie(box, target)
    touching = s.inter > 0
    d_inter = [-(s.x1 > s.X1) * s.ih, -(s.y1 > s.Y1) * s.iw, (s.x2 < s.X2) * s.ih, (s.y2 < s.Y2) * s.iw]
    d_inter = [value if touching else 0.0 for value in d_inter]
    d_area = [-s.h, -s.w, s.h, s.w]
    d_union = [a - i for a, i in zip(d_area, d_inter, strict=True)]
    d_iou = [(i * s.union - s.inter * u) / s.union**2 for i, u in zip(d_inter, d_union, strict=True)]
    d_cw = [-float(s.x1 < s.X1), 0.0, float(s.x2 > s.X2), 0.0]
    d_ch = [0.0, -float(s.y1 < s.Y1), 0.0, float(s.y2 > s.Y2)]
    if name == "iou_box":
        return [-value for value in d_iou]
    if name == "giou":
        d_hull = [a * s.ch + b * s.cw for a, b in zip(d_cw, d_ch, strict=True)]
        more = [(u * s.hull - s.union * a) / s.hull**2 for u, a in zip(d_union, d_hull, strict=True)]
        return [-(a + b) for a, b in zip(d_iou, more, strict=True)]
    d_rho2 = [s.dx, s.dy, s.dx, s.dy]
    d_diagonal2 = [2 * (s.cw * a + s.ch * b) for a, b in zip(d_cw, d_ch, strict=True)]
    slope = [
        -i + (r * s.diagonal2 - s.rho2 * c) / s.diagonal2**2 for i, r, c in zip(d_iou, d_rho2, d_diagonal2, strict=True)
    ]
    if name == "diou":
        return slope
    turn, size2 = 8 / math.pi**2 * s.angle(), s.w**2 + s.h**2
    across, along = s.alpha() * turn * s.h / size2, s.alpha() * turn * s.w / size2
    return [a + b for a, b in zip(slope, [across, -along, -across, along], strict=True)]


# ---- scores and edges ----------------------------------------------------------------------------------------------


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def bce(z: float, y: float) -> float:
    return y * max(-z, 0.0) + (1 - y) * max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def qfl(z: float, y: float, beta: float = 2.0) -> float:
    return abs(y - sigmoid(z)) ** beta * bce(z, y)


def vfl(z: float, q: float, alpha: float = 0.75, gamma: float = 2.0) -> float:
    return q * bce(z, q) if q > 0 else alpha * sigmoid(z) ** gamma * softplus(z)


SCORES: dict[str, Callable[..., float]] = {"qfl": qfl, "vfl": vfl}


def log_sum(z: Sequence[float]) -> float:
    top = max(z)
    return top + math.log(math.fsum(math.exp(v - top) for v in z))


def dfl(z: Sequence[float], y: float) -> float:
    n = len(z) - 1
    y = min(max(y, 0.0), float(n))
    i = min(math.floor(y), n - 1)
    terms = [(i + 1 - y, log_sum(z) - z[i]), (y - i, log_sum(z) - z[i + 1])]
    return math.fsum(chance * u for chance, u in terms if chance)


def softmax(z: Sequence[float]) -> list[float]:
    return [math.exp(v - log_sum(z)) for v in z]


def integral(z: Sequence[float]) -> float:
    return math.fsum(i * s for i, s in enumerate(softmax(z)))


def integral_slope(z: Sequence[float]) -> list[float]:
    """∂/∂z_k of Σ i S_i: S_k (k − ŷ)."""
    where = integral(z)
    return [s * (k - where) for k, s in enumerate(softmax(z))]


# ---- regression ----------------------------------------------------------------------------------------------------


def l1(r: float) -> float:
    return abs(r)


def l2(r: float, half: bool = True) -> float:
    return r * r / 2 if half else r * r


def smooth_l1(r: float, beta: float = 1.0) -> float:
    if beta < 1e-5:
        return abs(r)
    return r * r / 2 / beta if abs(r) < beta else abs(r) - beta / 2


def huber(r: float, delta: float = 1.0) -> float:
    return r * r / 2 if abs(r) < delta else delta * (abs(r) - delta / 2)


RESIDUALS: dict[str, Callable[..., float]] = {"l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber}
