"""Slow references of the losses made of a class's sums: I = Σ w p r, P = Σ w p, R = Σ w r and their relatives.

Each is written with misses over hits and misses, which is the printed formula without its cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from reference_rows import Point, class_mean, class_points, included, over, reduce_groups


class Sums:
    """What one class of one image (or of the batch) adds up to, every term times its weight."""

    def __init__(self, points: list[Point]):
        def total(term: Callable[[Point], float]) -> float:
            return math.fsum(point.w * term(point) for point in points)

        self.hit = total(lambda x: x.p * x.r)  # I
        self.false_pos = total(lambda x: x.p * (1.0 - x.r))  # P − I
        self.false_neg = total(lambda x: x.not_p * x.r)  # R − I
        self.reject = total(lambda x: x.not_p * (1.0 - x.r))  # I of the background
        self.miss2 = total(lambda x: (x.p * (1.0 - x.r) - x.not_p * x.r) ** 2)  # (p − r)²
        self.size2 = total(lambda x: x.p * x.p + x.r * x.r)
        self.false_pos2 = total(lambda x: x.p * x.p * (1.0 - x.r))
        self.false_neg2 = total(lambda x: x.not_p * x.not_p * x.r)
        self.label = total(lambda x: x.r)  # R
        self.rest = total(lambda x: 1.0 - x.r)  # N − R

    @property
    def miss(self) -> float:
        return self.false_pos + self.false_neg  # P + R − 2I


def region_loss(logits, target, formula: Callable[[Sums], float], **call):
    return class_mean(logits, target, lambda c, points: formula(Sums(points)), **call)


def dice_of(s: Sums, smooth: float) -> float:
    return over(s.miss, 2.0 * s.hit + s.miss + smooth)


def tversky_of(s: Sums, fp_weight: float, fn_weight: float, smooth: float) -> float:
    miss = fp_weight * s.false_pos + fn_weight * s.false_neg
    return over(miss, s.hit + miss + smooth)


def dice(logits, target, *, squared=False, smooth=1.0, **call):
    """1 − (2I + ε)/(P + R + ε) (Drozdzal et al. 2016); squared: 1 − (2I + ε)/(Σp² + Σr² + ε) (Milletari et al. 2016).

    As misses over all: P + R − 2I = Σ p(1 − r) + (1 − p)r, and Σp² + Σr² − 2I = Σ (p − r)².
    """

    def formula(s):
        return over(s.miss2, s.size2 + smooth) if squared else dice_of(s, smooth)

    return region_loss(logits, target, formula, **call)


def dice2(logits, target, *, smooth=1e-5, balanced=True, **call):
    """1 − (I + ε)/(P + R + ε) − (I_b + ε)/(P_b + R_b + ε), b the background (Sudre et al. 2017). No factor 2.

    Balanced: ε/2 above, so that either fraction is at most ½. A half minus a balanced fraction is half its Dice loss.
    """
    if call["task"] == "multiclass":
        raise ValueError("two-class Dice has two classes: task binary or multilabel")

    def formula(s):
        value = 0.0
        for hit in (s.hit, s.reject):
            size = 2.0 * hit + s.miss + smooth
            value += over(0.5 * s.miss, size) - (0.0 if balanced else over(0.5 * smooth, size))
        return value

    return region_loss(logits, target, formula, **call)


def logcosh_dice(logits, target, *, squared=False, smooth=1.0, **call):
    """ln cosh of the Dice loss (Jadon 2020); cosh L = 1 + 2 sinh²(L/2)."""

    def formula(s):
        value = over(s.miss2, s.size2 + smooth) if squared else dice_of(s, smooth)
        return math.log1p(2.0 * math.sinh(value / 2.0) ** 2)

    return region_loss(logits, target, formula, **call)


def log_dice(logits, target, *, exponent=0.3, smooth=1.0, **call):
    """(−ln D)^γ, D = (2I + ε)/(P + R + ε) (Wong et al. 2018, eq. 2). A binary pixel has two classes, 1 − p and p.

    −ln D = ln(1 + miss/(2I + ε)).
    """
    if call.get("class_weight") is not None:
        raise TypeError("this loss takes no class_weight")

    def formula(s):
        hit = 2.0 * s.hit + smooth
        u = math.log1p(s.miss / hit) if hit else (math.inf if s.miss else 0.0)
        return u**exponent

    return region_loss(logits, target, formula, both_labels=True, **call)


def jaccard(logits, target, *, smooth=1.0, **call):
    """1 − (I + ε)/(P + R − I + ε) (Rahman & Wang 2016), the union being hits, false positives and false negatives."""
    return region_loss(logits, target, lambda s: over(s.miss, s.hit + s.miss + smooth), **call)


def tversky(logits, target, *, fp_weight=0.3, fn_weight=0.7, smooth=1.0, **call):
    """1 − (I + ε)/(I + a·FP + b·FN + ε) (Salehi et al. 2017), a = fp_weight, b = fn_weight."""
    return region_loss(logits, target, lambda s: tversky_of(s, fp_weight, fn_weight, smooth), **call)


def focal_tversky(logits, target, *, fp_weight=0.3, fn_weight=0.7, smooth=1.0, exponent=0.75, **call):
    """(1 − T)^κ per class, κ = exponent (Abraham & Khan 2019, whose γ is 1/κ)."""
    return region_loss(logits, target, lambda s: tversky_of(s, fp_weight, fn_weight, smooth) ** exponent, **call)


def ss(logits, target, *, sensitivity=0.05, smooth=1e-5, **call):
    """λ Σ r (r − p)²/(R + ε) + (1 − λ) Σ (1 − r)(r − p)²/(N − R + ε), λ = sensitivity (Brosch et al. 2015).

    A soft label is the mean of its hard ones: r (1 − p)² and (1 − r) p².
    """

    def formula(s):
        positives, negatives = over(s.false_neg2, s.label + smooth), over(s.false_pos2, s.rest + smooth)
        return sensitivity * positives + (1.0 - sensitivity) * negatives

    return region_loss(logits, target, formula, **call)


def gdl(
    logits, target, *, task, weight=None, denominator=None, weighting="square", absent="max",
    ignore_index=-100, reduction="mean", per_image=True, classes=None, include_background=True,
):  # fmt: skip
    """1 − 2 Σ_l w_l I_l / Σ_l w_l (P_l + R_l), one ratio for all classes, w_l = 1/R_l² (Sudre et al. 2017).

    weighting "simple": 1/R_l; "uniform": 1. A class which is absent (R_l = 0) has no finite weight: "max" gives it the
    largest of the others (1 if there are no others), "skip" leaves it out. A binary pixel has two classes, 1 − p
    and p.
    """
    if denominator is not None:
        raise TypeError("a region loss takes no denominator")
    binary = task == "binary"
    mean_weight, points = class_points(
        logits, target, task=task, weight=weight, ignore_index=ignore_index, per_image=per_image, both_labels=binary
    )
    chosen = [0, 1] if binary else included(np.shape(logits)[1], task, classes, include_background)
    power = {"square": 2, "simple": 1, "uniform": 0}[weighting]
    values = []
    for image in [[Sums(part) for part in group] for group in points]:
        present = [c for c in chosen if image[c].label > 0.0]
        counted = present if absent == "skip" else chosen
        smallest = min((image[c].label for c in present), default=0.0)
        part, whole = [], []
        for c in counted:
            s = image[c]
            # (1/R)^power, times a constant (the smallest R)^power, which the ratio does not see; the largest is then 1.
            w = (smallest / s.label) ** power if s.label > 0.0 else 1.0
            part.append(w * s.miss)
            whole.append(w * (2.0 * s.hit + s.miss))
        values.append(over(math.fsum(part), math.fsum(whole)))
    return np.array(values) if reduction == "none" else reduce_groups(values, mean_weight, reduction)
