"""What a file's header says of its pixels, and whether that can be true."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lossmith.lab.data.faults import Faulty

Array = np.ndarray[Any, Any]

DEFLATED = 1032  # bytes that one byte of a ZIP stream becomes at most: of PNG, .nii.gz
_MOST_NUMBERS = 2**33
_NUMBERS = "buif"  # NumPy's kinds: bool, unsigned, signed, float


class Header(NamedTuple):
    """The pixels of a file: (H, W) or (H, W, channels) of 2 dimensions, (X, Y, Z) or (X, Y, Z, channels) of 3."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dimensions: int
    held: int  # bytes of pixels that the file has room for


def check(path: Path, header: Header) -> None:
    """Raises `Faulty` for a header that cannot be true, or is of no image."""
    if header.dtype.kind not in _NUMBERS:
        raise Faulty(path, f"holds {header.dtype}, not numbers")
    if 0 in header.shape:
        raise Faulty(path, f"is empty, shape {header.shape}")
    numbers, most = math.prod(header.shape), header.held // header.dtype.itemsize
    if min(header.shape) < 0 or numbers > min(_MOST_NUMBERS, most):
        limit = f"the file has room for {most}" if most < numbers else "the most is 2 ** 33"
        raise Faulty(path, f"its header promises {numbers} numbers, {limit}", "Damaged? Save or copy it again")


def upright(array: Array, orientation: int) -> Array:
    """(H, W) or (H, W, channels), turned as the orientation tag (1 to 8 of EXIF and TIFF) says it is to be seen."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def upright_shape(shape: tuple[int, ...], orientation: int) -> tuple[int, ...]:
    """The shape of what `upright` gives."""
    return (shape[1], shape[0], *shape[2:]) if orientation >= 5 else shape
