"""What losses can be drawn against: one entry of `AXES` for each axis, with the words of its figure.

Where an axis has several lines for value and gradient, both are seen several times at each point, as for false
positives and false negatives apart. How points are made is in points.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from lossmith.lab.say import points
from lossmith.lab.say.points import (
    BACKGROUND,
    CELL,
    CERTAIN,
    GROUND,
    LAST_BIN,
    OBJECT,
    POSITION,
    QUALITY,
    SHIFTED,
    SQUARE,
    Point,
    Reading,
)
from lossmith.loss import Loss
from lossmith.losses.box import BoxLoss
from lossmith.losses.dense import Dense
from lossmith.losses.distribution import DistributionFocalLoss, ScoreLoss
from lossmith.losses.distribution_gfl import GeneralizedFocalLoss
from lossmith.losses.regression import RegressionLoss


class Line(NamedTuple):
    """One panel of a figure: its title, and the lines with whose panels it shares the scale."""

    key: str
    title: str
    like: str = ""
    share: bool = False  # of the pixels, or of the gradient
    from_zero: bool = True


@dataclass(frozen=True)
class Axis:
    """What losses that read the same input are drawn against: the words of the figure, and how a point is made.

    `at` makes a point of x, or several under the endings that their lines have. A loss is drawn on the first axis whose
    `usual` it belongs to unless asked otherwise; `also` are the losses that can be asked for, `takes` both in words.
    """

    name: str
    kind: str
    heading: str
    caption: str
    title: str
    lines: tuple[Line, ...]
    points: tuple[float, ...]
    at: Callable[[float, Reading], dict[str, Point]]
    takes: str
    usual: tuple[type[Loss], ...] = ()
    also: tuple[type[Loss], ...] = ()
    labels: bool = False  # whether it says nothing of a loss that reads none
    ticks: tuple[float, ...] = ()  # the axis is logarithmic, and has these

    def fits(self, terms: list[Loss]) -> bool:
        if self.labels and all(getattr(term, "target", "labels") == "none" for term in terms):
            return False
        return any(isinstance(term, (*self.usual, *self.also)) for term in terms)


def _even(low: float, high: float, points: int = 81) -> tuple[float, ...]:
    return tuple(low + (high - low) * i / (points - 1) for i in range(points))


def _doubling(least: float, points: int = 161) -> tuple[float, ...]:
    """From `least` to its inverse by equal factors."""
    return tuple(math.exp(x) for x in _even(math.log(least), -math.log(least), points))


_FINE = 241  # where curves have kinks: a step is 1/60 of a box, 1/40 of a residual
_VALUE, _SIZE = Line("value", "Value"), Line("gradient", "Size of the gradient")
_PIXELS, _BOXES = "losses of pixels and regions, as ce and dice", "losses of boxes, as giou and smooth_l1"
_ENDS = {"": "shifted", "_fp": "only false positives", "_fn": "only false negatives"}

PICTURE = Axis(
    "picture",
    "picture",
    "Pixels and regions",
    "One small picture in which every pixel gives its true class the same probability, from 0.001 to 0.999; a pixel of "
    f"every {CELL**2 // SQUARE**2} belongs to the foreground. The value of the loss; the sum of |∂loss/∂logit| over "
    "all pixels; the part of it that falls on foreground pixels, whose share of the pixels is the dotted line.",
    "probability of the true class",
    (
        _VALUE._replace(from_zero=False),
        _SIZE,
        Line("foreground", "Gradient on the foreground", share=True, from_zero=False),
    ),
    _even(0.001, 0.999),
    points.from_bad_to_good,
    _PIXELS,
    usual=(Dense,),
)
_SCORES = Axis(
    "p",
    "score",
    f"Scores, for a target quality of {QUALITY}",
    f"One score p, the sigmoid of a logit, that should be the quality {QUALITY}: the loss, and its slope along the "
    "logit.",
    "score p",
    (_VALUE, Line("gradient", "Gradient ∂loss/∂logit")),
    _even(0.001, 0.999),
    points.score,
    "losses of scores, as qfl",
    usual=(ScoreLoss,),
)
AXES = (
    Axis(
        "p",
        "picture",
        "Pixels and regions, against p",
        "One small picture in which every pixel gives its true class the same probability p, from 0.001 to 0.999; a "
        f"pixel of every {CELL**2 // SQUARE**2} belongs to the foreground. The loss, and its slope along the logit "
        "of p that all pixels share: below 0 it pulls p up, above 0 down.",
        "probability p of the true class",
        (_VALUE, Line("gradient", "Gradient ∂loss/∂logit")),
        _even(0.001, 0.999),
        points.along_the_logit,
        _PIXELS,
        also=(Dense,),
    ),
    Axis(
        "overlap",
        "picture",
        "Pixels and regions, against overlap",
        f"An object of {SHIFTED} × {SHIFTED} pixels on a background five times as large, which is predicted shifted "
        f"to one side, every pixel with a probability of {CERTAIN}. What is shifted has false positives and as many "
        "false negatives; beside it each of the two alone: the object and what is predicted beside it, and the part of "
        "the object that is hit. The value of the loss; its gradient, the sum of |∂loss/∂logit| over all pixels.",
        "overlap, the part of the object that is hit",
        tuple(
            Line(f"{key}{end}", f"{title}, {words}", like=key)
            for key, title in (("value", "Value"), ("gradient", "Gradient"))
            for end, words in _ENDS.items()
        ),
        _even(0, 1, SHIFTED + 1),
        points.shifted,
        f"{_PIXELS}, that read labels",
        also=(Dense,),
        labels=True,
    ),
    Axis(
        "size",
        "picture",
        "Pixels and regions, against size",
        f"A square object in {GROUND} × {GROUND} pixels. Its own pixels give it a probability of {OBJECT:g}, those of "
        f"the background theirs {BACKGROUND:g}. The value of the loss; the sum of |∂loss/∂logit| over all pixels; the "
        "part of it that falls on the object: who owns the gradient. The dotted line is the object's share of the "
        "pixels.",
        "size of the object, % of the pixels",
        (_VALUE, _SIZE, Line("foreground", "Gradient on the object", share=True, from_zero=False)),
        tuple(100 * (side / GROUND) ** 2 for side in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32)),
        points.grown,
        f"{_PIXELS}, that read labels",
        also=(Dense,),
        labels=True,
        ticks=(0.03, 0.1, 0.3, 1, 3, 10, 25),
    ),
    PICTURE,
    Axis(
        "shift",
        "box",
        "Boxes",
        "A box as large as its target that slides over it along one axis, and beyond: they overlap for shifts between "
        "−1 and 1. The loss, and its slope along the shift.",
        "shift in widths of the box",
        (_VALUE, Line("gradient", "Gradient ∂loss/∂shift")),
        _even(-2, 2, _FINE),
        points.slid,
        _BOXES,
        usual=(BoxLoss,),
        also=(RegressionLoss,),
    ),
    Axis(
        "scale",
        "box",
        "Boxes, against scale",
        "A box with the centre and the shape of its target, a square of side 1, that is smaller or larger. The loss, "
        "and its slope along the side.",
        "side of the box in sides of its target",
        (_VALUE, Line("gradient", "Gradient ∂loss/∂side")),
        _doubling(1 / 4),
        points.scaled,
        _BOXES,
        also=(BoxLoss, RegressionLoss),
        ticks=(0.25, 0.5, 1, 2, 4),
    ),
    Axis(
        "aspect",
        "box",
        "Boxes, against aspect",
        "A box with the centre and the area of its target, a square of side 1, that is higher or wider. The loss, and "
        "its slope along the ratio of width to height.",
        "width of the box over its height",
        (_VALUE, Line("gradient", "Gradient ∂loss/∂ratio")),
        _doubling(1 / 4),
        points.stretched,
        _BOXES,
        also=(BoxLoss, RegressionLoss),
        ticks=(0.25, 0.5, 1, 2, 4),
    ),
    Axis(
        "residual",
        "residual",
        "Regression",
        "One number: the loss, and its slope along the prediction.",
        "residual, prediction − target",
        (_VALUE, Line("gradient", "Gradient ∂loss/∂prediction")),
        _even(-3, 3, _FINE),
        points.residual,
        "losses of numbers, as l1",
        usual=(RegressionLoss,),
    ),
    replace(_SCORES, at=points.head, usual=(GeneralizedFocalLoss,)),
    _SCORES,
    Axis(
        "edge",
        "edge",
        f"Edges as distributions, for a target at {POSITION}",
        f"A bell, one bin wide, over the bins 0 to {LAST_BIN}, that moves past its target at {POSITION}: the loss, "
        "and the sum of |∂loss/∂logit| over the bins.",
        "peak of the distribution, in bins",
        (_VALUE, _SIZE),
        _even(0, LAST_BIN),
        points.edge,
        "losses of distributions, as dfl",
        usual=(DistributionFocalLoss,),
    ),
)
