"""One image or one mask out of a file: PNG, TIFF, NPY, or NIfTI for volumes. Its header alone says its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from PIL import Image

from lossmith.lab.data.faults import Faulty

Array = np.ndarray[Any, Any]

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".nii", ".nii.gz")
FORMATS = "PNG, TIFF, NPY, or NIfTI for a volume"
_VOLUMES = (".nii", ".nii.gz")
_NUMBERS = "buif"  # NumPy's kinds: bool, unsigned, signed, float
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


def image_shape(path: Path) -> tuple[int, ...]:
    """The shape that `read_image` will give, (channels, *S), from the header. Raises `Faulty` for what is no image."""
    return tuple(_channels_first(path, _header(path, palette_as_labels=False)).shape)


def mask_shape(path: Path) -> tuple[int, ...]:
    """The shape that `read_mask` will give, (*S), from the header. Raises `Faulty` for what is no mask."""
    return tuple(_without_channels(path, _header(path, palette_as_labels=True)).shape)


def read_image(path: Path) -> Array:
    """An image as float32 (channels, H, W), a volume as (channels, X, Y, Z), each channel standardised."""
    image = read_stored(path)
    return standardised(image, *mean_and_spread(image.astype(np.float32)))


def read_stored(path: Path) -> Array:
    """An image as its file stores it, (channels, H, W) or (channels, X, Y, Z); float32 if that takes 4 bytes."""
    stored = _channels_first(path, _read_array(path, palette_as_labels=False))
    if stored.dtype.itemsize > 2:
        with np.errstate(over="ignore"):  # which is said below
            stored = stored.astype(np.float32)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise Faulty(path, "holds NaN or infinite pixels", "replace them")
    return stored


def mean_and_spread(image: Array) -> tuple[Array, Array]:
    """Of each channel, `(channels, 1, …)`; a spread of 0 is 1."""
    space = tuple(range(1, image.ndim))
    spread = image.std(space, keepdims=True)
    return image.mean(space, keepdims=True), np.where(spread > 0, spread, 1).astype(np.float32)


def standardised(image: Array, mean: Array, spread: Array) -> Array:
    """An image, or a part of it, with mean 0 and standard deviation 1."""
    return np.asarray((image.astype(np.float32) - mean) / spread, dtype=np.float32)


def _channels_first(path: Path, array: Array) -> Array:
    if suffix_of(path) in _VOLUMES:
        if array.ndim == 3:
            return array[None]
        if array.ndim == 4 and array.shape[3] <= _MOST_CHANNELS:
            return np.moveaxis(array, 3, 0)
        what = f"shape {array.shape} is no volume"
        raise Faulty(path, what, "save one a file, (X, Y, Z) or (X, Y, Z, 1 to 4)")
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3 and array.shape[2] <= _MOST_CHANNELS:
        return array.transpose(2, 0, 1)
    if array.ndim == 3 and array.shape[0] <= _MOST_CHANNELS:
        return array
    what = f"shape {array.shape} is no 2-D image"
    raise Faulty(path, what, "save one a file, (H, W) or (H, W, 1 to 4), and a volume as NIfTI (.nii.gz)")


def read_mask(path: Path, ignore_index: int) -> Array:
    """Labels as int32, (H, W) or (X, Y, Z). Floats are read if they are whole numbers, as many tools save them."""
    array = _without_channels(path, _read_array(path, palette_as_labels=True))
    if array.dtype.kind == "f":
        array = _whole_numbers(path, array, ignore_index)
    most = np.iinfo(np.int32)
    for value in (array.min().item(), array.max().item()):
        if not most.min <= value <= most.max:
            what = f"holds the label {value}, more than class numbers are"
            raise Faulty(path, what, "Object numbers? Then save 1 for all (numpy: (mask != 0).astype(numpy.uint8))")
    array = array.astype(np.int32)
    wrong = np.unique(array[(array < 0) & (array != ignore_index)])
    if wrong.size:
        hint = f"to ignore it: --ignore-index {wrong[0]}"
        if wrong.size > 1 or (array == ignore_index).any():
            hint = f"to ignore all below: numpy.where(mask < 0, {ignore_index}, mask)"
        raise Faulty(path, f"holds the label {wrong[0]}", f"labels start at 0 ({hint})")
    return array


def _without_channels(path: Path, array: Array) -> Array:
    volume = suffix_of(path) in _VOLUMES
    if volume and array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    elif not volume and array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array.reshape([n for i, n in enumerate(array.shape) if n != 1 or i == 1])
    if array.ndim != (3 if volume else 2):
        expected = "(X, Y, Z) volume" if volume else "grey (H, W) image"
        raise Faulty(path, f"shape {array.shape} is no label image", f"save class numbers as one {expected}")
    return array


def _whole_numbers(path: Path, array: Array, ignore_index: int) -> Array:
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
    if not away.any() or away.max() <= _rounding(path, array):
        return whole
    raise Faulty(path, f"holds {array.flat[away.argmax()]}", f"labels are whole numbers. {_how_to_mend(array)}")


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


def _header(path: Path, palette_as_labels: bool) -> Array:
    """What `_read_array` gives, but for the values: an array that holds one number for all."""
    try:
        shape, dtype = _shape_and_type(path, palette_as_labels)
        if dtype.kind in _NUMBERS and 0 not in shape:
            return np.broadcast_to(np.zeros((), dtype), shape)
    except Exception:  # a header that cannot be read, or not by this: reading it all says what is wrong
        pass
    return _read_array(path, palette_as_labels)


def _shape_and_type(path: Path, palette_as_labels: bool) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if suffix_of(path) == ".npy":
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            return shape, dtype
    if suffix_of(path) == ".png":
        with Image.open(path) as picture:
            bands = Image.getmodebands(_mode(picture, palette_as_labels))
            return (picture.height, picture.width, *([bands] if bands > 1 else [])), np.dtype(np.uint16)
    if suffix_of(path) in _VOLUMES:
        volume: Any = nibabel.load(path)
        upright = nibabel.io_orientation(volume.affine)[:, 0].astype(int)  # type: ignore[no-untyped-call]
        sides = list(volume.shape)
        for axis, size in zip(upright, volume.shape, strict=False):  # a fourth axis stays where it is
            sides[axis] = size
        return tuple(sides), volume.get_data_dtype()
    with tifffile.TiffFile(path) as file:
        return file.series[0].shape, file.series[0].dtype


def _mode(picture: Image.Image, palette_as_labels: bool) -> str:
    mode = picture.mode.removesuffix("A")  # transparency is no measurement
    return "RGB" if mode == "P" and not palette_as_labels else mode


def _read_array(path: Path, palette_as_labels: bool) -> Array:
    try:
        if suffix_of(path) == ".npy":
            array = np.load(path, allow_pickle=False)
        elif suffix_of(path) == ".png":
            with Image.open(path) as picture:
                mode = _mode(picture, palette_as_labels)
                array = np.asarray(picture.convert(mode) if mode != picture.mode else picture)
        elif suffix_of(path) in _VOLUMES:
            # Scanners store axes in any order and direction; here they always run right, forward, up.
            upright = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
            array = np.asarray(upright.dataobj)
        else:
            array = tifffile.imread(path)
    except Exception as error:  # whatever a decoder raises means the same to the user
        why = str(error).splitlines()[0] if str(error) else repr(error)
        raise Faulty(path, f"cannot be read ({why})") from error
    if array.dtype.kind not in _NUMBERS:
        raise Faulty(path, f"holds {array.dtype}, not numbers")
    if array.size == 0:
        raise Faulty(path, f"is empty, shape {array.shape}")
    return np.asarray(array)
