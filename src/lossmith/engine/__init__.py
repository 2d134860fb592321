"""The engine: what every loss is computed from, in one read of the logits.

Almost every loss of the field is a formula over a few per-class sums or over one number per pixel. The engine computes
exactly those (`Stats`) for whatever a loss, or a sum of losses, asked for (`Want`); softmax and sigmoid live here and
nowhere else. Two engines keep the same contract:

* `plain`: ordinary torch. Any device and dtype, differentiable twice, traceable, vmappable.
* `cpu`: Numba kernels for float32, bfloat16 and float16 tensors on a CPU ("fused").

What is no such sum is a question of its own, asked when a loss needs it: errors in order (`ranked`), sums over a map
(`mapped`), and the probabilities themselves for losses that look at neighbours (`field`).

With p the predicted probability of a class, r the target (0 or 1, or in between), w the weight of a pixel (0 where it
is ignored) and u = −ln p_t the surprise at the label t, a "label" being one of the C classes under a softmax, and
0 (no) or 1 (yes) in each of the C channels under a sigmoid:

    n = Σ w    t = Σ w r    tt = Σ w r²
    fp = Σ w (1−r) p    fn = Σ w r (1−p)    fp2 = Σ w (1−r) p²    fn2 = Σ w r (1−p)²

The sums are of errors, not of hits, so nothing cancels when the prediction is nearly perfect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .choice import answer, use_engine

__all__ = ["answer", "use_engine"]  # besides what stands here

Task = Literal["multiclass", "binary", "multilabel"]


class Curve(NamedTuple):
    """A pixel formula f(u) that the kernels know too: which one, and its one number x.

    "focal"         (1−p)^x u; cross-entropy with x = 0
    "power"         u^x; below 1 linear up to u = 1e-30, as in `power`
    "conservative"  (1 − v)² |ln v| with v = u / x; u counts as 1e-30 at least
    """

    kind: Literal["focal", "power", "conservative"]
    x: float

    @property
    def straight(self) -> bool:
        """Whether it is u itself."""
        return self == CROSS_ENTROPY

    def __call__(self, u: Tensor) -> Tensor:
        if self.kind == "power":
            return power(u, self.x)
        if self.kind == "conservative":
            v = u.clamp(min=1e-30) / self.x
            return (1 - v).square() * v.log().abs()
        return u if self.straight else power(-torch.expm1(-u), self.x) * u

    def slope(self, u: Tensor) -> Tensor:
        """f'(u), written so that an exponent below 1 divides nothing by 0."""
        if self.kind == "power":
            near = torch.where(u <= 1e-30, u.new_ones(()), self.x) if self.x < 1 else self.x
            return near * u.clamp(min=1e-30) ** (self.x - 1)
        if self.kind == "conservative":
            v = u.clamp(min=1e-30) / self.x
            slope = ((1 - v).square() / v - 2 * (1 - v) * v.log()) * v.log().sign() / self.x
            return torch.where(u < 1e-30, 0.0, slope)
        miss, p = -torch.expm1(-u), torch.exp(-u)
        share = torch.where(miss == 0, 1.0, u.clamp(max=1e30) / torch.where(miss == 0, 1.0, miss))  # p u → 0 at u = ∞
        return power(miss, self.x) * (1 + self.x * p * share)


CROSS_ENTROPY = Curve("focal", 0.0)


def power(x: Tensor, exponent: float, floor: float = 1e-30) -> Tensor:
    """x ** exponent for x >= 0; with an exponent below 1 linear up to `floor`, so that the slope at 0 is finite."""
    if exponent == 0 or exponent >= 1:
        return x**exponent
    return torch.where(x <= floor, x * floor ** (exponent - 1), x.clamp(min=floor) ** exponent)


