"""One image or one mask out of a file: PNG, TIFF, NPY, or NIfTI for volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from PIL import Image

from lossmith.lab import UserError

Array = np.ndarray[Any, Any]

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".nii", ".nii.gz")
FORMATS = "PNG, TIFF, NPY, or NIfTI for a volume"
_VOLUMES = (".nii", ".nii.gz")
_MOST_CHANNELS = 4
_COARSE = 0.25  # with a step of half a label, anything could be one
_FEW = 32  # values: more are probabilities rather than classes


def suffix_of(path: Path) -> str:
    """The suffix among those that can be read, in lower case; "" if it is none of them."""
    return next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")


def stem_of(path: Path) -> str:
    """The name without its suffix: `a` of `a.nii.gz` too."""
    return path.name[: -len(suffix_of(path))]


def suffixes_beside(path: Path) -> str:
    """What the mask of an image may end with, or the image of a mask: volumes go with volumes."""
    return ".nii or .nii.gz" if suffix_of(path) in _VOLUMES else ".png, .tif or .npy"


def read_image(path: Path) -> Array:
    """An image as float32 (channels, H, W), a volume as (channels, X, Y, Z), each channel standardised."""
    array = _read_array(path, palette_as_labels=False)
    if suffix_of(path) in _VOLUMES:
        if array.ndim == 3:
            array = array[None]
        elif array.ndim == 4 and array.shape[3] <= _MOST_CHANNELS:
            array = np.moveaxis(array, 3, 0)
        else:
            raise UserError(
                f"{path}: shape {array.shape} is no volume; save one a file, (X, Y, Z) or (X, Y, Z, 1 to 4)"
            )
    elif array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[2] <= _MOST_CHANNELS:
        array = array.transpose(2, 0, 1)
    elif array.ndim != 3 or array.shape[0] > _MOST_CHANNELS:
        raise UserError(
            f"{path}: shape {array.shape} is no 2-D image; save one a file, (H, W) or (H, W, 1 to 4), and a volume as "
            "NIfTI (.nii.gz)"
        )
    image = array.astype(np.float32)
    if not np.isfinite(image).all():
        raise UserError(f"{path}: holds NaN or infinite pixels; replace them")
    space = tuple(range(1, image.ndim))
    mean, spread = image.mean(space, keepdims=True), image.std(space, keepdims=True)
    return np.asarray((image - mean) / np.where(spread > 0, spread, 1), dtype=np.float32)


def read_mask(path: Path, ignore_index: int) -> Array:
    """Labels as int32, (H, W) or (X, Y, Z). Floats are read if they are whole numbers, as many tools save them."""
    array = _read_array(path, palette_as_labels=True)
    volume = suffix_of(path) in _VOLUMES
    if volume and array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    elif not volume and array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array.reshape([n for i, n in enumerate(array.shape) if n != 1 or i == 1])
    if array.ndim != (3 if volume else 2):
        expected = "(X, Y, Z) volume" if volume else "grey (H, W) image"
        raise UserError(f"{path}: shape {array.shape} is no label image; save class numbers as one {expected}")
    if array.dtype.kind == "f":
        array = _whole_numbers(path, array, ignore_index)
    most = np.iinfo(np.int32)
    for value in (array.min().item(), array.max().item()):
        if not most.min <= value <= most.max:
            raise UserError(
                f"{path}: holds the label {value}, more than class numbers are. Object numbers? Then save 1 for all "
                "(numpy: (mask != 0).astype(numpy.uint8))"
            )
    array = array.astype(np.int32)
    wrong = np.unique(array[(array < 0) & (array != ignore_index)])
    if wrong.size:
        hint = f"to ignore it: --ignore-index {wrong[0]}"
        if wrong.size > 1 or (array == ignore_index).any():
            hint = f"to ignore all below: numpy.where(mask < 0, {ignore_index}, mask)"
        raise UserError(f"{path}: holds the label {wrong[0]}; labels start at 0 ({hint})")
    return array


def _whole_numbers(path: Path, array: Array, ignore_index: int) -> Array:
    """The whole numbers that floats are, or that a NIfTI file's slope has rounded."""
    finite = np.isfinite(array)
    if not finite.all():
        raise UserError(
            f"{path}: holds {array[~finite][0]}, no label; if those pixels are unlabelled, save what is ignored there "
            f"(numpy: numpy.where(numpy.isfinite(mask), mask, {ignore_index}))"
        )
    whole = np.rint(array)
    away = np.abs(array - whole)
    if not away.any() or away.max() <= _rounding(path, array):
        return whole
    raise UserError(f"{path}: holds {array.flat[away.argmax()]}; labels are whole numbers. {_how_to_mend(array)}")


def _rounding(path: Path, array: Array) -> float:
    """How far a label can be from its whole number: half a step, where a NIfTI file stores multiples of a slope."""
    if suffix_of(path) not in _VOLUMES:
        return 0.0
    stored: Any = nibabel.load(path)
    if stored.get_data_dtype().kind not in "iu":
        return 0.0
    in_header = np.spacing(np.float32(np.abs(array).max()))  # slope and intercept are rounded to float32
    rounding = float(abs(stored.dataobj.slope) / 2 + in_header)
    return rounding if rounding < _COARSE else 0.0


def _how_to_mend(array: Array) -> str:
    """What to do with floats that are no labels; never something that makes a label 0."""
    values = np.unique(array)
    fraction = bool(values[0] >= 0 and values[-1] <= 1)
    if fraction and values.size <= _FEW and np.allclose(255 * values, np.rint(255 * values), rtol=0, atol=1e-3):
        return "Class numbers divided by 255? numpy: numpy.rint(255 * mask).astype(numpy.uint8)"
    if fraction and values[-1] > 0.5:
        return "Probabilities? Threshold them (numpy: (mask > 0.5).astype(numpy.uint8))"
    return "Interpolated? Resample the labels with nearest neighbours (scipy: scipy.ndimage.zoom(labels, 0.5, order=0))"


def _read_array(path: Path, palette_as_labels: bool) -> Array:
    try:
        if suffix_of(path) == ".npy":
            array = np.load(path, allow_pickle=False)
        elif suffix_of(path) == ".png":
            with Image.open(path) as picture:
                mode = picture.mode.removesuffix("A")  # transparency is no measurement
                mode = "RGB" if mode == "P" and not palette_as_labels else mode
                array = np.asarray(picture.convert(mode) if mode != picture.mode else picture)
        elif suffix_of(path) in _VOLUMES:
            # Scanners store axes in any order and direction; here they always run right, forward, up.
            upright = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
            array = np.asarray(upright.dataobj)
        else:
            array = tifffile.imread(path)
    except Exception as error:  # whatever a decoder raises means the same to the user
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0] if str(error) else error!r})") from error
    if array.dtype.kind not in "buif":
        raise UserError(f"{path}: holds {array.dtype}, not numbers")
    if array.size == 0:
        raise UserError(f"{path}: is empty, shape {array.shape}")
    return np.asarray(array)
