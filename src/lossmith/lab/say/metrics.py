"""What a trial is judged by, per class, on whole held-back images. No loss is ever its own judge.

Labelled pixels, in 2-D or 3-D, for the classes from 1 up. `dice` counts the pixels of a case together, then takes the
mean over cases and classes; a case is a patient where the data say who that is, else a volume, else all held-back
images. A class that a case neither holds nor is said to hold gives no number: finding nothing where nothing is earns
nothing. The others are means over the images that hold the class, but the last two, which count images:

| metric | what | both empty | one empty |
|---|---|---|---|
| dice | 2·TP / (2·TP + FP + FN) of a case | none | 0 |
| dice_per_image | the same of an image | 1 | 0 |
| generalised_dice | Dice over all classes, background too, with weights 1 / (pixels of the class)² | 1 | |
| iou | TP / (TP + FP + FN) | 1 | 0 |
| hd95 | 95 % Hausdorff distance in pixels, the larger of the two directions | 0 | the image's diagonal |
| boundary_dice | share of both boundaries that lies within 2 px of the other one | 1 | 0 |
| missed | share of the images that hold the class in which nothing of it was found | | |
| invented | share of the images without the class in which some was found | | |
| calibration_error | mean gap between probability and frequency over 15 bins of the pixels with p > 0.01 | | |

Ignored pixels count nowhere; for the two boundary metrics they are background in both. A voxel is a cube of side 1 px.

Labelled images, for all classes; counted over all held-back images:

| metric | what |
|---|---|
| f1 | 2·TP / (2·TP + FP + FN); none for a class that neither occurs nor is predicted |
| recall | TP / (TP + FN); its mean over classes is also called balanced accuracy |
| precision | TP / (TP + FP); 0 for a class that occurs and is never predicted |
| accuracy | share of right images: says little where one class is most of them |
| kappa | 1 − disagreement / that of chance, weighted by (i − j)²; it means something if the classes are ordered |
| calibration_error | as above, over images |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.metrics.generalized_dice import compute_generalized_dice
from scipy import ndimage  # type: ignore[import-untyped]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MetricSet:
    """The metrics of a kind of data: their titles, the one that ranks first, and what is said of them.

    All are higher where they are better but those in `lower_is_better`, have a value for each class but those in
    `without_classes`, and are written with three digits but those in `digits`.
    """

    titles: dict[str, str]
    ranked_by: str
    without_classes: frozenset[str] = frozenset()
    lower_is_better: frozenset[str] = frozenset()
    digits: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What losses are ranked by."""
        return self.titles[self.ranked_by]


METRICS = {
    "dice": "Dice",
    "dice_per_image": "Dice per image",
    "generalised_dice": "Generalised Dice",
    "iou": "IoU",
    "hd95": "Hausdorff 95 % (px)",
    "boundary_dice": "Boundary Dice, 2 px",
    "missed": "Missed",
    "invented": "Invented",
    "calibration_error": "Calibration error",
}
SEGMENTATION = MetricSet(
    METRICS,
    "dice",
    frozenset({"generalised_dice"}),
    frozenset({"hd95", "missed", "invented", "calibration_error"}),
    {"hd95": 1},
)
CLASSIFICATION = MetricSet(
    {
        "f1": "Macro F1",
        "recall": "Recall",
        "precision": "Precision",
        "accuracy": "Accuracy",
        "kappa": "Quadratic kappa",
        "calibration_error": "Calibration error",
    },
    "f1",
    frozenset({"accuracy", "kappa"}),
    frozenset({"calibration_error"}),
)
_BOUNDARY_TOLERANCE = 2.0
_BINS = 15
_LEAST_PROBABILITY = 0.01


def confusions(label: Array, predicted: Array, classes: int, ignore_index: int) -> Array:
    """Hits, false alarms and misses of one image, (classes − 1, 3), for each class from 1 up."""
    valid = label != ignore_index
    table = np.bincount(label[valid].astype(np.int64) * classes + predicted[valid], minlength=classes**2)
    table = table.reshape(classes, classes)
    hit = table.diagonal()
    return np.stack([hit, table.sum(0) - hit, table.sum(1) - hit], 1)[1:]


def pooled_dice(counts: Array, cases: Sequence[str]) -> Array:
    """Dice of each class, (…, classes − 1), from the `confusions` of images, (images, …, classes − 1, 3).

    The images of a case are counted together, then the mean is over cases. NaN for a class that no case holds: whether
    some pixel is said to be of it would decide between 0 and nothing.
    """
    number = {case: i for i, case in enumerate(dict.fromkeys(cases))}
    pooled = np.zeros((len(number), *counts.shape[1:]))
    np.add.at(pooled, [number[case] for case in cases], counts)
    hit, alarm, miss = np.moveaxis(pooled, -1, 0)
    size = 2 * hit + alarm + miss
    known = np.where((hit + miss).any(0), (size > 0).sum(0), 0)
    return np.asarray((2 * hit / np.where(size, size, 1)).sum(0) / np.where(known, known, np.nan))


