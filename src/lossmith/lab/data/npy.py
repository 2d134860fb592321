"""NPY, by NumPy: its header, and its numbers. Channels may stand first or last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab.data.header import Header

Array = np.ndarray[Any, Any]

MOST_CHANNELS = 4  # of three axes, one this short holds channels


def header(path: Path) -> Header:
    """What the header says."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
    return Header(tuple(shape[axis] for axis in _order(shape)), dtype, 2, path.stat().st_size)


def read(path: Path) -> Array:
    """The numbers, the channels last."""
    array = np.load(path, allow_pickle=False)
    return np.asarray(array.transpose(_order(array.shape)))


def _order(shape: tuple[int, ...]) -> list[int]:
    """The axes, the channels last; (H, W) for a single channel."""
    if len(shape) != 3:
        return list(range(len(shape)))
    if shape[2] > MOST_CHANNELS and shape[0] <= MOST_CHANNELS:
        return [1, 2, 0]
    return [0, 1, 2]
