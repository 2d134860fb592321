"""What is measured of one image with boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossmith.lab.audit.pixels import Measured, digest_of, grey_of
from lossmith.lab.data.faults import Faulty
from lossmith.lab.data.files import read_stored
from lossmith.lab.data.scenes import TILE, clip_boxes
from lossmith.lab.run.detector import STRIDE, assign

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SceneJob:
    """One image to measure, its boxes (M, 4) as x1, y1, x2, y2, and which of them are ignored (M,)."""

    stem: str
    part: str
    image: Path
    boxes: Array
    ignore: Array


@dataclass
class MeasuredScene(Measured):
    """And what its boxes say."""

    sides: Array = field(default_factory=lambda: np.zeros((0, 2)))  # width and height of each box
    ignored: int = 0
    points: int = 0  # of the detector's grid, and how many of them are to find a box
    positive: int = 0


def measure_scene(job: SceneJob) -> MeasuredScene:
    """Everything that one image and its boxes say."""
    kept = job.boxes[~job.ignore]
    found = MeasuredScene(job.stem, job.part, sides=kept[:, 2:] - kept[:, :2], ignored=int(job.ignore.sum()))
    try:
        raw = read_stored(job.image)
    except Faulty as error:
        found.faults.append(error.fault)
        return found
    found.shape, found.dtype, found.digest = raw.shape, str(raw.dtype), digest_of(raw)
    found.grey = [grey_of(channel) for channel in raw]
    height, width = raw.shape[1:]
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            window = (x, y, min(x + TILE, width), min(y + TILE, height))
            boxes, ignore = clip_boxes(job.boxes, job.ignore, window)
            rows, columns = (-(-(window[3] - y) // STRIDE), -(-(window[2] - x) // STRIDE))
            target = assign(torch.from_numpy(boxes / STRIDE).float(), torch.from_numpy(ignore), rows, columns)
            found.points += int((target[0] >= 0).sum())
            found.positive += int((target[0] == 1).sum())
    return found
