"""Labelled images: a folder with `images/` and `masks/`.

    mydata/
      images/a.png b.png …     PNG, TIFF or NPY; 8 bit, 16 bit or float; grey, RGB or up to 4 channels
      masks/a.png b.png …      the same stems; integer labels, 0 is background
      split.csv                optional: columns stem,split with split = train, validation or unused
      classes.txt              optional: one class name a line, background first
      SOURCE.txt               optional: licence and citation, printed and put into the report

Without `split.csv` a seeded quarter of the images is held back for validation. Every channel of every image is brought
to mean 0 and standard deviation 1. Everything is held in memory.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from lossmith.lab import UserError

_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
_SPLITS = ("train", "validation", "unused")
_HELD_BACK = 0.25
_MOST_UNNAMED_CLASSES = 32


@dataclass(frozen=True)
class Sample:
    """One image, standardised `(channels, H, W)` float32, and its labels `(H, W)` int32."""

    stem: str
    image: np.ndarray[Any, Any]
    label: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Data:
    """A folder, read: what to train on, what is held back, and what the labels are called."""

    name: str
    train: list[Sample]
    validation: list[Sample]
    classes: list[str]
    source: str
    fingerprint: str

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return int(self.train[0].image.shape[0])

    def foreground_share(self) -> float:
        """Labelled pixels of class 1 and up, as a share of all pixels."""
        labels = [s.label for s in self.train + self.validation]
        return float(sum(int((x > 0).sum()) for x in labels) / sum(x.size for x in labels))


def read_folder(folder: Path, name: str, task: str, ignore_index: int) -> Data:
    """Read a folder of images and masks (see the top of this file).

    `task="binary"` reads every label above 0 as foreground. Raises `UserError` naming the file and the fix.
    """
    pairs = _pair(folder)
    images = {stem: _read_image(image) for stem, (image, _) in pairs.items()}
    labels = {stem: _read_mask(mask, ignore_index) for stem, (_, mask) in pairs.items()}
    channels = {stem: image.shape[0] for stem, image in images.items()}
    first = next(iter(pairs))
    for stem, (image_path, mask_path) in pairs.items():
        if images[stem].shape[1:] != labels[stem].shape:
            raise UserError(
                f"{mask_path}: the mask is {_size(labels[stem])} but its image is {_size(images[stem])} pixels; "
                "they must have the same size"
            )
        if channels[stem] != channels[first]:
            raise UserError(
                f"{image_path}: {channels[stem]} channels, but {pairs[first][0].name} has {channels[first]}; "
                "save all images with the same number of channels"
            )
    names = _read_class_names(folder)
    if task == "binary":
        labels = {s: np.where(x == ignore_index, x, x > 0).astype(np.int32) for s, x in labels.items()}
        classes = names if names and len(names) == 2 else ["background", "foreground"]
    else:
        classes = names or _default_names(labels, pairs, ignore_index)
    _check_labels(labels, pairs, classes, ignore_index)
    split = _read_split(folder, list(pairs))
    samples = {stem: Sample(stem, images[stem], labels[stem]) for stem in pairs}
    source = folder / "SOURCE.txt"
    return Data(
        name=name,
        train=[samples[s] for s in pairs if split[s] == "train"],
        validation=[samples[s] for s in pairs if split[s] == "validation"],
        classes=classes,
        source=source.read_text(encoding="utf-8").strip() if source.is_file() else "",
        fingerprint=_fingerprint([(split[s], samples[s]) for s in pairs]),
    )


def _pair(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask by stem, sorted; both folders must hold the same stems."""
    found: list[dict[str, Path]] = []
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise UserError(f"{folder}: there is no folder {part}/ in it; expected images/ and masks/, paired by stem")
        files: dict[str, Path] = {}
        for path in sorted((folder / part).iterdir()):
            if path.name.startswith("."):
                continue
            if path.suffix.lower() not in _SUFFIXES:
                raise UserError(f"{path}: cannot read {path.suffix or 'this'}; save it as PNG, TIFF or NPY, or move it")
            if path.stem in files:
                raise UserError(f"{path}: {files[path.stem].name} has the same stem; keep one of the two")
            files[path.stem] = path
        found.append(files)
    images, masks = found
    if not images:
        raise UserError(f"{folder / 'images'}: no image in it; expected PNG, TIFF or NPY files")
    for stem, path in images.items():
        if stem not in masks:
            raise UserError(f"{path}: no mask for it; expected masks/{stem} with .png, .tif or .npy")
    for stem, path in masks.items():
        if stem not in images:
            raise UserError(f"{path}: no image for it; expected images/{stem} with .png, .tif or .npy")
    return {stem: (images[stem], masks[stem]) for stem in images}


def _read_array(path: Path, palette_as_labels: bool) -> np.ndarray[Any, Any]:
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".png":
            with Image.open(path) as picture:
                mode = picture.mode.removesuffix("A")  # transparency is no measurement
                mode = "RGB" if mode == "P" and not palette_as_labels else mode
                array = np.asarray(picture.convert(mode) if mode != picture.mode else picture)
        else:
            array = tifffile.imread(path)
    except Exception as error:  # whatever a decoder raises means the same to the user
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0] if str(error) else error!r})") from error
    if array.dtype.kind not in "buif":
        raise UserError(f"{path}: holds {array.dtype}, not numbers")
    if array.size == 0:
        raise UserError(f"{path}: is empty, shape {array.shape}")
    return np.asarray(array)


