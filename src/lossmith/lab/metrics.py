"""What a trial is judged by, per class on whole held-back images. No loss is ever its own judge.

| metric | what | both empty | one empty |
|---|---|---|---|
| dice | 2·TP / (2·TP + FP + FN) | 1 | 0 |
| generalised_dice | Dice over all classes, background too, with weights 1 / (pixels of the class)² | 1 | |
| iou | TP / (TP + FP + FN) | 1 | 0 |
| hd95 | 95 % Hausdorff distance in pixels, the larger of the two directions | 0 | the image's diagonal |
| boundary_dice | share of both boundaries that lies within 2 px of the other one | 1 | 0 |
| calibration_error | mean gap between probability and frequency over 15 bins of the pixels with p > 0.01 | | |

Ignored pixels count nowhere; for the two boundary metrics they are background in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.metrics.generalized_dice import compute_generalized_dice
from scipy import ndimage  # type: ignore[import-untyped]

Array = np.ndarray[Any, Any]

METRICS = {
    "dice": "Dice",
    "generalised_dice": "Generalised Dice",
    "iou": "IoU",
    "hd95": "Hausdorff 95 % (px)",
    "boundary_dice": "Boundary Dice, 2 px",
    "calibration_error": "Calibration error",
}
LOWER_IS_BETTER = frozenset({"hd95", "calibration_error"})
_BOUNDARY_TOLERANCE = 2.0
_BINS = 15
_LEAST_PROBABILITY = 0.01


def dice_per_class(label: Array, predicted: Array, classes: int, ignore_index: int) -> list[float]:
    """Dice of one image for each class from 1 up, from two label images `(H, W)`."""
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
        "dice": scores,
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
        return float(np.hypot(*truth.shape)), 0.0
    # Only the part that holds both: everything outside is background in both and has no boundary.
    rows, columns = (np.flatnonzero((truth | found).any(axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    edges = [mask[part] & ~ndimage.binary_erosion(mask[part]) for mask in (truth, found)]
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    distances = (away[1][edges[0]], away[0][edges[1]])
    near = sum(int((d <= _BOUNDARY_TOLERANCE).sum()) for d in distances)
    return max(float(np.percentile(d, 95)) for d in distances), near / sum(d.size for d in distances)


class Calibration:
    """Counts over images; `errors()` gives one number per class from 1 up, None where no pixel has p > 0.01."""

    def __init__(self, classes: int, ignore_index: int) -> None:
        self._ignore_index = ignore_index
        self._sums = np.zeros((classes, 3, _BINS))  # pixels, sum of probabilities, pixels of the class

    def add(self, label: Array, probabilities: Array) -> None:
        """One image: labels `(H, W)`, probabilities `(classes, H, W)`."""
        valid = label != self._ignore_index
        for k, p in enumerate(probabilities):
            chosen = valid & (p > _LEAST_PROBABILITY)
            values = p[chosen].astype(np.float64)
            bins = np.minimum((values * _BINS).astype(np.int64), _BINS - 1)
            for row, weights in enumerate((None, values, (label[chosen] == k).astype(np.float64))):
                self._sums[k, row] += np.bincount(bins, weights, _BINS)

    def errors(self) -> list[float | None]:
        """The expected calibration error: |Σp − hits| summed over the bins, over all pixels."""
        totals = self._sums[1:, 0].sum(1)
        gaps = np.abs(self._sums[1:, 1] - self._sums[1:, 2]).sum(1)
        return [float(g / n) if n else None for g, n in zip(gaps, totals, strict=True)]
