"""Class numbers out of the pixels of a mask, or what is wrong with them. No fix that is named makes a label 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab.data.faults import Faulty

Array = np.ndarray[Any, Any]

_FEW = 32  # values: more are probabilities rather than classes
_NEAR = 16  # JPEG moves grey values by less, but at edges
_HALO = 2  # values near one that is meant, which JPEG makes of it
_DISTINCT = 5  # labels, at least
_RARER = 8  # times, than what it is the halo of


def as_labels(path: Path, array: Array, ignore_index: int, rounding: float = 0.0) -> Array:
    """Labels as int32. Floats are read if they are whole numbers, as many tools save them, but for a `rounding`."""
    if array.dtype.kind == "f":
        array = _whole_numbers(path, array, ignore_index, rounding)
    most = np.iinfo(np.int32)
    low, high = array.min().item(), array.max().item()
    for value in (low, high):
        if not most.min <= value <= most.max:
            what = f"holds the label {value}, more than class numbers are"
            raise Faulty(path, what, "Object numbers? Then save 1 for all (numpy: (mask != 0).astype(numpy.uint8))")
    array = array.astype(np.int32)
    if low < 0:
        _check_negative(path, array, ignore_index)
    elif _NEAR < high < 256 and _went_through_jpeg(array):
        counts = np.bincount(array.ravel(), minlength=256)
        two = counts[[*range(_NEAR), *range(high - _NEAR + 1, high + 1)]].sum() > 0.9 * array.size
        fix = "save it as PNG from the source"
        fix += f", or if there are but two classes: (mask > {high // 2}).astype(numpy.uint8)" if two else ""
        raise Faulty(path, "holds grey values around its labels: it went through JPEG", fix)
    return array


def _check_negative(path: Path, array: Array, ignore_index: int) -> None:
    wrong = np.unique(array[(array < 0) & (array != ignore_index)])
    if wrong.size:
        hint = f"to ignore it: --ignore-index {wrong[0]}"
        if wrong.size > 1 or (array == ignore_index).any():
            hint = f"to ignore all below: numpy.where(mask < 0, {ignore_index}, mask)"
        raise Faulty(path, f"holds the label {wrong[0]}", f"labels start at 0 ({hint})")


def grey(path: Path, array: Array) -> Array:
    """One of three equal channels, (H, W); a fourth is transparency. Raises `Faulty` for colours."""
    first = array[..., 0]
    if all(np.array_equal(first, array[..., k]) for k in (1, 2)):
        return first
    raise Faulty(path, "holds colours, no labels", "save class numbers as one grey (H, W) image")


def _whole_numbers(path: Path, array: Array, ignore_index: int, rounding: float) -> Array:
    """The whole numbers that floats are, or that a NIfTI file's slope has rounded."""
    finite = np.isfinite(array)
    if not finite.all():
        raise Faulty(
            path,
            f"holds {array[~finite][0]}, no label",
            "if those pixels are unlabelled, save what is ignored there "
            f"(numpy: numpy.where(numpy.isfinite(mask), mask, {ignore_index}))",
        )
    whole = np.rint(array)
    away = np.abs(array - whole)
    if not away.any() or away.max() <= rounding:
        return whole
    raise Faulty(path, f"holds {array.flat[away.argmax()]}", f"labels are whole numbers. {_how_to_mend(array)}")


def _how_to_mend(array: Array) -> str:
    """What to do with floats that are no labels."""
    values = np.unique(array)
    fraction = bool(values[0] >= 0 and values[-1] <= 1)
    if fraction and values.size <= _FEW and np.allclose(255 * values, np.rint(255 * values), rtol=0, atol=1e-3):
        return "Class numbers divided by 255? numpy: numpy.rint(255 * mask).astype(numpy.uint8)"
    if fraction and values[-1] > 0.5:
        return "Probabilities? Threshold them (numpy: (mask > 0.5).astype(numpy.uint8))"
    return "Interpolated? Resample the labels with nearest neighbours (scipy: scipy.ndimage.zoom(labels, 0.5, order=0))"


def _went_through_jpeg(array: Array) -> bool:
    """Whether at least two labels far apart have a halo of rare values close to them, which are scattered.

    Numbers of objects also fill a range, but each is an area of its own; numbers of points have no label far above
    that is common; and classes beside 255 leave the values just below that alone.
    """
    counts = np.bincount(array.ravel(), minlength=256)
    if np.count_nonzero(counts) < _DISTINCT:
        return False
    meant = [v for v in counts.nonzero()[0].tolist() if counts[v] == counts[max(0, v - _NEAR) : v + _NEAR + 1].max()]
    with_halo = []
    for value in meant:
        near = np.delete(counts[max(0, value - _NEAR) : value + _NEAR + 1], min(value, _NEAR))
        if np.count_nonzero(near) >= _HALO and counts[value] > _RARER * near[near > 0].mean():
            with_halo.append(value)
    if len(with_halo) < 2:
        return False
    rare = ~np.isin(array, meant)[..., :-1]
    alone = array[..., :-1] != array[..., 1:]
    return bool(2 * (rare & alone).sum() > rare.sum())
