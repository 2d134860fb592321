"""What all slow references share: one pixel's probabilities, which pixels count and how much, and the means.

One idea serves all tasks. A `Row` is a choice between labels: a multiclass pixel chooses between C labels; a binary
pixel, and one channel of a multilabel pixel, chooses between "no" and "yes", whose logits are 0 and z (the softmax of
(0, z) is the sigmoid of z). A row carries the chance r_k of each label: one-hot for a hard target. A `Point` is a row
as one class sees it: inside or outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


def first_largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


# ---- the call contract: which pixels count, and how much -----------------------------------------------------------


@dataclass
class Row:
    image: int
    channel: int
    at: tuple[int, ...]  # position in the map of reduction="none"
    place: tuple[int, ...]  # position in the image
    z: list[float]  # logit of each label
    r: list[float]  # chance of each label in the target
    label: int  # the hard label: the most probable one; of "no" and "yes", "yes" from ½ on
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
                yield Row(n, 0, (n, *s), s, z, r, first_largest(r), *weights)
                continue
            for c in range(channels):
                value = given[0 if labelled else c]
                if value == ignore_index:
                    continue
                if task == "multilabel" and labelled:
                    value = value == c  # one against the rest; label C is none of them
                at = (n, *s) if task == "binary" else (n, c, *s)
                yes = float(value)
                yield Row(n, c, at, s, [0.0, z[c]], [1.0 - yes, yes], int(yes >= 0.5), *weights)


def split_weight(weight, images, space):
    """(N,) weighs the images, (N, *S) the pixels."""
    sample, pixel = np.ones(images), np.ones((images, *space))
    if weight is None:
        return sample, pixel
    weight = np.asarray(weight, dtype=np.float64)
    if weight.ndim == 1:
        return weight, pixel
    return sample, weight.reshape(images, *space)


# ---- one number a pixel --------------------------------------------------------------------------------------------


def pixel_loss(
    logits, target, price: Callable[[Row, list[float]], float], *, task, weight=None, denominator=None,
    ignore_index=-100, class_weight=None, reduction="mean", keep: Callable[[Row], bool] = lambda row: True,
    per_image=True, classes=None, include_background=True, absent="smooth",
):  # fmt: skip
    """Σ w·price / Σ w·cw over the valid rows of the batch which are kept; the last four settings mean nothing here.

    `price(row, cw)` is the row's loss under class weights cw, one per label; it adds w Σ_k r_k cw_k to the denominator.
    """
    images, channels, *space = np.shape(logits)
    total, weights = [], []
    each = np.zeros((images, channels, *space) if task == "multilabel" else (images, *space))
    for row in rows(logits, target, task, weight, ignore_index):
        if not keep(row):
            continue
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


def expected(row: Row, factors: Sequence[float], cost: Callable[[int], float]) -> float:
    """Σ_k r_k · factor_k · cost(k): a soft target costs the mean of its hard labels."""
    return math.fsum(times(r * factor, cost(k)) for k, (r, factor) in enumerate(zip(row.r, factors, strict=True)))


# ---- one number a class --------------------------------------------------------------------------------------------


@dataclass
class Point:
    place: tuple[int, ...]
    w: float
    z: float  # logit of "inside"
    p: float
    not_p: float
    r: float
    inside: bool  # by the target's hard label
    guessed: bool  # by the prediction: p > ½, or the largest of the classes (of equals the first)


def class_points(logits, target, *, task, weight, ignore_index, per_image, both_labels=False):
    """Per group (an image, or the batch): its weight in the mean (0 if nothing in it is valid) and each class's points.

    `both_labels`: a binary pixel has two classes, with probabilities 1 − p and p, instead of one.
    """
    images, channels = np.shape(logits)[:2]
    whole_row = task == "multiclass" or both_labels  # every label of a row is a class
    count = images if per_image else 1
    kinds = 2 if both_labels else channels
    points: list[list[list[Point]]] = [[[] for _ in range(kinds)] for _ in range(count)]
    mean_weight = [0.0] * count
    for row in rows(logits, target, task, weight, ignore_index):
        g = row.image if per_image else 0
        mean_weight[g] = row.sample if per_image else 1.0
        w = row.pixel if per_image else row.pixel * row.sample
        guess = first_largest(row.z)
        for k in range(len(row.z)) if whole_row else [1]:
            _, p, not_p = event(row.z, k)
            point = Point(row.place, w, row.z[k], p, not_p, row.r[k], row.label == k, guess == k)
            points[g][k if whole_row else row.channel].append(point)
    return mean_weight, points


def included(channels, task, classes, include_background) -> list[int]:
    """The classes that count. The background is class 0; a single channel is the foreground."""
    chosen = list(range(channels)) if classes is None else [int(c) for c in classes]
    return [c for c in chosen if include_background or task == "binary" or c != 0]


def reduce_groups(values, mean_weight, reduction):
    total = math.fsum(w * value for w, value in zip(mean_weight, values, strict=True))
    return total if reduction == "sum" else over(total, math.fsum(mean_weight))


def has_label(points: list[Point]) -> bool:
    return any(point.r != 0.0 for point in points)


def class_mean(
    logits, target, value: Callable[[int, list[Point]], float], *, task, weight=None, denominator=None,
    ignore_index=-100, class_weight=None, reduction="mean", both_labels=False, present=has_label,
    per_image=True, classes=None, include_background=True, absent="smooth",
):  # fmt: skip
    """Mean of value(class, its points) over classes, then over images.

    An image without a valid pixel leaves the mean; one without a class is 0. absent="skip" leaves out the classes which
    are not `present`. With `both_labels` a binary image has two classes of equal weight.
    """
    if denominator is not None:
        raise TypeError("a loss of classes takes no denominator")
    both_labels = both_labels and task == "binary"
    mean_weight, points = class_points(
        logits, target, task=task, weight=weight, ignore_index=ignore_index, per_image=per_image,
        both_labels=both_labels,
    )  # fmt: skip
    channels = np.shape(logits)[1]
    chosen = [0, 1] if both_labels else included(channels, task, classes, include_background)
    if class_weight is None or (task == "binary" and not both_labels):
        class_weight = np.ones(max(channels, 2))  # one class: its weight cancels
    values, each = [], np.zeros((len(points), len(chosen)))
    for g, image in enumerate(points):
        part, whole = [], []
        for column, c in enumerate(chosen):
            if mean_weight[g] == 0.0 or (absent == "skip" and not present(image[c])):
                continue
            each[g, column] = value(c, image[c])
            part.append(float(class_weight[c]) * each[g, column])
            whole.append(float(class_weight[c]))
        values.append(over(math.fsum(part), math.fsum(whole)))
    return each if reduction == "none" else reduce_groups(values, mean_weight, reduction)
