"""The probabilities themselves, pixel by pixel, for losses that look at neighbours."""

from __future__ import annotations

from torch import Tensor

from ..contract import Field
from ..tensors import floating


def probabilities(question: Field) -> Tensor:
    """p of every class, (N, C, *S)."""
    problem = question.problem
    z, valid = floating(problem.logits), problem.labels.valid
    if question.whole:
        valid = problem.sample
        valid = None if valid is None else (valid != 0).reshape(-1, *[1] * (z.ndim - 1))
    elif valid is not None and valid.ndim < z.ndim:
        valid = valid.unsqueeze(1)
    z = z if valid is None else z.masked_fill(~valid, 0.0)
    return z.softmax(1) if problem.exclusive else z.sigmoid()
