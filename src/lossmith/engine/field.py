"""The probabilities themselves, pixel by pixel, for losses that look at neighbours or at a map."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Problem, Stats
from .plain import can_look, floating, like, missed_by_every_class, validated


def add_fields(stats: Stats, problem: Problem) -> None:
    """Completes an engine's answer by the fields that were asked for."""
    want = problem.want
    if want.field or want.residual:
        stats.valid = None if _all_count(problem, stats.n) else labels_and_valid(problem)[1]
        stats.field = _probabilities(problem, stats.valid)
    if want.residual:
        assert stats.field is not None
        stats.residual = _residual(problem, stats.field, stats.valid)
    if want.whole:
        stats.whole = whole(problem)


def _probabilities(problem: Problem, valid: Tensor | None) -> Tensor:
    """p of every class, (N, C, *S). What is not `valid` is made uniform: no gradient reaches it."""
    z = floating(problem.logits) if valid is None else _only(valid, floating(problem.logits))
    return z.softmax(1) if problem.task == "multiclass" else z.sigmoid()


def _residual(problem: Problem, p: Tensor, valid: Tensor | None) -> Tensor:
    """p − r of every class, written (1 − r) p − r (1 − p), with a 1 − p that does not cancel."""
    if problem.task == "multiclass" and problem.hard:
        at = labels_and_valid(problem)[0].unsqueeze(1)
        others = p.scatter(1, at, 0.0)
        return others.scatter(1, at, -others.sum(1, keepdim=True))
    r = (labels_and_valid(problem) if problem.hard else validated(problem, like(problem.target, p), 1))[0].to(p)
    if problem.task == "multiclass":
        return (1 - r) * p - r * missed_by_every_class(p)
    z = floating(problem.logits)
    return (1 - r) * p - r * (-z if valid is None else _only(valid, -z)).sigmoid()


def _only(valid: Tensor, z: Tensor) -> Tensor:
    """Logits with 0 for those that do not count. `valid` is a mask like u."""
    return z.masked_fill(~(valid.unsqueeze(1) if valid.ndim < z.ndim else valid), 0.0)


def _all_count(problem: Problem, n: Tensor) -> bool:
    """Whether it is plain to see that no pixel is ignored or weighed; n is the weight of the valid ones."""
    pixels = math.prod(problem.logits.shape[2:])
    return problem.weight is None and can_look(n) and bool((n == pixels).all())


def whole(problem: Problem) -> Tensor:
    """p of every class at every pixel, ignored or not, but for images of weight 0."""
    valid = None
    if problem.sample is not None:
        shape = problem.logits.shape[:1] + problem.logits.shape[2:]
        valid = (problem.sample != 0).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    return _probabilities(problem, valid)


def labels_and_valid(problem: Problem) -> tuple[Tensor, Tensor]:
    """Hard labels and which of them count: (N, *S) under a softmax, (N, C, *S) of no and yes under a sigmoid.

    A soft target becomes its likeliest class, or a yes from one half on. Ignored pixels get label 0.
    """
    target, task = problem.target, problem.task
    target = target if target.is_floating_point() else target.long()
    valid = target != problem.ignore_index
    if task == "multiclass" and problem.hard:
        target = target.clamp(0, problem.logits.shape[1] - 1)  # beyond it is an error, or NaN: see `validated`
    elif task == "multiclass":
        valid, target = valid.all(1), target.argmax(1)
    if problem.sample is not None:
        valid = valid & (problem.sample != 0).reshape(-1, *[1] * (valid.ndim - 1))
    if task != "multiclass" and problem.hard:
        classes = torch.arange(problem.logits.shape[1], device=target.device).reshape(-1, *[1] * (target.ndim - 1))
        target, valid = (target.unsqueeze(1) == classes).long(), valid.unsqueeze(1).expand(problem.logits.shape)
    elif task != "multiclass":
        target = (target >= 0.5).long()
    if problem.weight is not None:
        weighted = problem.weight != 0
        valid = valid & (weighted.unsqueeze(1) if valid.ndim > weighted.ndim else weighted)
    return target.masked_fill(~valid, 0), valid
