"""Which classes touch: counted over label maps, for the non-adjacency loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from .weighting import each_image

Array = np.ndarray[Any, Any]


def forbidden_pairs(data: Iterable[Any], num_classes: int, window: int, ignore_index: int) -> Array:
    """1 for every two classes that occur but never within one window of each other, float64, (C, C)."""
    who = "NonAdjacencyLoss.from_labels"
    if num_classes < 1:
        raise ValueError(f"{who}: num_classes must be at least 1, got {num_classes}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"{who}: window must be an odd number >= 1, got {window}")
    n_labels = max(num_classes, 2)  # one channel has the classes no and yes
    touch = np.eye(n_labels, dtype=bool)
    seen = np.zeros(n_labels, bool)
    for number, labels in enumerate(each_image(who, data)):
        valid = labels != ignore_index
        strange = labels[valid & ((labels < 0) | (labels >= n_labels))]
        if strange.size:
            raise ValueError(
                f"{who}: image {number} holds {strange[0]}, but with num_classes={num_classes} labels must lie in 0 to "
                f"{n_labels - 1} (ignore_index is {ignore_index}); is {strange[0]} an ignore_index?"
            )
        labels = np.where(valid, labels, n_labels).astype(np.intp)  # ignored: one label more
        found = _pairs(labels, n_labels + 1, window // 2)[:n_labels, :n_labels]
        touch |= found | found.T
        seen |= np.bincount(labels.ravel(), minlength=n_labels + 1)[:n_labels] > 0
    if not seen.any():
        raise ValueError(f"{who}: no labels were given, or all were ignored")
    return (~touch & seen[:, None] & seen).astype(np.float64)


def _pairs(labels: Array, n_labels: int, reach: int) -> Array:
    """Which labels (a, b) have b within `reach` pixels of a along each axis, on one side of a."""
    found = np.zeros(n_labels * n_labels, np.int64)
    for step in itertools.product(range(-reach, reach + 1), repeat=labels.ndim):
        if step > (0,) * labels.ndim:  # the other side finds the same pairs, turned round
            sides = [
                (slice(max(0, -d), max(0, n - d)), slice(max(0, d), max(0, n + d)))
                for d, n in zip(step, labels.shape, strict=True)
            ]
            here, there = (labels[tuple(side)] for side in zip(*sides, strict=True))
            found += np.bincount((here * n_labels + there).ravel(), minlength=found.size)
    return found.reshape(n_labels, n_labels) > 0
