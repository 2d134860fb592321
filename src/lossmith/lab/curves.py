"""The value and the gradient of any loss, on one small picture that is predicted from badly to well.

Every pixel gives its true class the probability q, the other classes share the rest; q runs from 0.001 to 0.999. The
picture is mostly background (a pixel of every 16 belongs to each further class's cell), so that losses of every family
can be drawn the same way: those that look at pixels, and those that look at regions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CELL = 16
_SQUARE = 4
_POINTS = 81


@dataclass(frozen=True)
class Curve:
    """One loss over q: its value, the sum of |∂loss/∂logit|, and the foreground's share of that sum."""

    q: list[float]
    value: list[float]
    gradient: list[float]
    foreground: list[float | None]
    foreground_pixels: float


def sample(loss: nn.Module, classes: int = 1, pixels: bool = True) -> Curve:
    """Draw `loss` for binary labels (`classes=1`) or for a number of classes.

    `pixels=False` hands the pixels over as that many images with one label each, (N, C) and (N,).
    Raises whatever the loss raises for such input.
    """
    label = _picture(max(2, classes))
    label = label if pixels else label.flatten()
    foreground = label > 0
    curve = Curve([], [], [], [], float(foreground.double().mean()))
    for i in range(_POINTS):
        q = 0.001 + 0.998 * i / (_POINTS - 1)
        logits = _logits(label, q, classes).requires_grad_()
        value = loss(logits, label)
        (gradient,) = torch.autograd.grad(value, logits)
        size = gradient.abs().sum(1)
        total = float(size.sum())
        curve.q.append(q)
        curve.value.append(value.item())
        curve.gradient.append(total)
        curve.foreground.append(float(size[foreground].sum()) / total if 0 < total < math.inf else None)
    return curve


def _picture(classes: int) -> Tensor:
    """Labels (1, H, W): one cell per class from 1 up, a square of the class in the middle of each."""
    columns = math.ceil(math.sqrt(classes - 1))
    rows = math.ceil((classes - 1) / columns)
    label = torch.zeros(1, rows * _CELL, columns * _CELL, dtype=torch.long)
    start = (_CELL - _SQUARE) // 2
    for k in range(1, classes):
        top, left = (k - 1) // columns * _CELL + start, (k - 1) % columns * _CELL + start
        label[0, top : top + _SQUARE, left : left + _SQUARE] = k
    return label


def _logits(label: Tensor, q: float, classes: int) -> Tensor:
    """Logits whose softmax (sigmoid for one channel) gives the true class the probability q."""
    if classes == 1:
        margin = math.log(q / (1 - q))
        return torch.where(label[:, None] > 0, margin, -margin).float()
    margin = math.log(q * (classes - 1) / (1 - q))
    return margin * nn.functional.one_hot(label, classes).movedim(-1, 1).float()
