"""Overlaps with what our catalogue has not and peers have: a second smoothing, and hits as the smaller of p and r."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import NonNegative
from ..engine.contract import Sums, Want
from ..engine.images import pooled
from ..inputs.batch import Batch
from ..losses.region import DiceLoss, GeneralizedDiceLoss, RegionLoss, missed


class SmoothedLoss(RegionLoss, part="overlap"):
    """An overlap with ε above and ε' below the line.

    With `minimum`, a hit is min(p, r) and a miss |p − r|, so that a soft target is best met by p = r; of hard labels
    that is p r and p (1 − r) + r (1 − p), as ever.
    """

    splits = frozenset({"images", "space"})
    smooth: NonNegative = 0.0
    smooth_below: NonNegative = 0.0
    minimum: bool = False

    def groups(self, batch: Batch) -> Any:
        if not self.minimum:
            return super().groups(batch)
        apart = batch.field - batch.problem.labels.target.to(batch.field)
        apart = apart if batch.mass is None else apart * batch.mass
        over, under = (batch.over_pixels(x.clamp(min=0)) for x in (apart, -apart))
        if not self.per_image:
            over, under = (pooled(batch.images.weighed(x)) for x in (over, under))
        return batch.grouped(self.per_image, over=over, under=under)

    def errors(self, s: Sums) -> tuple[Tensor, Tensor]:
        """False positives and false negatives."""
        return (s.over, s.under) if self.minimum else (s.fp, s.fn)

    def smoothed(self, miss: Tensor, hit: Tensor, times: int) -> Tensor:
        """1 − (n hit + ε) / (n hit + miss + ε')."""
        return missed(miss + (self.smooth_below - self.smooth), hit, self.smooth, times)

    def wants(self) -> Want:
        return Want(labels=True, errors=not self.minimum)


class SmoothedOverlap(SmoothedLoss, part="overlap"):
    """1 − (n TP + ε) / (n TP + a FP + b FN + ε') per class: Dice with n = 2, Jaccard and Tversky with n = 1.

    `squared`: p² and r² below the line instead of p and r.
    """

    splits = frozenset({"images", "space"})
    hits: int = 1
    fp_weight: NonNegative = 1.0
    fn_weight: NonNegative = 1.0
    squared: bool = False

    def wants(self) -> Want:
        return Want(errors=True, squares=True) if self.squared else super().wants()

    def formula(self, s: Sums) -> Tensor:
        if self.squared:
            return self.smoothed(s.squared_error, s.tp, self.hits)
        fp, fn = self.errors(s)
        return self.smoothed(self.fp_weight * fp + self.fn_weight * fn, s.t - fn, self.hits)


def overlap(
    ours: Callable[..., RegionLoss], above: float, below: float, minimum: bool, settings: dict[str, Any]
) -> RegionLoss:
    """Dice, Jaccard or Tversky: ours where it has a setting for it, else the same with what it lacks."""
    if above == below and not minimum:
        return ours(smooth=above, **settings)
    hits = 2 if ours is DiceLoss else 1
    return SmoothedOverlap(hits=hits, smooth=above, smooth_below=below, minimum=minimum, **settings)


class SmoothedGeneralizedDice(SmoothedLoss, part="gdl"):
    """1 − (2 Σ_c w_c TP_c + ε) / (Σ_c w_c (P_c + R_c) + ε'), w_c = 1 / R_c^k. An absent class has the largest w of the
    others, or 0 where all are absent."""

    splits = frozenset({"images", "space"})
    without: ClassVar[dict[str, str]] = GeneralizedDiceLoss.without
    power: int = 2

    def formula(self, s: Sums) -> Tensor:
        fp, fn = self.errors(s)
        w = torch.where(s.t > 0, s.t, torch.inf) ** -self.power
        w = torch.where(s.t > 0, w, w.amax(1, keepdim=True)) if self.power else torch.ones_like(s.t)
        return self.smoothed((w * (fp + fn)).sum(1), (w * (s.t - fn)).sum(1), 2)
