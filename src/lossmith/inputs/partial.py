"""Partial labels: classes that were not annotated in an image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..checks import shape
from ..engine.problem import Problem, Task, hard_labels, out_of_range
from ..engine.tensors import floating, indices

NO_LABEL = -(2**31)  # marks what is ignored among yes and no, which any other number might be


def annotated_classes(who: str, logits: Tensor, mask: Any, task: Task) -> Tensor:
    """Which classes were annotated, bool, (N, C): under a softmax the background always."""
    if not isinstance(mask, Tensor) or tuple(mask.shape) != tuple(logits.shape[:2]):
        found = shape(mask) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"{who}: label_mask says which classes were annotated in each image: {shape(logits)[:2]}, got {found}"
        )
    annotated = mask.to(logits.device) != 0
    return annotated | (indices(logits.shape[1], logits) == 0) if task == "multiclass" else annotated


def merged(problem: Problem, annotated: Tensor) -> Problem:
    """Partial labels. Under a sigmoid, a channel that was not annotated is ignored. Under a softmax, the classes that
    were not annotated are part of the background: their probability is added to its, nothing is asked of them alone.

    Values out of range are left as they are for the engine to see.
    """
    labels, valid = hard_labels(problem)
    valid = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
    target = problem.target if problem.target.is_floating_point() else problem.target.long()
    space = [1] * len(problem.logits.shape[2:])
    if not problem.exclusive:
        ignored = problem.ignore_index
        if problem.hard:
            target, ignored = target.unsqueeze(1), NO_LABEL
            target = torch.where(out_of_range(target, problem.logits.shape[1]), target, labels)
        unknown = ~(annotated.reshape(*annotated.shape, *space) & valid)
        return problem.but(target=target.masked_fill(unknown, ignored), ignore_index=ignored)
    hidden = ~annotated
    at = hidden.reshape(*hidden.shape, *space)
    background = torch.zeros_like(hidden)
    background[:, 0] = True
    pooled = at | background.reshape(at.shape)
    z = floating(problem.logits).masked_fill(~valid.unsqueeze(1), 0.0)  # or a NaN there would reach the gradient
    first = z.masked_fill(~pooled, -torch.inf).logsumexp(1, keepdim=True)
    z = torch.cat([first, z.masked_fill(at, -torch.inf)[:, 1:]], 1)
    if problem.hard:
        lost = hidden.gather(1, labels.reshape(len(labels), math.prod(labels.shape[1:]))).view_as(labels) & (
            labels == target
        )
        return problem.but(logits=z, target=torch.where(lost, 0, target))
    share = target.clamp(min=0)
    share = torch.cat([(share * pooled).sum(1, keepdim=True).clamp(max=1), share.masked_fill(at, 0)[:, 1:]], 1)
    target = torch.where(out_of_range(target, 1).any(1, keepdim=True), target, share)
    return problem.but(logits=z, target=target.masked_fill(~valid.unsqueeze(1), problem.ignore_index))
