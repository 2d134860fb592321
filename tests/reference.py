"""Slow references: every loss written from its paper's formula, one image, pixel and class at a time, in float64.

They share nothing with the library: no torch, no vector arithmetic, no derivative. Each is called as
``reference(logits, target, task=..., weight=None, denominator=None, **settings)`` with numpy arrays: logits (N, C, *S),
the target as the call contract has it, and the settings of the loss and the shared ones under their public names.

One idea serves all tasks. A `Row` is a choice between labels: a multiclass pixel chooses between C labels; a binary
pixel, and one channel of a multilabel pixel, chooses between "no" and "yes", whose logits are 0 and z (the softmax of
(0, z) is the sigmoid of z). A row carries the chance r_k of each label: one-hot for a hard target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

# ---- one pixel ----------------------------------------------------------------------------------------------------


def event(z: Sequence[float], k: int) -> tuple[float, float, float]:
    """Label k of one pixel: u = −ln p_k, p_k and 1 − p_k, each exact at both ends.

    With a = ln Σ_{j≠k} exp(z_j − z_k): p_k = 1/(1 + e^a), 1 − p_k = 1/(1 + e^−a), u = ln(1 + e^a).
    """
    if any(math.isnan(value) for value in z):
        return math.nan, math.nan, math.nan
    gaps = [z[j] - z[k] for j in range(len(z)) if j != k and z[j] != -math.inf]  # a logit of −inf has probability 0
    top = max(gaps, default=-math.inf)
    a = top if math.isinf(top) else top + math.log(math.fsum(math.exp(gap - top) for gap in gaps))
    return max(a, 0.0) + math.log1p(math.exp(-abs(a))), sigmoid(-a), sigmoid(a)


def sigmoid(a: float) -> float:
    return 1.0 / (1.0 + math.exp(-a)) if a >= 0.0 else math.exp(a) / (1.0 + math.exp(a))


def times(factor: float, value: float) -> float:
    """factor · value with 0 · ∞ = 0: a label without a chance costs nothing, however improbable it is."""
    return 0.0 if factor == 0.0 and math.isinf(value) else factor * value


def over(part: float, whole: float) -> float:
    """part / whole with 0/0 = 0; where a caller's denominator is 0 (no positives) the part itself."""
    return part if whole == 0.0 else part / whole


# ---- the call contract: which pixels count, and how much -----------------------------------------------------------


@dataclass
class Row:
    image: int
    channel: int
    at: tuple[int, ...]  # position in the map of reduction="none"
    z: list[float]  # logit of each label
    r: list[float]  # chance of each label in the target
    sample: float  # weight of the image
    pixel: float  # weight of the pixel


def rows(logits, target, task, weight=None, ignore_index=-100) -> Iterator[Row]:
    """The valid rows: neither ignored nor of weight 0."""
    logits, target = np.asarray(logits, dtype=np.float64), np.asarray(target)
    images, channels, *space = logits.shape
    if target.ndim == logits.ndim and target.shape[1] == 1:
        target = target[:, 0]  # (N, 1, *S) is (N, *S)
    labelled = target.ndim < logits.ndim  # one number a pixel
    sample, pixel = split_weight(weight, images, tuple(space))
    for n in range(images):
        for s in np.ndindex(*space):
            if sample[n] == 0.0 or pixel[(n, *s)] == 0.0:
                continue
            z = [float(logits[(n, c, *s)]) for c in range(channels)]
            weights = float(sample[n]), float(pixel[(n, *s)])
            given = [target[(n, *s)].item()] if labelled else [target[(n, c, *s)].item() for c in range(channels)]
            if task == "multiclass":
                if any(value == ignore_index for value in given):
                    continue
                r = [float(k == given[0]) for k in range(channels)] if labelled else [float(value) for value in given]
                yield Row(n, 0, (n, *s), z, r, *weights)
                continue
            for c in range(channels):
                value = given[0 if labelled else c]
                if value == ignore_index:
                    continue
                if task == "multilabel" and labelled:
                    value = value == c  # one against the rest; label C is none of them
                at = (n, *s) if task == "binary" else (n, c, *s)
                yield Row(n, c, at, [0.0, z[c]], [1.0 - float(value), float(value)], *weights)


def split_weight(weight, images, space):
    """(N,) weighs the images, (N, *S) the pixels."""
    sample, pixel = np.ones(images), np.ones((images, *space))
    if weight is None:
        return sample, pixel
    weight = np.asarray(weight, dtype=np.float64)
    if weight.ndim == 1:
        return weight, pixel
    return sample, weight.reshape(images, *space)


# ---- pixel losses --------------------------------------------------------------------------------------------------


