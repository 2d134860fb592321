"""A yes or no per score, and a distribution over bins per edge, for the heads of detectors.

Everything comes from logits, exact at both ends: neither p nor 1 − p, nor their logarithms, are made from each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..contract import Answers, Residuals, Scores


def answers(question: Scores) -> Answers:
    """A logit of ∓∞ for a target of 0 or 1 is perfect."""
    z, y = question.logits, question.target
    p, q = z.sigmoid(), (-z).sigmoid()
    yes, no = (-F.logsigmoid(z)).masked_fill(y == 0, 0.0), (-F.logsigmoid(-z)).masked_fill(y == 1, 0.0)
    return Answers(p, (1 - y) * p - y * q, y * yes + (1 - y) * no)


def residuals(question: Residuals) -> torch.Tensor:
    """How far off each number is."""
    return (question.prediction - question.target).abs()


def chance(z: torch.Tensor) -> torch.Tensor:
    """σ(z)."""
    return z.sigmoid()


def mean_bin(z: torch.Tensor) -> torch.Tensor:
    """Σ i p_i over the last axis."""
    return (z.softmax(-1) * torch.arange(z.shape[-1], dtype=z.dtype, device=z.device)).sum(-1)
