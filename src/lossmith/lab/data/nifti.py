"""NIfTI, by nibabel: its header, and its voxels with axes that run right, forward, up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from lossmith.lab.data.header import DEFLATED, Header

Array = np.ndarray[Any, Any]

_COARSE = 0.25  # with a step of half a label, anything could be one


def header(path: Path) -> Header:
    """What the header says."""
    volume: Any = nibabel.load(path)
    upright = nibabel.io_orientation(volume.affine)[:, 0].astype(int)  # type: ignore[no-untyped-call]
    sides = list(volume.shape)
    for axis, size in zip(upright, volume.shape, strict=False):  # further axes stay where they are
        sides[axis] = size
    held = path.stat().st_size * (DEFLATED if path.suffix.lower() == ".gz" else 1)
    return Header(_without_time(tuple(sides)), volume.get_data_dtype(), 3, held)


def read(path: Path) -> Array:
    """The voxels. Scanners store axes in any order and direction."""
    upright = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
    array = np.asarray(upright.dataobj)
    return array.reshape(_without_time(array.shape))


def rounding(path: Path, largest: float) -> float:
    """How far a label can be from its whole number: half a step, where a file stores multiples of a slope."""
    stored: Any = nibabel.load(path)
    if stored.get_data_dtype().kind not in "iu":
        return 0.0
    in_header = np.spacing(np.float32(largest))  # slope and intercept are rounded to float32
    step = float(abs(stored.dataobj.slope) / 2 + in_header)
    return step if step < _COARSE else 0.0


def _without_time(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Vectors and channels are the fifth axis by the standard; with one moment in time it may as well be the fourth."""
    return shape[:3] + shape[4:] if len(shape) == 5 and shape[3] == 1 else shape
