"""One image or one mask out of a file. Its header alone says its shape; what reads which format stands beside this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lossmith.lab.data import nifti, npy, pictures, tiff
from lossmith.lab.data.faults import Faulty
from lossmith.lab.data.header import Array, Header, check
from lossmith.lab.data.labels import as_labels, grey

FORMATS = "PNG, JPEG, BMP, TIFF, NPY, or NIfTI for a volume"
_FAR = -99  # what stands for no measurement is -9999, -32768, -3.4e38 and the like

Pages = str | None  # what the pages of a TIFF are: "volume", "channels", or nobody said


class Format(NamedTuple):
    """How files with a suffix are read. `labels`: it is a mask; see header.py for what is given."""

    header: Callable[[Path, bool, Pages], Header]
    read: Callable[[Path, bool, Pages], Array]
    orientation: Callable[[Path], int] = lambda path: 1


_PICTURE = Format(
    lambda path, labels, pages: pictures.header(path, labels),
    lambda path, labels, pages: pictures.read(path, labels),
    pictures.orientation,
)
_TIFF = Format(tiff.header, lambda path, labels, pages: tiff.read(path, pages), tiff.orientation)
_NPY = Format(lambda path, labels, pages: npy.header(path), lambda path, labels, pages: npy.read(path))
_NIFTI = Format(lambda path, labels, pages: nifti.header(path), lambda path, labels, pages: nifti.read(path))
_BY_SUFFIX = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), _PICTURE),
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
    ".npy": _NPY,
    **dict.fromkeys((".nii", ".nii.gz"), _NIFTI),
}
SUFFIXES = tuple(_BY_SUFFIX)


def suffix_of(path: Path) -> str:
    """The suffix among those that can be read, in lower case; "" if it is none of them."""
    return next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")


def stem_of(path: Path) -> str:
    """The name without its suffix: `a` of `a.nii.gz` too."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def suffixes_beside(path: Path) -> str:
    """What the mask of an image may end with, or the image of a mask: volumes go with volumes."""
    return ".nii or .nii.gz" if _format(path) is _NIFTI else ".png, .tif or .npy"


def image_shape(path: Path, pages: Pages = None) -> tuple[int, ...]:
    """The shape that `read_image` will give, (channels, *S), from the header. Raises `Faulty` for what is no image."""
    shapes = [_channels_first(each, _header(each, False, pages)) for each in files_of(path)]
    for each, shape in zip(files_of(path), shapes, strict=True):
        if shape[1:] != shapes[0][1:]:
            raise Faulty(
                each, f"shape {shape[1:]}, but {path.name} has {shapes[0][1:]}", "they must have the same size"
            )
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def mask_shape(path: Path, pages: Pages = None) -> tuple[int, ...]:
    """The shape that `read_mask` will give, (*S), from the header. Raises `Faulty` for what is no mask."""
    header = _header(path, True, pages)
    shape, space = header.shape, header.dimensions
    grey_as_colours = space == 2 and shape[2:] in ((3,), (4,))
    if len(shape) == space or shape[space:] == (1,) or grey_as_colours:
        return shape[:space]
    expected = "(X, Y, Z) volume" if space == 3 else "grey (H, W) image"
    raise Faulty(path, f"shape {shape} is no label image", f"save class numbers as one {expected}")


def read_image(path: Path, pages: Pages = None) -> Array:
    """An image as float32 (channels, H, W), a volume as (channels, X, Y, Z), each channel standardised."""
    image = read_stored(path, pages)
    return standardised(image, *mean_and_spread(image.astype(np.float32)))


def read_stored(path: Path, pages: Pages = None) -> Array:
    """An image as its file stores it, (channels, H, W) or (channels, X, Y, Z); float32 if that takes 4 bytes."""
    space = len(image_shape(path, pages)) - 1
    parts = [_read_array(each, False, pages) for each in files_of(path)]
    stored = np.concatenate([part[None] if part.ndim == space else np.moveaxis(part, -1, 0) for part in parts])
    if stored.dtype.itemsize > 2:
        with np.errstate(over="ignore"):  # which is said below
            stored = stored.astype(np.float32)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise Faulty(path, "holds NaN or infinite pixels", "replace them")
    if stored.dtype.kind in "if" and stored.min() <= _FAR:
        _check_measured(path, stored, stored.min())
    if _format(path) is _TIFF and (tagged := tiff.nodata(path)) is not None:
        _check_measured(path, stored, tagged)
    return stored