def pixel_loss(
    logits, target, price: Callable[[Row, list[float]], float], *, task, weight=None, denominator=None,
    ignore_index=-100, class_weight=None, reduction="mean",
    per_image=True, classes=None, include_background=True, absent="smooth",
):  # fmt: skip
    """Σ w·price / Σ w·cw over the valid rows of the batch; the last four settings mean nothing here.

    `price(row, cw)` is the row's loss under class weights cw, one per label; it adds w Σ_k r_k cw_k to the denominator.
    """
    images, channels, *space = np.shape(logits)
    total, weights = [], []
    each = np.zeros((images, channels, *space) if task == "multilabel" else (images, *space))
    for row in rows(logits, target, task, weight, ignore_index):
        cw = label_weights(row, class_weight, task)
        w = row.sample * row.pixel
        each[row.at] = w * price(row, cw)
        total.append(each[row.at])
        weights.append(w * math.fsum(r * c for r, c in zip(row.r, cw, strict=True)))
    if reduction == "none":
        return each
    if reduction == "sum":
        return math.fsum(total)
    return over(math.fsum(total), math.fsum(weights) if denominator is None else float(denominator))


def label_weights(row: Row, class_weight, task) -> list[float]:
    """multiclass: by label; binary: (negative, positive); multilabel: by channel, the same for "no" and "yes"."""
    if class_weight is None:
        return [1.0] * len(row.r)
    if task == "multilabel":
        return [float(class_weight[row.channel])] * 2
    return [float(value) for value in class_weight]


def ce(logits, target, *, label_smoothing=0.0, **call):
    """Cross-entropy, Σ_k r_k cw_k u_k, u_k = −ln p_k (Shannon 1948); smoothing of Szegedy et al. 2016.

    A smoothed label t costs (1 − ε) cw_t u_t + ε/L Σ_k cw_k u_k over the L labels (L = 2 for a sigmoid, which is
    y(1 − ε) + ε/2); what it adds to the denominator is cw_t still.
    """

    def price(row, cw):
        u = [event(row.z, k)[0] for k in range(len(row.z))]
        cost = [times(c, u_k) for c, u_k in zip(cw, u, strict=True)]
        spread = math.fsum(cost) / len(cost) if label_smoothing else 0.0
        return math.fsum(
            times(r, (1.0 - label_smoothing) * c + label_smoothing * spread) for r, c in zip(row.r, cost, strict=True)
        )

    return pixel_loss(logits, target, price, **call)


def focal(logits, target, *, gamma=2.0, alpha=None, **call):
    """Focal loss, Σ_k r_k cw_k α_k (1 − p_k)^γ u_k (Lin et al. 2017, eq. 5). α stays out of the denominator.

    α: (C,) for multiclass; otherwise a number, α for "yes" and 1 − α for "no".
    """

    def price(row, cw):
        factors = [1.0] * len(row.z)
        if alpha is not None:
            factors = [float(a) for a in alpha] if call["task"] == "multiclass" else [1.0 - alpha, float(alpha)]
        costs = []
        for k, r in enumerate(row.r):
            u, _, miss = event(row.z, k)
            costs.append(times(r * cw[k] * factors[k], miss**gamma * u))
        return math.fsum(costs)

    return pixel_loss(logits, target, price, **call)


# ---- region losses -------------------------------------------------------------------------------------------------


@dataclass
class Sums:
    """What one class of one image (or of the batch) adds up to, every term times its weight."""

    hit: list[float] = field(default_factory=list)  # I: p·r
    false_pos: list[float] = field(default_factory=list)  # P − I: p·(1 − r)
    false_neg: list[float] = field(default_factory=list)  # R − I: (1 − p)·r
    miss2: list[float] = field(default_factory=list)  # (p − r)²
    size2: list[float] = field(default_factory=list)  # p² + r²
    label: list[float] = field(default_factory=list)  # R: r

    def add(self, w, p, not_p, r):
        self.hit.append(w * p * r)
        self.false_pos.append(w * p * (1.0 - r))
        self.false_neg.append(w * not_p * r)
        self.miss2.append(w * (p * (1.0 - r) - not_p * r) ** 2)
        self.size2.append(w * (p * p + r * r))
        self.label.append(w * r)

    def __getitem__(self, name) -> float:
        return math.fsum(getattr(self, name))


def groups(logits, target, *, task, weight, ignore_index, per_image, both_labels=False):
    """Per group (an image, or the batch): its weight in the mean (0 if nothing in it is valid) and each class's sums.

    `both_labels`: a binary pixel has two classes, with probabilities 1 − p and p, instead of one.
    """
    images, channels = np.shape(logits)[:2]
    whole_row = task == "multiclass" or both_labels  # every label of a row is a class
    count = images if per_image else 1
    kinds = 2 if both_labels else channels
    sums = [[Sums() for _ in range(kinds)] for _ in range(count)]
    mean_weight = [0.0] * count
    for row in rows(logits, target, task, weight, ignore_index):
        g = row.image if per_image else 0
        mean_weight[g] = row.sample if per_image else 1.0
        w = row.pixel if per_image else row.pixel * row.sample
        for k in range(len(row.z)) if whole_row else [1]:
            _, p, not_p = event(row.z, k)
            sums[g][k if whole_row else row.channel].add(w, p, not_p, row.r[k])
    return mean_weight, sums


