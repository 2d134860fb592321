"""TIFF, by tifffile: its header, and its pixels as they are to be seen. Several pages are a volume, or channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lossmith.lab.data.faults import Faulty
from lossmith.lab.data.header import Header, upright, upright_shape

Array = np.ndarray[Any, Any]

_JPEG = (6, 7, 34892)  # what the tag for compression says
_RAW = 1
_PACKED = 2**20  # bytes that one byte becomes at most: no bound that matters, but of the header
_ORIENTATION, _NODATA = 274, 42113
_PAGES = {"volume": "Z", "channels": "C"}


def header(path: Path, labels: bool, pages: str | None) -> Header:
    """What the header says. Raises `Faulty` for labels behind JPEG, and for pages that may be this or that."""
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if labels and file.pages.first.compression in _JPEG:
            raise Faulty(path, "is compressed by JPEG, which changes labels", "save it as PNG from the source")
        sizes = dict(zip(series.axes, series.shape, strict=True))
        order = _order(path, series.axes, series.shape, pages)
        shape = tuple(sizes[axis] for axis in order)
        dimensions = 3 if order[0] == "X" else 2
        if dimensions == 2:
            shape = upright_shape(shape, _tag(file, _ORIENTATION, 1))
        held = path.stat().st_size * (1 if file.pages.first.compression == _RAW else _PACKED)
        return Header(shape, series.dtype, dimensions, 8 * held)  # pixels of one bit take a byte each when read


def read(path: Path, pages: str | None) -> Array:
    """The pixels, turned as the orientation tag says; a volume as (X, Y, Z)."""
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        order = _order(path, series.axes, series.shape, pages)
        array = series.asarray()
        turned = _tag(file, _ORIENTATION, 1)
    left = [axis for axis in series.axes if axis in order]
    flat = array.reshape([n for axis, n in zip(series.axes, array.shape, strict=True) if axis in order])
    array = flat.transpose([left.index(axis) for axis in order])
    return upright(array, turned) if order[0] == "Y" else array


def orientation(path: Path) -> int:
    """1 to 8, of the orientation tag; 1 for upright."""
    with tifffile.TiffFile(path) as file:
        return _tag(file, _ORIENTATION, 1)


def nodata(path: Path) -> float | None:
    """The value that GDAL's tag says stands for no measurement."""
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags.get(_NODATA)
    try:
        return None if tag is None else float(str(tag.value).strip("\x00 "))
    except ValueError:
        return None


def _tag(file: Any, code: int, default: int) -> int:
    tag = file.pages.first.tags.get(code)
    return default if tag is None or int(tag.value) not in range(1, 9) else int(tag.value)


def _order(path: Path, axes: str, shape: tuple[int, ...], pages: str | None) -> str:
    """The axes of the file, in the order of `Header`: YX, or XYZ, and then the channels'."""
    kept = {axis: axis for axis, n in zip(axes, shape, strict=True) if n > 1 or axis in "YX"}
    unknown = [axis for axis in kept if axis not in "YXZCS"]
    if len(unknown) == 1:
        count = shape[axes.index(unknown[0])]
        if pages is None:
            what = f"holds {count} pages, a volume or channels?"
            raise Faulty(path, what, "Add --pages volume or --pages channels")
        kept[unknown[0]] = _PAGES[pages]
    known = list(kept.values())
    if len(unknown) > 1 or len(set(known)) < len(known) or not {"Y", "X"} <= set(known) or {"C", "S"} <= set(known):
        raise Faulty(path, f"shape {shape} with the axes {axes} is no image", "save one image or volume a file")
    given = {meaning: axis for axis, meaning in kept.items()}
    space = "XYZ" if "Z" in given else "YX"
    return "".join(given[meaning] for meaning in [*space, *(c for c in "CS" if c in given)])
