"""Entry point for the heads of detectors: a yes or no per score, and a distribution over bins per edge, in plain torch.

Everything comes from logits, exact at both ends: neither p nor 1 − p, nor their logarithms, are made from each other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Problem, Want, statistics


class Answers(NamedTuple):
    """What a logit says, against a target y in [0, 1] of the same shape."""

    p: Tensor  # σ(z)
    miss: Tensor  # σ(z) − y
    surprise: Tensor  # −y ln p − (1 − y) ln(1 − p)


def answers(z: Tensor, y: Tensor) -> Answers:
    """The three of them; a logit of ∓∞ for a target of 0 or 1 is perfect."""
    p, q = z.sigmoid(), (-z).sigmoid()
    yes, no = (-F.logsigmoid(z)).masked_fill(y == 0, 0.0), (-F.logsigmoid(-z)).masked_fill(y == 1, 0.0)
    return Answers(p, (1 - y) * p - y * q, y * yes + (1 - y) * no)


def chance(z: Tensor) -> Tensor:
    """σ(z)."""
    return z.sigmoid()


def bin_surprise(z: Tensor, bins: Tensor) -> Tensor:
    """−ln p of one bin of each distribution, logits (M, bins), bins (M,): by the engine that is in use."""
    problem = Problem(z.mT.unsqueeze(0), bins.unsqueeze(0), None, None, "multiclass", -100, Want(u=True))
    (event,) = statistics(problem).events
    return event.u.squeeze(0)


def mean_bin(z: Tensor) -> Tensor:
    """Σ i p_i over the last axis."""
    return (z.softmax(-1) * torch.arange(z.shape[-1], dtype=z.dtype, device=z.device)).sum(-1)