def _read_image(path: Path) -> np.ndarray[Any, Any]:
    array = _read_array(path, palette_as_labels=False)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and array.shape[2] <= 4:
        array = array.transpose(2, 0, 1)
    elif array.ndim != 3 or array.shape[0] > 4:
        raise UserError(
            f"{path}: shape {array.shape} is no 2-D image; save one image a file, (H, W) or (H, W, channels)"
        )
    image = array.astype(np.float32)
    if not np.isfinite(image).all():
        raise UserError(f"{path}: holds NaN or infinite pixels; replace them")
    mean, spread = image.mean((1, 2), keepdims=True), image.std((1, 2), keepdims=True)
    return np.asarray((image - mean) / np.where(spread > 0, spread, 1), dtype=np.float32)


def _read_mask(path: Path, ignore_index: int) -> np.ndarray[Any, Any]:
    array = _read_array(path, palette_as_labels=True)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array.reshape([n for i, n in enumerate(array.shape) if n != 1 or i == 1])
    if array.ndim != 2:
        raise UserError(f"{path}: shape {array.shape} is no label image; save class numbers as one grey (H, W) image")
    if array.dtype.kind == "f":
        raise UserError(f"{path}: holds {array.dtype}; labels must be integers (numpy: mask.astype(numpy.uint8))")
    wrong = np.unique(array[(array < 0) & (array != ignore_index)]) if array.dtype.kind == "i" else array[:0]
    if wrong.size:
        raise UserError(
            f"{path}: holds the label {wrong[0]}; labels start at 0 (to ignore it: --ignore-index {wrong[0]})"
        )
    return array.astype(np.int32)


def _read_class_names(folder: Path) -> list[str]:
    path = folder / "classes.txt"
    if not path.is_file():
        return []
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{path}: expected at least two different names, one a line, background first; got {names}")
    return names


def _default_names(
    labels: dict[str, np.ndarray[Any, Any]], pairs: dict[str, tuple[Path, Path]], ignore_index: int
) -> list[str]:
    """Names for labels 0, 1, …, without gaps: a gap is more often a 0/255 mask or instance ids than a missing class."""
    seen: set[int] = set()
    for stem, label in labels.items():
        here = {int(v) for v in np.unique(label)} - {ignore_index}
        if 255 in here and here <= {0, 255}:
            raise UserError(
                f"{pairs[stem][1]}: holds the labels {sorted(here)}, a 0/255 mask? Use --task binary, or save 1 for "
                "255, or use --ignore-index 255 if those pixels are unlabelled"
            )
        seen |= here
    most = max(seen, default=0)
    gaps = sorted(set(range(most + 1)) - seen)
    if most >= _MOST_UNNAMED_CLASSES or gaps:
        why = f"label {gaps[0]} is missing" if gaps else f"that is {most + 1} classes"
        where = next(pairs[stem][1] for stem, label in labels.items() if most in label)
        raise UserError(
            f"{where}: labels go up to {most} and {why}. Class numbers? Then name each class in classes.txt. "
            "Object numbers? Then use --task binary"
        )
    return ["background", *(f"class {k}" for k in range(1, most + 1))]


def _check_labels(
    labels: dict[str, np.ndarray[Any, Any]],
    pairs: dict[str, tuple[Path, Path]],
    classes: list[str],
    ignore_index: int,
) -> None:
    any_foreground = False
    for stem, label in labels.items():
        valid = label[label != ignore_index]
        any_foreground = any_foreground or bool((valid > 0).any())
        if valid.size and valid.max() >= len(classes):
            raise UserError(
                f"{pairs[stem][1]}: holds the label {valid.max()}, but classes.txt names {len(classes)} classes "
                f"(0 to {len(classes) - 1}); add the name, mend the mask, or ignore it: --ignore-index {valid.max()}"
            )
    if not any_foreground:
        raise UserError(f"{next(iter(pairs.values()))[1].parent}: every mask is background only, nothing to learn")


def _read_split(folder: Path, stems: list[str]) -> dict[str, str]:
    path = folder / "split.csv"
    if path.is_file():
        split = _parse_split(path, stems)
    else:
        if len(stems) < 2:
            raise UserError(f"{folder}: one image only; at least two are needed, one to train on and one held back")
        held_back = max(1, round(_HELD_BACK * len(stems)))
        shuffled = np.random.default_rng(0).permutation(stems).tolist()
        split = dict.fromkeys(shuffled[held_back:], "train") | dict.fromkeys(shuffled[:held_back], "validation")
    for part in ("train", "validation"):
        if part not in split.values():
            raise UserError(f"{path}: no image is marked {part}; mark at least one")
    return split


def _parse_split(path: Path, stems: list[str]) -> dict[str, str]:
    split: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"stem", "split"} <= set(rows.fieldnames or ()):
            raise UserError(f"{path}: the first line must be stem,split; it is {','.join(rows.fieldnames or ())!r}")
        for row in rows:
            stem, part = row["stem"], row["split"]
            if part not in _SPLITS:
                raise UserError(f"{path}, line {rows.line_num}: {part!r} is not one of {', '.join(_SPLITS)}")
            if stem not in stems:
                raise UserError(f"{path}, line {rows.line_num}: there is no image with the stem {stem!r}")
            if stem in split:
                raise UserError(f"{path}, line {rows.line_num}: {stem!r} is listed twice")
            split[stem] = part
    missing = [stem for stem in stems if stem not in split]
    if missing:
        raise UserError(f"{path}: {missing[0]!r} is not listed; give it a split (unused leaves it out)")
    return split


def _fingerprint(samples: list[tuple[str, Sample]]) -> str:
    """Changes when any pixel, label, name or split changes."""
    digest = hashlib.sha256()
    for part, sample in samples:
        digest.update(f"{sample.stem} {part} {sample.image.shape}".encode())
        digest.update(sample.image.tobytes())
        digest.update(sample.label.tobytes())
    return digest.hexdigest()[:16]


def _size(array: np.ndarray[Any, Any]) -> str:
    return f"{array.shape[-1]} x {array.shape[-2]}"
