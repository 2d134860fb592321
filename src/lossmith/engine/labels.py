"""Which pixels count, and what their target is: the one definition in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .contract import Labels, Problem
from .tensors import can_look, computed, indices, likeliest

SLACK = 1e-4  # by which soft labels that were interpolated or normalised may leave [0, 1]


def read(problem: Problem) -> Labels:
    """The labels of a problem: clamped to what there is, with what does not count at 0."""
    z, given = problem.logits, problem.target
    top = 1
    if problem.hard:
        top = z.shape[1] - problem.exclusive  # label C of independent channels is none of them
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