def included(channels, task, classes, include_background) -> list[int]:
    """The classes that count. There is a background, class 0, only in multiclass."""
    chosen = list(range(channels)) if classes is None else [int(c) for c in classes]
    return [c for c in chosen if include_background or task != "multiclass" or c != 0]


def reduce_groups(values, mean_weight, reduction):
    total = math.fsum(w * value for w, value in zip(mean_weight, values, strict=True))
    return total if reduction == "sum" else over(total, math.fsum(mean_weight))


def region_loss(
    logits, target, class_loss: Callable[[Sums], float], *, task, weight=None, denominator=None,
    ignore_index=-100, class_weight=None, reduction="mean",
    per_image=True, classes=None, include_background=True, absent="smooth",
):  # fmt: skip
    """Mean over classes, then over images. An image without a valid pixel leaves the mean; one without a class is 0."""
    if denominator is not None:
        raise TypeError("a region loss takes no denominator")
    mean_weight, sums = groups(logits, target, task=task, weight=weight, ignore_index=ignore_index, per_image=per_image)
    chosen = included(np.shape(logits)[1], task, classes, include_background)
    if class_weight is None or task == "binary":
        class_weight = np.ones(np.shape(logits)[1])  # one class: its weight cancels
    values, each = [], np.zeros((len(sums), len(chosen)))
    for g, image in enumerate(sums):
        part, whole = [], []
        for column, c in enumerate(chosen):
            if mean_weight[g] == 0.0 or (absent == "skip" and image[c]["label"] == 0.0):
                continue
            each[g, column] = class_loss(image[c])
            part.append(float(class_weight[c]) * each[g, column])
            whole.append(float(class_weight[c]))
        values.append(over(math.fsum(part), math.fsum(whole)))
    return each if reduction == "none" else reduce_groups(values, mean_weight, reduction)


def dice(logits, target, *, squared=False, smooth=1.0, **call):
    """1 − (2I + ε)/(P + R + ε) (Drozdzal et al. 2016); squared: 1 − (2I + ε)/(Σp² + Σr² + ε) (Milletari et al. 2016).

    As misses over all: P + R − 2I = Σ p(1 − r) + (1 − p)r, and Σp² + Σr² − 2I = Σ (p − r)².
    """

    def linear(s):
        miss = s["false_pos"] + s["false_neg"]
        return over(miss, 2.0 * s["hit"] + miss + smooth)

    def square(s):
        return over(s["miss2"], s["size2"] + smooth)

    return region_loss(logits, target, square if squared else linear, **call)


def jaccard(logits, target, *, smooth=1.0, **call):
    """1 − (I + ε)/(P + R − I + ε) (Rahman & Wang 2016), the union being hits, false positives and false negatives."""

    def class_loss(s):
        miss = s["false_pos"] + s["false_neg"]
        return over(miss, s["hit"] + miss + smooth)

    return region_loss(logits, target, class_loss, **call)


def tversky(logits, target, *, fp_weight=0.3, fn_weight=0.7, smooth=1.0, **call):
    """1 − (I + ε)/(I + a·FP + b·FN + ε) (Salehi et al. 2017), a = fp_weight, b = fn_weight."""

    def class_loss(s):
        miss = fp_weight * s["false_pos"] + fn_weight * s["false_neg"]
        return over(miss, s["hit"] + miss + smooth)

    return region_loss(logits, target, class_loss, **call)


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
    mean_weight, sums = groups(
        logits, target, task=task, weight=weight, ignore_index=ignore_index, per_image=per_image, both_labels=binary
    )
    chosen = [0, 1] if binary else included(np.shape(logits)[1], task, classes, include_background)
    power = {"square": 2, "simple": 1, "uniform": 0}[weighting]
    values = []
    for image in sums:
        present = [c for c in chosen if image[c]["label"] > 0.0]
        counted = present if absent == "skip" else chosen
        smallest = min((image[c]["label"] for c in present), default=0.0)
        part, whole = [], []
        for c in counted:
            s = image[c]
            # (1/R)^power, times a constant (the smallest R)^power, which the ratio does not see; the largest is then 1.
            w = (smallest / s["label"]) ** power if s["label"] > 0.0 else 1.0
            miss = s["false_pos"] + s["false_neg"]
            part.append(w * miss)
            whole.append(w * (2.0 * s["hit"] + miss))
        values.append(over(math.fsum(part), math.fsum(whole)))
    return np.array(values) if reduction == "none" else reduce_groups(values, mean_weight, reduction)


REFERENCES: dict[str, Callable] = {
    "ce": ce,
    "focal": focal,
    "dice": dice,
    "jaccard": jaccard,
    "tversky": tversky,
    "gdl": gdl,
}
