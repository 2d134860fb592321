"""What detectors' heads hand over: scores against qualities, distributions over bins against positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..engine.tensors import can_look, computed, indices
from .pair import Elements, PairReading


class ScorePair(Elements):
    """Logits (…, C) against qualities: a target like the logits in [0, 1], or (labels, quality), both (…,).

    A label is 0 to C − 1, or C for background; the target is then the quality at the label's class and 0 elsewhere.
    Weights are (…,) or (…, C). A row of weight 0 may have any label.
    """

    def __init__(
        self,
        reading: PairReading,
        logits: Tensor,
        target: Any,
        *,
        weight: Tensor | None = None,
        denominator: checks.Denominator = None,
    ) -> None:
        who = reading.who
        check_logits(who, logits)
        super().__init__(reading, logits, logits.shape, weight, denominator)
        target = _dense(who, logits, target, self.weight) if isinstance(target, tuple | list) else target
        _check_target(who, logits, target, logits.shape)
        self.logits, self.target = self.ready(logits), self.ready(target)
        self.target = _checked_quality(who, self.target)


class EdgePair(Elements):
    """Logits (…, n + 1) over the bins 0 to n against positions (…,) in [0, n]; beyond, they are clamped to it.

    Weights are (…,), or per row without the last axis of that: one a box for edges (M, 4, n + 1).
    """

    def __init__(
        self,
        reading: PairReading,
        logits: Tensor,
        target: Any,
        *,
        weight: Tensor | None = None,
        denominator: checks.Denominator = None,
    ) -> None:
        who = reading.who
        check_logits(who, logits)
        if logits.shape[-1] < 2:
            raise ValueError(f"{who}: logits must be (…, n + 1) with n >= 1, got {tuple(logits.shape)}")
        _check_target(who, logits, target, logits.shape[:-1])
        super().__init__(reading, logits, target.shape, weight, denominator)
        self.logits, self.target = self.ready(logits), self.ready(target)


def check_logits(who: str, logits: Any) -> None:
    """Floating point, with at least one axis."""
    checks.floating(who, "logits", logits)
    if logits.ndim == 0:
        raise ValueError(f"{who}: logits must have at least one axis, got a single number")


def _check_target(who: str, logits: Tensor, target: Any, shape: torch.Size) -> None:
    checks.real(who, "the target", target, "; call loss(logits, target)")
    if target.shape != shape:
        raise ValueError(f"{who}: logits {tuple(logits.shape)} need a target {tuple(shape)}, got {tuple(target.shape)}")
    checks.together(who, "logits are", logits, "target", target)


def _dense(who: str, logits: Tensor, target: Any, weight: Tensor | None) -> Tensor:
    """(labels, quality) as one quality per class."""
    if len(target) != 2 or not all(isinstance(x, Tensor) for x in target):
        raise TypeError(f"{who}: the target must be a tensor like the logits, or a pair (labels, quality)")
    labels, quality = target
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{who}: labels must be integers, got {labels.dtype}; use labels.long()")
    n_classes, lead = logits.shape[-1], logits.shape[:-1]
    if labels.shape != lead or quality.shape != lead:
        raise ValueError(
            f"{who}: logits {tuple(logits.shape)} need labels and qualities {tuple(lead)}, "
            f"got {tuple(labels.shape)} and {tuple(quality.shape)}"
        )
    labels = labels.long()
    if weight is not None:
        ignored = weight == 0
        labels = labels.masked_fill(ignored if weight.ndim == labels.ndim else ignored.all(-1), n_classes)
    outside = (labels < 0) | (labels > n_classes)
    if can_look(labels) and bool(outside.any()):
        bad = int(labels[outside][0])
        raise ValueError(
            f"{who}: the labels hold {bad}, but with C = {n_classes} they are 0 to {n_classes - 1}, or {n_classes} for "
            "background; a point to be ignored has weight 0"
        )
    wide = computed(logits)
    own = labels.unsqueeze(-1) == indices(n_classes, logits)
    dense = torch.where(own, quality.to(wide).unsqueeze(-1), 0.0)
    return dense if can_look(labels) else dense.masked_fill(outside.unsqueeze(-1), torch.nan)


def _checked_quality(who: str, target: Tensor) -> Tensor:
    """Qualities in [0, 1], with the slack of interpolated ones; elsewhere an error where looking is free, or NaN."""
    outside = (target < -1e-4) | (target > 1 + 1e-4)
    if not can_look(target):
        return target.masked_fill(outside, torch.nan)
    if bool(outside.any()):
        raise ValueError(f"{who}: qualities must lie in [0, 1], got {float(target[outside][0].detach()):g}")
    return target
