"""The probabilities themselves, pixel by pixel, for losses that look at neighbours."""

from __future__ import annotations

from torch import Tensor

from . import Problem
from .plain import floating, likeliest
from .tensors import indices


def probabilities(problem: Problem, valid: Tensor | None) -> Tensor:
    """p of every class, (N, C, *S). What is not `valid` is made uniform: no gradient reaches it."""
    z = floating(problem.logits)
    z = z if valid is None else z.masked_fill(~(valid.unsqueeze(1) if valid.ndim < z.ndim else valid), 0.0)
    return z.softmax(1) if problem.task == "multiclass" else z.sigmoid()


def whole(problem: Problem) -> Tensor:
    """p of every class at every pixel, ignored or not, but for images of weight 0."""
    valid = None
    if problem.sample is not None:
        shape = problem.logits.shape[:1] + problem.logits.shape[2:]
        valid = (problem.sample != 0).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    return probabilities(problem, valid)


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
        valid, target = valid.all(1), likeliest(target).squeeze(1)
    if problem.sample is not None:
        valid = valid & (problem.sample != 0).reshape(-1, *[1] * (valid.ndim - 1))
    if task != "multiclass" and problem.hard:
        classes = indices(problem.logits.shape[1], target, target.ndim - 1)
        target, valid = (target.unsqueeze(1) == classes).long(), valid.unsqueeze(1).expand(problem.logits.shape)
    elif task != "multiclass":
        target = (target >= 0.5).long()
    if problem.weight is not None:
        weighted = problem.weight != 0
        valid = valid & (weighted.unsqueeze(1) if valid.ndim > weighted.ndim else weighted)
    return target.masked_fill(~valid, 0), valid
