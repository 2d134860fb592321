"""Logits and what is known of their pixels: which of them count, and what their target is. In torch, nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from .tensors import can_look, computed, indices, likeliest

T = TypeVar("T")
Task = Literal["multiclass", "binary", "multilabel"]

SLACK = 1e-4  # by which soft labels that were interpolated or normalised may leave [0, 1]


class Once(Generic[T]):
    """A property that is worked out when it is first asked for. That of functools takes a lock in Python 3.11, which
    torch.compile cannot trace."""

    def __init__(self, func: Callable[[Any], T]) -> None:
        self.func, self.__doc__ = func, func.__doc__

    def __get__(self, owner: Any, cls: type) -> T:
        if owner is None:
            return self  # type: ignore[return-value]
        value = self.func(owner)
        setattr(owner, self.func.__name__, value)
        return value


class Labels(NamedTuple):
    """What a target says of its pixels, with everything that does not count taken out.

    target  a label per pixel, (N, *S), where one of several exclusive classes is given; else r of every class or
            channel, (N, C, *S). 0 where it does not count
    weight  of every pixel, (N, *S), or under a sigmoid of every channel, (N, C, *S); 0 where it does not count, NaN
            where the target is out of range and looking would have cost a sync. None: all weigh 1
    span    the range of the valid target as it was; None where looking would have cost a sync
    """

    target: Tensor
    weight: Tensor | None
    span: tuple[float, float] | None

    @property
    def valid(self) -> Tensor | None:
        """Which labels count, bool like the weight. None: all."""
        return None if self.weight is None else self.weight != 0


class Problem:
    """Logits and what is known of their pixels. Shapes and dtypes are checked before it is made, values are not.

    logits  (N, C, *S), floating point, any strides
    target  hard labels (N, *S) of any integer dtype or bool; or shaped like the logits, any dtype, values in [0, 1]
    weight  None or (N, *S), real
    sample  None or (N,), real: an image of weight 0 is ignored; other values are not applied here
    """

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample: Tensor | None,
        task: Task,
        ignore_index: int,
    ) -> None:
        self.logits, self.target, self.weight, self.sample = logits, target, weight, sample
        self.task, self.ignore_index = task, ignore_index

    @property
    def hard(self) -> bool:
        """Integer labels (N, *S), against a target shaped like the logits."""
        return self.target.ndim == self.logits.ndim - 1

    @property
    def exclusive(self) -> bool:
        """Whether one label wins at each pixel; otherwise every channel is a yes or no of its own."""
        return self.task == "multiclass"

    def but(self, **changes: Any) -> Problem:
        """The same with some parts exchanged."""
        known = {name: getattr(self, name) for name in ("logits", "target", "weight", "sample", "task", "ignore_index")}
        return Problem(**{**known, **changes})

    @Once
    def labels(self) -> Labels:
        """Its target, read once for whoever asks in torch."""
        return read(self)


def read(problem: Problem) -> Labels:
    """The labels of a problem: clamped to what there is, with what does not count at 0."""
    z, given = problem.logits, problem.target
    top = 1
    if problem.hard:
        top = z.shape[1] - 1 if problem.exclusive else z.shape[1]  # label C of independent channels is none of them
    target = given.to(computed(z)) if given.is_floating_point() and not problem.hard else given
    target = target if target.is_floating_point() else target.long()  # or a uint8 156 would equal −100
    target, weight, span = _counted(problem, target, top)
    if problem.hard and not problem.exclusive:
        target = (target.unsqueeze(1) == indices(z.shape[1], target, target.ndim - 1)).long()
        weight = None if weight is None else weight.unsqueeze(1).expand(z.shape)
    return Labels(target, weight, span)


def _counted(problem: Problem, target: Tensor, top: int) -> tuple[Tensor, Tensor | None, tuple[float, float] | None]:
    look = can_look(target)
    low = high = math.nan
    if look and target.numel():
        low, high = (float(x) for x in target.detach().aminmax())
    unmarked = problem.weight is None and problem.sample is None
    if unmarked and not low <= problem.ignore_index <= high and not math.isnan(low + high):
        return target if low >= 0 and high <= top else target.clamp(0, top), None, (low, high)  # the common case

    over_classes = problem.exclusive and target.ndim == problem.logits.ndim
    valid = target != problem.ignore_index
    valid = valid.all(1) if over_classes else valid
    if problem.sample is not None:
        valid = valid & (problem.sample != 0).reshape(-1, *[1] * (valid.ndim - 1))
    weight = problem.weight
    if weight is not None:
        weight = weight.to(computed(problem.logits))
        weight = weight if weight.ndim == valid.ndim else weight.unsqueeze(1)
        valid = valid & (weight != 0)
    target = target.masked_fill(~valid.unsqueeze(1) if over_classes else ~valid, 0)
    if look:
        if weight is None and bool(valid.all()):
            return target.clamp(0, top), None, _span(target)
        span = _span(target)
        weight = valid.to(computed(problem.logits)) if weight is None else torch.where(valid, weight, 0.0)
        inside = span[0] >= 0 and span[1] <= top
        return target if inside else target.clamp(0, top), weight, span  # beyond the slack the caller raises
    weight = valid.to(computed(problem.logits)) if weight is None else torch.where(valid, weight, 0.0)
    outside = out_of_range(target, top)  # the loss becomes NaN: looking at a label would stall the device
    weight = weight.masked_fill(outside.any(1) if over_classes else outside, torch.nan)
    return target.clamp(0, top), weight, None


def _span(target: Tensor) -> tuple[float, float]:
    if not target.numel():
        return 0.0, 0.0
    low, high = target.detach().aminmax()
    return float(low), float(high)


def out_of_range(target: Tensor, top: int) -> Tensor:
    """Which values no label has, bool; not NaN, which stays one."""
    slack = SLACK if target.is_floating_point() else 0
    return (target < -slack) | (target > top + slack)


def hard_labels(problem: Problem) -> tuple[Tensor, Tensor | None]:
    """One label for each pixel, and which of them count (None: all): (N, *S) under a softmax, (N, C, *S) of no and yes
    under a sigmoid. A soft target becomes its likeliest class, or a yes from one half on."""
    target, valid = problem.labels.target, problem.labels.valid
    if problem.exclusive:
        target = target if problem.hard else likeliest(target).squeeze(1)
        return target if valid is None or problem.hard else target.masked_fill(~valid, 0), valid
    return (target >= 0.5).long() if target.is_floating_point() else (target > 0).long(), valid


def certain(problem: Problem) -> bool:
    """Whether every pixel, or channel, has one label for sure."""
    return problem.hard or not (problem.exclusive or problem.target.is_floating_point())