def trivial_dice(labels: Iterable[Array], cases: Sequence[str], classes: int, ignore_index: int) -> dict[str, float]:
    """The pooled Dice of finding nothing anywhere, and of finding each class everywhere."""
    found = {"nothing": [], "everything": []}  # type: dict[str, list[Array]]
    for label in labels:
        valid = label[label != ignore_index]
        mine = np.bincount(valid.astype(np.int64), minlength=classes)[1:]
        none = np.zeros_like(mine)
        found["nothing"].append(np.stack([none, none, mine], 1))
        found["everything"].append(np.stack([mine, valid.size - mine, none], 1))
    scores = {name: pooled_dice(np.stack(counts), cases) for name, counts in found.items()}
    return {name: float(np.nanmean(s)) if np.isfinite(s).any() else 0.0 for name, s in scores.items()}


def dice_per_class(label: Array, predicted: Array, classes: int, ignore_index: int) -> list[float]:
    """Dice of one image for each class from 1 up, from two label images `(*S)`."""
    valid = label != ignore_index
    scores = []
    for k in range(1, classes):
        truth, found = (label == k) & valid, (predicted == k) & valid
        size = int(truth.sum()) + int(found.sum())
        scores.append(2 * int((truth & found).sum()) / size if size else 1.0)
    return scores


def score_image(label: Array, predicted: Array, classes: int, ignore_index: int) -> dict[str, list[float]]:
    """Every metric but the calibration error, of one image: a list over the classes from 1 up.

    The generalised Dice score is one number for all classes together.
    """
    valid = label != ignore_index
    truth = np.stack([(label == k) & valid for k in range(classes)])
    found = np.stack([(predicted == k) & valid for k in range(classes)])
    scores = dice_per_class(label, predicted, classes, ignore_index)
    boundaries = [_boundaries(t, p) for t, p in zip(truth[1:], found[1:], strict=True)]
    generalised = compute_generalized_dice(
        torch.from_numpy(found[None]).float(), torch.from_numpy(truth[None]).float(), sum_over_classes=True
    )
    return {
        "dice_per_image": scores,
        "generalised_dice": [float(generalised)],
        "iou": [d / (2 - d) for d in scores],
        "hd95": [distance for distance, _ in boundaries],
        "boundary_dice": [near for _, near in boundaries],
    }


def _boundaries(truth: Array, found: Array) -> tuple[float, float]:
    """(95 % Hausdorff distance, boundary Dice) of two boolean images."""
    if not truth.any() and not found.any():
        return 0.0, 1.0
    if not truth.any() or not found.any():
        return math.hypot(*truth.shape), 0.0
    # Only the part that holds both: everything outside is background in both and has no boundary.
    (part,) = ndimage.find_objects((truth | found).astype(np.uint8))
    edges = [mask[part] & ~ndimage.binary_erosion(mask[part]) for mask in (truth, found)]
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    distances = (away[1][edges[0]], away[0][edges[1]])
    near = sum(int((d <= _BOUNDARY_TOLERANCE).sum()) for d in distances)
    return max(float(np.percentile(d, 95)) for d in distances), near / sum(d.size for d in distances)


class Calibration:
    """Counts over images; `errors()` gives one number per class, None where no pixel has p > 0.01."""

    def __init__(self, classes: int, ignore_index: int) -> None:
        self._ignore_index = ignore_index
        self._sums = np.zeros((classes, 3, _BINS))  # pixels, sum of probabilities, pixels of the class

    def add(self, label: Array, probabilities: Array) -> None:
        """One image: labels `(*S)`, probabilities `(classes, *S)`."""
        valid = label != self._ignore_index
        for k, p in enumerate(probabilities):
            chosen = valid & (p > _LEAST_PROBABILITY)
            values = p[chosen].astype(np.float64)
            bins = np.minimum((values * _BINS).astype(np.int64), _BINS - 1)
            for row, weights in enumerate((None, values, (label[chosen] == k).astype(np.float64))):
                self._sums[k, row] += np.bincount(bins, weights, _BINS)

    def errors(self) -> list[float | None]:
        """The expected calibration error: |Σp − hits| summed over the bins, over all pixels."""
        totals = self._sums[:, 0].sum(1)
        gaps = np.abs(self._sums[:, 1] - self._sums[:, 2]).sum(1)
        return [float(g / n) if n else None for g, n in zip(gaps, totals, strict=True)]


def score_classes(
    label: Array, probabilities: Array
) -> tuple[dict[str, float | None], dict[str, list[float | None]], Array]:
    """Every metric of labelled images, from labels `(n,)` and probabilities `(classes, n)`.

    Returns the overall values, those per class, and the confusion table: a row for each true class, a column for each
    predicted one.
    """
    classes, predicted = len(probabilities), probabilities.argmax(0)
    confusion = np.bincount(label * classes + predicted, minlength=classes**2).reshape(classes, classes)
    hit, true, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    calibration = Calibration(classes, -1)
    calibration.add(label, probabilities)
    per_class = {
        "f1": _ratios(2 * hit, true + found),
        "recall": _ratios(hit, true),
        "precision": _ratios(hit, np.where((found == 0) & (true > 0), 1, found)),
        "calibration_error": calibration.errors(),
    }
    known = {name: [v for v in values if v is not None] for name, values in per_class.items()}
    metrics: dict[str, float | None] = {name: float(np.mean(v)) if v else None for name, v in known.items()}
    metrics["accuracy"] = float(hit.sum() / len(label))
    disagreement = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    by_chance = float((disagreement * np.outer(true, found)).sum()) / len(label)
    metrics["kappa"] = 1 - float((disagreement * confusion).sum()) / by_chance if by_chance else None
    return metrics, per_class, confusion


def _ratios(above: Array, below: Array) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(above, below, strict=True)]
