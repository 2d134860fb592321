"""The contract of the engines: the questions that losses ask, as types, and what an engine is.

With p the predicted probability of a class, r the target (0 or 1, or in between), w the weight of a pixel (0 where it
is ignored) and u = −ln p_t the surprise at the label t, a "label" being one of the C classes under a softmax, and
0 (no) or 1 (yes) in each of the C channels under a sigmoid:

    n = Σ w    t = Σ w r    tt = Σ w r²
    fp = Σ w (1−r) p    fn = Σ w r (1−p)    fp2 = Σ w (1−r) p²    fn2 = Σ w r (1−p)²

The sums are of errors, not of hits, so nothing cancels when the prediction is nearly perfect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from .curves import Curve
from .images import Images
from .problem import Problem

T = TypeVar("T")
Error = Literal["chance", "residual", "square"]  # p, p − r, (p − r)²


class Want(NamedTuple):
    """What a loss needs of the pass over the logits. A sum of losses wants the union of what its terms want."""

    labels: bool = False  # t, tt, and the curves by label; without it a curve may come as one sum per image
    errors: bool = False  # fp, fn
    squares: bool = False  # fp2, fn2
    curves: tuple[Curve, ...] = ()  # Σ w f(u)
    u: bool = False  # u itself, per pixel
    spread: bool = False  # Σ w u_k over every pixel, per label k: label smoothing

    @property
    def by_label(self) -> bool:
        """Whether sums are needed for each label."""
        return self.labels or self.errors or self.squares or self.spread

    @property
    def names(self) -> list[str]:
        """The sums that it asks for, by label."""
        asked = {"fp": self.errors, "fn": self.errors, "fp2": self.squares, "fn2": self.squares}
        return [*("n", "t", "tt") * self.by_label, *(name for name, wanted in asked.items() if wanted)]

    def __or__(self, other: Want) -> Want:
        return Want(
            labels=self.labels or other.labels,
            errors=self.errors or other.errors,
            squares=self.squares or other.squares,
            curves=self.curves + tuple(curve for curve in other.curves if curve not in self.curves),
            u=self.u or other.u,
            spread=self.spread or other.spread,
        )


class Sums:
    """Per-class sums over the pixels of a group (an image, or the batch), each (G, C), in float64 (float32 where a
    device has none).

    n   weight of all valid pixels          t    weight of the class in the target; tt: of its square
    fp  soft false positives, Σ (1−r) p     fn   soft false negatives, Σ r (1−p)
    fp2, fn2  the same with (p)² and (1−p)² of the prediction, for losses that square

    It has those that were asked for: see `wants` of a loss.
    """

    n: Tensor
    t: Tensor
    tt: Tensor
    fp: Tensor
    fn: Tensor
    fp2: Tensor
    fn2: Tensor

    def __init__(self, **known: Tensor) -> None:
        self.known: dict[str, Tensor] = {}
        for name, value in known.items():
            self.add(name, value)

    def add(self, name: str, value: Tensor) -> None:
        """One more."""
        self.known[name] = value
        setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "n" and "t" in self.known:  # of exclusive classes: what all of them have together
            self.add("n", self.t.sum(1, keepdim=True).expand_as(self.t))
            return self.n
        if name in ("n", "t", "tt", "fp", "fn", "fp2", "fn2"):
            raise AttributeError(f"a formula reads the sum {name!r}, which the `wants` of its loss does not ask for")
        raise AttributeError(name)

    @property
    def tp(self) -> Tensor:
        """Soft true positives, Σ r p."""
        return self.t - self.fn

    @property
    def squared_error(self) -> Tensor:
        """Σ (p − r)²."""
        return self.fp2 + self.fn2 - (self.t - self.tt)

    def both(self) -> Sums:
        """From the sums of a single foreground channel, (G, 1), those of background and foreground, (G, 2)."""
        other = {"n": self.n, "t": self.n - self.t, "tt": self.n - 2 * self.t + self.tt}
        # What the foreground misses, the background claims.
        turned = {"fp": "fn", "fn": "fp", "fp2": "fn2", "fn2": "fp2"}
        other |= {name: self.known[twin] for name, twin in turned.items() if name in self.known}
        return Sums(**{name: torch.cat([other[name], value], 1) for name, value in self.known.items()})

    def each(self, change: Callable[[Tensor], Tensor]) -> Sums:
        """Every sum changed in the same way."""
        known = {"n": self.n, **self.known}  # of some classes n would not follow from t
        return Sums(**{name: change(value) for name, value in known.items()})


class Event(NamedTuple):
    """One possible label of every pixel and how surprised the model is by it.

    u       −ln p of that label, exact at both ends: (N, *S) under a softmax, (N, C, *S) under a sigmoid
    label   which label: an index like u, of any integer dtype, or one number for all
    chance  its share of a soft target, like u; None where the label is certain
    """

    u: Tensor
    label: Tensor | int
    chance: Tensor | None


@dataclass
class Measured:
    """The answer to `Pass`. Sums over curves and `spread` are per image and label: (N, C) under a softmax, (N, C, 2)
    under a sigmoid, in float64; a curve may be one sum per image, (N, 1), where no labels are wanted.

    weight    like u: the weight of each pixel with the ignored ones at 0; comes with `events`
    every     with `u` and `spread`: all labels of every pixel
    complete  whether it is known that all pixels count and weigh 1, so that nothing need be masked or divided up
    span      the range of the valid target; None where looking would have cost a sync
    """

    sums: Sums
    curves: dict[Curve, Tensor] = field(default_factory=dict)
    spread: Tensor | None = None
    events: list[Event] = field(default_factory=list)
    every: list[Event] = field(default_factory=list)
    weight: Tensor | None = None
    complete: bool = False
    span: tuple[float, float] | None = None


class Answers(NamedTuple):
    """What a logit says, against a target y in [0, 1] of the same shape."""

    p: Tensor  # σ(z)
    miss: Tensor  # σ(z) − y
    surprise: Tensor  # −y ln p − (1 − y) ln(1 − p)


class Boxes:
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


class Ranking(NamedTuple):
    """How errors are put in order."""

    bins: int  # levels that errors are rounded to, less one
    exact: bool  # sorted instead
    per_image: bool  # a group is an image, or the batch
    hinge: bool  # errors are those of a margin, max(0, 1 − z (2r − 1)), or of a probability, |r − p|


# ---- the questions ---------------------------------------------------------------------------------------------------


class Question(Generic[T]):
    """What a loss asks for: the type of the answer is its parameter."""


@dataclass(frozen=True, eq=False)
class Pass(Question[Measured]):
    """Everything of `Want` in one read of the logits: `Measured`."""

    problem: Problem
    want: Want


@dataclass(frozen=True, eq=False)
class Order(Question[tuple[Tensor, Tensor]]):
    """Errors in order: the Lovász extension of the Jaccard loss, and the weight of the foreground, per group and class,
    both (G, C)."""

    problem: Problem
    ranking: Ranking
    images: Images


class Counted(Protocol):
    """The answer to `Levels`. Groups and classes are (G, C)."""

    span: Tensor  # the largest error here

    def histogram(self, span: Tensor) -> Tensor:
        """The weights of background and foreground on each level up to `span`, the largest error anywhere:
        (G, C, 2, slots), in float64."""
        ...

    def charged(self, span: Tensor, table: Tensor) -> Tensor:
        """Something (G, C) whose gradient is that of Σ w · table[slot] · error over the pixels here."""
        ...


@dataclass(frozen=True, eq=False)
class Levels(Question[Counted]):
    """Errors on levels, step by step: for `Order` where others hold a part of a group."""

    problem: Problem
    ranking: Ranking
    images: Images


@dataclass(frozen=True, eq=False)
class MapSums(Question[Tensor]):
    """Σ price · error over the pixels of each image, (N, C), with a price (N, C, *S) of its own for every pixel."""

    problem: Problem
    price: Tensor
    error: Error


@dataclass(frozen=True, eq=False)
class Field(Question[Tensor]):
    """The probability of every class, (N, C, *S), for losses that look at neighbours. What does not count is made
    uniform, so that no gradient reaches it; `whole`: only images of weight 0 do not count."""

    problem: Problem
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Overlap(Question[Boxes]):
    """How boxes (…, 4) with corners x1, y1, x2, y2 lie to those of the target: the named fields of `Boxes`."""

    prediction: Tensor
    target: Tensor
    reads: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Scores(Question[Answers]):
    """What logits say, as yes or no, against targets in [0, 1] of the same shape: `Answers`."""

    logits: Tensor
    target: Tensor


@dataclass(frozen=True, eq=False)
class Residuals(Question[Tensor]):
    """|prediction − target|, element by element."""

    prediction: Tensor
    target: Tensor


class Engine(Protocol):
    """What answers questions. `refuses` says in words why it does not answer one; None: it will."""

    def refuses(self, question: Question[Any]) -> str | None: ...

    def answer(self, question: Question[T]) -> T: ...