def mean_and_spread(image: Array) -> tuple[Array, Array]:
    """Of each channel, `(channels, 1, …)`; a spread of 0 is 1."""
    space = tuple(range(1, image.ndim))
    spread = image.std(space, keepdims=True)
    return image.mean(space, keepdims=True), np.where(spread > 0, spread, 1).astype(np.float32)


def standardised(image: Array, mean: Array, spread: Array) -> Array:
    """An image, or a part of it, with mean 0 and standard deviation 1."""
    return np.asarray((image.astype(np.float32) - mean) / spread, dtype=np.float32)


def read_mask(path: Path, ignore_index: int, pages: Pages = None) -> Array:
    """Labels as int32, (H, W) or (X, Y, Z). Floats are read if they are whole numbers, as many tools save them."""
    shape = mask_shape(path, pages)
    array = _read_array(path, True, pages)
    if array.ndim > len(shape):
        array = array[..., 0] if array.shape[-1] == 1 else grey(path, array)
    floats = _format(path) is _NIFTI and array.dtype.kind == "f"
    return as_labels(path, array, ignore_index, nifti.rounding(path, np.abs(array).max()) if floats else 0.0)


def orientation(path: Path) -> int:
    """How the picture is stored, as EXIF and TIFF count: 1 for upright. It is turned upright when read."""
    return _format(path).orientation(path)


def files_of(path: Path) -> list[Path]:
    """The files of one image: nnU-Net has one for each channel, case_0000, case_0001 …, named by the first."""
    name, suffix = stem_of(path), suffix_of(path)
    if path.parent.name != "imagesTr" or not name.endswith("_0000"):
        return [path]
    found = [path]
    while (following := path.with_name(f"{name[:-4]}{len(found):04d}{path.name[-len(suffix) :]}")).is_file():
        found.append(following)
    return found


def _check_measured(path: Path, image: Array, value: float) -> None:
    """Raises `Faulty` if `value` stands for no measurement: it lies far outside of all others."""
    here = image == value
    others = image[~here].astype(np.float64)
    if not here.any() or not others.size:
        return
    away = max(others.min() - value, value - others.max())
    if away > 3 * (others.max() - others.min()) and away > 1:
        what = f"holds {value:g} in {here.mean():.1%} of its pixels, far from all others: no measurement?"
        fix = (
            f"Replace it (numpy: numpy.where(image == {value:g}, numpy.median(image[image != {value:g}]), image)), "
            "and save the label that is ignored there"
        )
        raise Faulty(path, what, fix)


def _channels_first(path: Path, header: Header) -> tuple[int, ...]:
    shape, space = header.shape, header.dimensions
    if len(shape) == space:
        return (1, *shape)
    if len(shape) == space + 1 and (_format(path) is not _NPY or shape[-1] <= npy.MOST_CHANNELS):
        return (shape[-1], *shape[:-1])
    if space == 3:
        raise Faulty(path, f"shape {shape} is no volume", "save one a file, (X, Y, Z) or (X, Y, Z, channels)")
    fix = "save one a file, (H, W) or (H, W, 1 to 4), and a volume as NIfTI (.nii.gz)"
    raise Faulty(path, f"shape {shape} is no 2-D image", fix)


def _format(path: Path) -> Format:
    return _BY_SUFFIX[suffix_of(path)]


def _header(path: Path, labels: bool, pages: Pages) -> Header:
    try:
        header = _format(path).header(path, labels, pages)
    except Exception as error:
        raise _unreadable(path, error) from error
    check(path, header)
    return header


def _read_array(path: Path, labels: bool, pages: Pages) -> Array:
    try:
        return _format(path).read(path, labels, pages)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> Faulty:
    """Whatever a decoder raises means the same to the user."""
    if isinstance(error, Faulty):
        return error
    why = str(error).splitlines()[0] if str(error) else repr(error)
    return Faulty(path, f"cannot be read ({why})")
