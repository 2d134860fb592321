"""Slow references of the losses that put errors in order: the Lovász extension of the Jaccard error.

A set S of mispredicted pixels costs Δ(S) = |S| / |G ∪ S|, G the foreground, N_f = |G|. With the errors from the largest
on and S_i the first i pixels, L = Σ_i e_(i) (Δ(S_i) − Δ(S_{i−1})). A pixel of weight w counts w times.
"""

from __future__ import annotations

import math

from reference_rows import Point, class_mean, times


def extension(errors: list[tuple[float, Point]]) -> float:
    foreground = math.fsum(point.w for _, point in errors if point.inside)
    terms, before, wrong, false_pos = [], 0.0, [], []
    # NaN first: where it stands does not matter, but an order there must be.
    for error, point in sorted(errors, key=lambda pair: -math.inf if math.isnan(pair[0]) else -pair[0]):
        wrong.append(point.w)
        false_pos.append(0.0 if point.inside else point.w)
        delta = math.fsum(wrong) / (foreground + math.fsum(false_pos))
        terms.append(times(delta - before, error))
        before = delta
    return math.fsum(terms)


def has_foreground(points: list[Point]) -> bool:
    return any(point.inside for point in points)


def lovasz(logits, target, *, per_image=False, absent="skip", bins=4096, exact=False, **call):
    """Lovász-softmax: e = |r − p| of each class (Berman et al. 2018). Always exact: by sorting."""

    def value(c, points):
        return extension([(abs(x.p * (1.0 - x.r) - x.not_p * x.r), x) for x in points])

    return class_mean(logits, target, value, per_image=per_image, absent=absent, present=has_foreground, **call)


def lovasz_hinge(logits, target, *, per_image=True, absent="keep", bins=4096, exact=False, **call):
    """Lovász hinge: the positive parts of e = 1 − z (2r − 1) (Yu & Blaschko 2015; Berman et al. 2018)."""
    if call["task"] == "multiclass":
        raise ValueError("the Lovász hinge takes one logit a class: task binary or multilabel")

    def value(c, points):
        errors = [1.0 - x.z * (2.0 * x.r - 1.0) for x in points]
        return extension([(0.0 if e < 0.0 else e, x) for e, x in zip(errors, points, strict=True)])

    return class_mean(logits, target, value, per_image=per_image, absent=absent, present=has_foreground, **call)
