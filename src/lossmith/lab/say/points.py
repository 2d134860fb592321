"""How the points of an axis are made: what a loss is called with at x, and what its gradient is taken by.

Pixels and regions are drawn on a small picture with one cell for each class above 0, a square of the class in the
middle of it; boxes beside a target; the rest on one number.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

QUALITY = 0.7  # of the target of a score
CELL, SQUARE = 16, 4  # of the picture that is predicted from badly to well
SHIFTED, CERTAIN = 16, 0.99  # the side of the object that is shifted, and how sure the prediction is
GROUND = 64  # the side of the picture in which an object grows
OBJECT, BACKGROUND = 0.5, 0.95  # the probabilities there of the true class
POSITION, LAST_BIN = 3.7, 8  # of an edge


class Reading(NamedTuple):
    """What the points of an axis depend on beside x: how the loss is called, or what its boxes are.

    classes     1 for one channel
    pixels      False for that many images with one label each
    """

    classes: int = 1
    multilabel: bool = False
    pixels: bool = True
    fmt: str = "xyxy"


class Point(NamedTuple):
    """What a loss is called with, what the gradient is taken by, and which pixels of it are foreground."""

    given: tuple[Any, ...]
    knob: Tensor
    foreground: Tensor | None = None


# ----------------------------------------------------------------------------------------------- pixels and regions


def labels(classes: int, height: int, width: int, side: int, left: int = 0, right: int = 0) -> Tensor:
    """Labels (1, H, W): a cell for each class from 1 up, in its middle a square of the class whose left and right edges
    have moved to the right."""
    count = max(1, classes - 1)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    label = torch.zeros(1, rows * height, columns * width, dtype=torch.long)
    for k in range(count):
        top, start = k // columns * height + (height - side) // 2, k % columns * width + (width - side) // 2
        label[0, top : top + side, start + left : start + side + right] = k + 1
    return label


def picture(classes: int) -> Tensor:
    """The labels of the picture that is predicted from badly to well."""
    return labels(classes, CELL, CELL, SQUARE)


def _pattern(predicted: Tensor, reading: Reading) -> Tensor:
    """Logits (1, C, H, W) that have no doubt of what is predicted, of size 1."""
    classes = max(2, reading.classes)
    hot = nn.functional.one_hot(predicted, classes).movedim(-1, 1).double()
    if reading.classes == 1:
        hot = hot[:, 1:]
    return 2 * hot - 1 if reading.classes == 1 or reading.multilabel else hot


def _logit(certainty: Tensor | float, reading: Reading) -> Tensor:
    """By what the logits of `_pattern` are multiplied so that what is predicted has this probability; the other classes
    share the rest, and in multilabel every channel's answer has it."""
    p = torch.as_tensor(certainty, dtype=torch.float64)
    others = 1 if reading.multilabel else max(1, reading.classes - 1)
    return (p / (1 - p)).log() + math.log(others)


def _seen(label: Tensor, predicted: Tensor, certainty: Tensor | float, reading: Reading) -> Point:
    """Labels, and logits that give to what is predicted the certainty, of which the gradient is taken."""
    margin = _logit(certainty, reading)
    knob = (_pattern(predicted, reading) * (margin[:, None] if margin.ndim else margin)).float()
    if not reading.pixels:
        knob, label = knob.flatten(2)[0].T.contiguous(), label.flatten()
    knob.requires_grad_()
    return Point((knob, label), knob, label > 0)


def from_bad_to_good(q: float, reading: Reading) -> dict[str, Point]:
    label = picture(reading.classes)
    return {"": _seen(label, label, q, reading)}


def along_the_logit(q: float, reading: Reading) -> dict[str, Point]:
    """The same picture, with the one number that all logits follow as the knob."""
    label = picture(reading.classes)
    knob = _logit(q, reading).requires_grad_()
    return {"": Point((_pattern(label, reading) * knob, label), knob)}


def shifted(overlap: float, reading: Reading) -> dict[str, Point]:
    """The object predicted where it is not; all of it and what is predicted beside it; what is hit of it."""
    by = round((1 - overlap) * SHIFTED)
    label, *seen = (
        labels(reading.classes, 2 * SHIFTED, 3 * SHIFTED, SHIFTED, left, right)
        for left, right in ((0, 0), (by, by), (0, by), (by, 0))
    )
    return {
        end: _seen(label, predicted, CERTAIN, reading) for end, predicted in zip(("", "_fp", "_fn"), seen, strict=True)
    }


def grown(percent: float, reading: Reading) -> dict[str, Point]:
    """A half-seen object on a background that is nearly learnt."""
    label = labels(reading.classes, GROUND, GROUND, round(GROUND * math.sqrt(percent / 100)))
    return {"": _seen(label, label, torch.where(label > 0, OBJECT, BACKGROUND).double(), reading)}


# -------------------------------------------------------------------------------------------------- all other kinds


def _knob(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def _box(knob: Tensor, x: Tensor, width: Tensor, height: Tensor, fmt: str) -> Point:
    """A box of this width and height with its centre at (x, 0), and the target, of width and height 1 at (0, 0)."""

    def written(x: Tensor, w: Tensor, h: Tensor) -> Tensor:
        corner = (x - w / 2, -h / 2)
        ends = {"xyxy": (*corner, x + w / 2, h / 2), "xywh": (*corner, w, h), "cxcywh": (x, 0 * h, w, h)}
        return torch.stack(ends[fmt])[None]

    one = torch.ones((), dtype=torch.float64)
    return Point((written(x, width, height), written(0 * one, one, one)), knob)


def slid(shift: float, reading: Reading) -> dict[str, Point]:
    knob = _knob(shift)
    one = torch.ones_like(knob)
    return {"": _box(knob, knob, one, one, reading.fmt)}


def scaled(scale: float, reading: Reading) -> dict[str, Point]:
    knob = _knob(scale)
    return {"": _box(knob, torch.zeros_like(knob), knob, knob, reading.fmt)}


def stretched(aspect: float, reading: Reading) -> dict[str, Point]:
    knob = _knob(aspect)
    return {"": _box(knob, torch.zeros_like(knob), knob.sqrt(), 1 / knob.sqrt(), reading.fmt)}


def residual(residual: float, reading: Reading) -> dict[str, Point]:
    knob = _knob([residual])
    return {"": Point((knob, torch.zeros_like(knob)), knob)}


def score(p: float, reading: Reading) -> dict[str, Point]:
    knob = _knob([[math.log(p / (1 - p))]])
    return {"": Point((knob, torch.full_like(knob, QUALITY)), knob)}


def head(p: float, reading: Reading) -> dict[str, Point]:
    """A point whose box is as high as its target and 0.7 times as wide."""
    knob = _knob([[math.log(p / (1 - p))]])
    sides = (10 * QUALITY, 10, 10 * QUALITY, 10)
    edges = torch.tensor([[_peak(side, 16) for side in sides]], dtype=torch.float64)
    point, box = torch.tensor([[10.0, 10.0]]).double(), torch.tensor([[0.0, 0.0, 20.0, 20.0]]).double()
    return {"": Point((knob, edges, point, 1.0, torch.tensor([0]), box), knob)}


def edge(position: float, reading: Reading) -> dict[str, Point]:
    knob = _knob([_peak(position, LAST_BIN)])
    return {"": Point((knob, torch.tensor([POSITION], dtype=torch.float64)), knob)}


def _peak(position: float, last: int) -> list[float]:
    """Logits over the bins 0 to last of a bell one bin wide."""
    return [-((k - position) ** 2) / 2 for k in range(last + 1)]
