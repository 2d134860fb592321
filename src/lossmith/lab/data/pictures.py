"""PNG, JPEG and BMP, by Pillow: their header, and their pixels as they are to be seen."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lossmith.lab.data.faults import Faulty
from lossmith.lab.data.header import DEFLATED, Header, upright, upright_shape

Array = np.ndarray[Any, Any]

_FORMATS = ("PNG", "JPEG", "BMP", "DIB")  # nothing else is tried, whatever the file calls itself
_LOSSY = ("JPEG", "MPO")  # MPO: what phones call a JPEG with a second picture in it
_TURNED = 0x0112
# Pillow warns from half of the size on that it refuses; only the refusal matters here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def header(path: Path, labels: bool) -> Header:
    """What the header says. Raises `Faulty` for labels in a JPEG, and for more pixels than Pillow takes on trust."""
    with _open(path) as picture:
        if labels and picture.format in _LOSSY:
            raise Faulty(path, "is a JPEG, which changes labels", "save it as PNG from the source")
        bands = Image.getmodebands(_mode(picture, labels))
        shape = (picture.height, picture.width, *([bands] if bands > 1 else []))
        numbers = picture.height * picture.width * bands
        ratio = DEFLATED if picture.format == "PNG" else numbers  # which Pillow's bound is enough for
        held = path.stat().st_size * ratio * 8  # pixels of one bit take a byte each when read
        return Header(upright_shape(shape, orientation(path)), np.dtype(np.uint8), 2, held)


def read(path: Path, labels: bool) -> Array:
    """The pixels, turned as the orientation tag says. `labels`: a palette's numbers rather than its colours."""
    with _open(path) as picture:
        mode = _mode(picture, labels)
        array = np.asarray(picture.convert(mode) if mode != picture.mode else picture)
    return upright(array, orientation(path))


def orientation(path: Path) -> int:
    """1 to 8, of the EXIF tag; 1 for upright."""
    with _open(path) as picture:
        if picture.format == "PNG" and not {"exif", "Raw profile type exif"} & picture.info.keys():
            return 1  # getexif would read all pixels to find out
        found = picture.getexif().get(_TURNED, 1)
    return found if found in range(1, 9) else 1


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        what = f"its header promises more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise Faulty(path, what, "cut it into tiles, or save it as TIFF") from error


def _mode(picture: Image.Image, labels: bool) -> str:
    mode = picture.mode.removesuffix("A")  # transparency is no measurement
    return "RGB" if mode in ("CMYK", "YCbCr") or (mode == "P" and not labels) else mode