class Want(NamedTuple):
    """What a loss needs of the engine. A sum of losses wants the union of what its terms want."""

    errors: bool = False  # fp, fn
    squares: bool = False  # fp2, fn2
    curves: tuple[Curve, ...] = ()  # Σ w f(u) per label
    u: bool = False  # u itself, per pixel
    spread: bool = False  # Σ w u_k over every pixel, per label k: label smoothing

    def __or__(self, other: Want) -> Want:
        return Want(
            errors=self.errors or other.errors,
            squares=self.squares or other.squares,
            curves=self.curves + tuple(curve for curve in other.curves if curve not in self.curves),
            u=self.u or other.u,
            spread=self.spread or other.spread,
        )


class Ranking(NamedTuple):
    """How errors are put in order, for the losses of `ranking.py`. It is a question of its own, asked by `ranked`."""

    bins: int  # levels that errors are rounded to, less one
    exact: bool  # sorted instead
    per_image: bool  # a group is an image, or the batch
    hinge: bool  # errors are those of a margin, max(0, 1 − z (2r − 1)), or of a probability, |r − p|


@dataclass(frozen=True)
class Problem:
    """One validated question to an engine. `Batch` makes it; shapes and dtypes are checked, values are not.

    logits  (N, C, *S), floating point, any strides
    target  hard labels (N, *S) of any integer dtype or bool; or shaped like the logits, any dtype, values in [0, 1]
    weight  None or (N, *S), real
    sample  None or (N,), real: an image of weight 0 is ignored; other values are not applied here
    """

    logits: Tensor
    target: Tensor
    weight: Tensor | None
    sample: Tensor | None
    task: Task
    ignore_index: int
    want: Want

    @property
    def hard(self) -> bool:
        """Integer labels (N, *S), against a target shaped like the logits."""
        return self.target.ndim == self.logits.ndim - 1


class Event(NamedTuple):
    """One possible label of every pixel and how surprised the model is by it.

    u       −ln p of that label, exact at both ends: (N, *S) under a softmax, (N, C, *S) under a sigmoid
    label   which label: an index like u, or one number for all
    chance  its share of a soft target, like u; None where the label is certain
    """

    u: Tensor
    label: Tensor | int
    chance: Tensor | None


@dataclass
class Stats:
    """An engine's answer. Sums are per image and class, (N, C), in float64 (float32 where a device has none).

    `curves` and `spread` are per image and label: (N, C) under a softmax, (N, C, 2) under a sigmoid. An engine that
    does not know curves leaves them out and gives `events` instead.
    """

    n: Tensor
    t: Tensor
    tt: Tensor
    fp: Tensor | None = None
    fn: Tensor | None = None
    fp2: Tensor | None = None
    fn2: Tensor | None = None
    spread: Tensor | None = None
    curves: dict[Curve, Tensor] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    every: list[Event] = field(default_factory=list)  # with `u` and `spread`: all labels of every pixel
    weight: Tensor | None = None  # like u; the weight of each pixel with the ignored ones at 0; comes with `events`
    target_range: tuple[float, float] | None = None  # of the valid targets; None where looking would cost a sync


def statistics(problem: Problem) -> Stats:
    """Answers the problem with the engine that is in use."""
    from . import cpu, plain

    return answer(lambda: _why_not_fused(problem), lambda: cpu.statistics(problem), lambda: plain.statistics(problem))


def ranked(problem: Problem, ranking: Ranking) -> tuple[Tensor, Tensor]:
    """The Lovász extension of the Jaccard loss, and the weight of the foreground: per group and class, (G, C).

    Sorting is a matter of torch for either engine.
    """
    from . import ranking as in_torch
    from . import ranking_cpu

    if in_torch.sorts(problem, ranking):
        return in_torch.ranked(problem, ranking)
    return answer(
        lambda: _why_not_fused(problem),
        lambda: ranking_cpu.ranked(problem, ranking),
        lambda: in_torch.ranked(problem, ranking),
    )


def _why_not_fused(problem: Problem) -> str | None:
    from . import cpu

    if problem.want.u and problem.want.spread:
        return "per-pixel values with label smoothing"
    return cpu.refuses(problem)
