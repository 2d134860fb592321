"""Labelled images: a folder with `images/` and `masks/`, or with `images/` and `labels.csv`.

    mydata/
      images/a.png b.png …     PNG, TIFF or NPY; 8 bit, 16 bit or float; grey, RGB or up to 4 channels; or NIfTI volumes
      masks/a.png b.png …      the same stems; integer labels, 0 is background
      labels.csv               instead of masks/: columns stem,label; a label for each whole image (classification)
      split.csv                optional: columns stem,split with split = train, validation or unused
      classes.txt              optional: one class name a line, background first
      SOURCE.txt               optional: licence and citation, printed and put into the report

Without `split.csv` a seeded quarter of the images is held back for validation. Every channel of every image is brought
to mean 0 and standard deviation 1. Everything is held in memory. The spacing of volumes is not read: a voxel is a cube.
A second folder may hold images without masks, of the same kind: `add_unlabelled`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lossmith.lab import UserError
from lossmith.lab.files import FORMATS, read_image, read_mask, stem_of, suffix_of, suffixes_beside

Array = np.ndarray[Any, Any]
Kind = Literal["segmentation", "classification"]

_SPLITS = ("train", "validation", "unused")
_HELD_BACK = 0.25
_MOST_UNNAMED_CLASSES = 32


@dataclass(frozen=True)
class Sample:
    """One image, standardised `(channels, *S)` float32, and its labels `(*S)` int32, or `()` for the whole image."""

    stem: str
    image: Array
    label: Array


@dataclass(frozen=True)
class Data:
    """A folder, read: what to train on, what is held back, and what the labels are called."""

    name: str
    train: list[Sample]
    validation: list[Sample]
    classes: list[str]
    ignore_index: int
    source: str
    fingerprint: str
    unlabelled: list[Sample] = field(default_factory=list)  # every pixel of theirs is ignored

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return int(self.train[0].image.shape[0])

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return self.train[0].image.ndim - 1

    @property
    def kind(self) -> Kind:
        """Whether pixels are labelled, or whole images."""
        return "segmentation" if self.train[0].label.ndim else "classification"

    def counts(self, samples: list[Sample]) -> Array:
        """Pixels of each class in each of some images, `(images, classes)`; whole images count as one pixel."""
        valid = (s.label[s.label != self.ignore_index] for s in samples)
        return np.stack([np.bincount(labels, minlength=len(self.classes)) for labels in valid])

    def shares(self) -> list[float]:
        """Each class's share of the labelled pixels, unused images left out."""
        total = self.counts(self.train + self.validation).sum(0)
        return [float(n) for n in total / total.sum()]


def read_folder(folder: Path, name: str, task: str, ignore_index: int) -> Data:
    """Read a folder of images and labels (see the top of this file).

    `task="binary"` reads every label above 0 as foreground. Raises `UserError` naming the file and the fix.
    """
    whole = (folder / "labels.csv").is_file() and not (folder / "masks").is_dir()
    paths = files_of(folder, "images")
    if not paths:
        raise UserError(f"{folder / 'images'}: no image in it; expected {FORMATS}")
    if whole:
        origin = dict.fromkeys(paths, folder / "labels.csv")
        labels = _read_labels(folder / "labels.csv", list(paths), ignore_index)
    else:
        origin = _masks_of(folder, paths)
        labels = {stem: read_mask(path, ignore_index) for stem, path in origin.items()}
    images = {stem: read_image(path) for stem, path in paths.items()}
    _check_images(images, labels, paths, origin)
    names = read_class_names(folder)
    if task == "binary":
        labels = {s: np.where(x == ignore_index, x, x > 0).astype(np.int32) for s, x in labels.items()}
        classes = names if names and len(names) == 2 else ["background", "foreground"]
    else:
        classes = names or _default_names(labels, origin, ignore_index)
    _check_labels(labels, origin, classes, ignore_index)
    split = read_split(folder, list(paths))
    samples = {stem: Sample(stem, images[stem], labels[stem]) for stem in paths}
    source = folder / "SOURCE.txt"
    return Data(
        name=name,
        train=[samples[s] for s in paths if split[s] == "train"],
        validation=[samples[s] for s in paths if split[s] == "validation"],
        classes=classes,
        ignore_index=ignore_index,
        source=source.read_text(encoding="utf-8").strip() if source.is_file() else "",
        fingerprint=_fingerprint([(split[s], samples[s]) for s in paths]),
    )


def add_unlabelled(data: Data, folder: Path) -> Data:
    """The data with every image of a folder as training images whose pixels are all ignored.

    Raises `UserError` for images that do not fit those of the data, and for one that is held back: training must not
    see it.
    """
    if data.kind == "classification":
        raise UserError(f"--unlabelled {folder}: {data.name} has a label for each whole image, no masks; drop it")
    if not folder.is_dir():
        raise UserError(f"--unlabelled {folder}: is not a folder")
    paths = _files_in(folder)
    if not paths:
        raise UserError(f"--unlabelled {folder}: no image in it; expected {FORMATS}")
    held_back = {s.image.tobytes(): s.stem for s in data.validation}
    samples = []
    for stem, path in paths.items():
        image = read_image(path)
        if (image.ndim - 1, image.shape[0]) != (data.dimensions, data.channels):
            raise UserError(
                f"{path}: {image.ndim - 1}-D with {image.shape[0]} channels, but the images of {data.name} are "
                f"{data.dimensions}-D with {data.channels}; all must be alike"
            )
        if image.tobytes() in held_back:
            raise UserError(
                f"{path}: is the image {held_back[image.tobytes()]!r}, which is held back to judge by; remove it"
            )
        samples.append(Sample(stem, image, np.full(image.shape[1:], data.ignore_index, np.int32)))
    marked = [(f"unlabelled beside {data.fingerprint}", s) for s in samples]
    return replace(data, unlabelled=samples, fingerprint=_fingerprint(marked))


def files_of(folder: Path, part: str) -> dict[str, Path]:
    """The files of images/ or masks/ by stem, sorted by name."""
    if not (folder / part).is_dir():
        raise UserError(
            f"{folder}: there is no folder {part}/ in it; expected images/ and masks/, paired by stem, or images/ and "
            "labels.csv, or images/ and boxes.csv"
        )
    return _files_in(folder / part)


def _files_in(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not suffix_of(path):
            raise UserError(f"{path}: cannot read {path.suffix or 'this'}; save it as {FORMATS}, or move it")
        stem = stem_of(path)
        if stem in files:
            raise UserError(f"{path}: {files[stem].name} has the same stem; keep one of the two")
        files[stem] = path
    return files


def _masks_of(folder: Path, images: dict[str, Path]) -> dict[str, Path]:
    """The mask of every image; both folders must hold the same stems."""
    masks = files_of(folder, "masks")
    for stem, path in images.items():
        if stem not in masks:
            raise UserError(f"{path}: no mask for it; expected masks/{stem} with {suffixes_beside(path)}")
    for stem, path in masks.items():
        if stem not in images:
            raise UserError(f"{path}: no image for it; expected images/{stem} with {suffixes_beside(path)}")
    return {stem: masks[stem] for stem in images}


def _read_labels(path: Path, stems: list[str], ignore_index: int) -> dict[str, Array]:
    """One label per image, each an array without axes."""

    def problem(text: str) -> str:
        number = text.removeprefix("-").isdecimal() and (int(text) >= 0 or int(text) == ignore_index)
        return "" if number else "no label; labels are whole numbers from 0"

    return {s: np.array(int(text), np.int32) for s, text in _read_csv(path, "label", stems, problem).items()}


def _check_images(
    images: dict[str, Array], labels: dict[str, Array], paths: dict[str, Path], origin: dict[str, Path]
) -> None:
    """The images fit their labels and each other."""
    first, shape = next(iter(images.items()))[0], next(iter(images.values())).shape
    for stem, image in images.items():
        whole = labels[stem].ndim == 0
        if not whole and image.shape[1:] != labels[stem].shape:
            raise UserError(
                f"{origin[stem]}: the mask is {_size(labels[stem].shape)} but its image is {_size(image.shape[1:])} "
                "pixels; they must have the same size"
            )
        if image.ndim != len(shape):
            raise UserError(
                f"{paths[stem]}: is {image.ndim - 1}-D, but {paths[first].name} is {len(shape) - 1}-D; keep images "
                "and volumes in separate folders"
            )
        if image.shape[0] != shape[0]:
            raise UserError(
                f"{paths[stem]}: {image.shape[0]} channels, but {paths[first].name} has {shape[0]}; "
                "save all images with the same number of channels"
            )
        if whole and image.shape != shape:
            raise UserError(
                f"{paths[stem]}: is {_size(image.shape[1:])} pixels, but {paths[first].name} is {_size(shape[1:])}; "
                "images with a label each must have one size"
            )


def read_class_names(folder: Path) -> list[str]:
    """What classes.txt says; empty if there is none."""
    path = folder / "classes.txt"
    if not path.is_file():
        return []
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{path}: expected at least two different names, one a line, background first; got {names}")
    return names


def _default_names(labels: dict[str, Array], origin: dict[str, Path], ignore_index: int) -> list[str]:
    """Names for labels 0, 1, …, without gaps: a gap is more often a 0/255 mask or instance ids than a missing class."""
    seen: set[int] = set()
    for stem, label in labels.items():
        here = {int(v) for v in np.unique(label)} - {ignore_index}
        if 255 in here and here <= {0, 255}:
            raise UserError(
                f"{origin[stem]}: holds the labels {sorted(here)}, a 0/255 mask? Use --task binary, or save 1 for "
                "255, or use --ignore-index 255 if those pixels are unlabelled"
            )
        seen |= here
    most = max(seen, default=0)
    gaps = sorted(set(range(most + 1)) - seen)
    if most >= _MOST_UNNAMED_CLASSES or gaps:
        why = f"label {gaps[0]} is missing" if gaps else f"that is {most + 1} classes"
        where = next(origin[stem] for stem, label in labels.items() if (label == most).any())
        raise UserError(
            f"{where}: labels go up to {most} and {why}. Class numbers? Then name each class in classes.txt. "
            "Object numbers? Then use --task binary"
        )
    first = "background" if next(iter(labels.values())).ndim else "class 0"
    return [first, *(f"class {k}" for k in range(1, most + 1))]


def _check_labels(labels: dict[str, Array], origin: dict[str, Path], classes: list[str], ignore_index: int) -> None:
    any_foreground = False
    ignores = any(bool((label == ignore_index).any()) for label in labels.values())
    for stem, label in labels.items():
        valid = label[label != ignore_index]
        any_foreground = any_foreground or bool((valid > 0).any())
        unnamed = np.unique(valid[valid >= len(classes)])
        if unnamed.size:
            ignore = "" if ignores or unnamed.size > 1 else f", or ignore it: --ignore-index {unnamed[0]}"
            raise UserError(
                f"{origin[stem]}: holds the label {unnamed[-1]}, but classes.txt names {len(classes)} classes "
                f"(0 to {len(classes) - 1}); name all up to {unnamed[-1]}, correct the label{ignore}"
            )
    if not any_foreground:
        where = next(iter(origin.values()))
        if where.suffix == ".csv":
            raise UserError(f"{where}: every label is 0, nothing to learn")
        raise UserError(f"{where.parent}: every mask is background only, nothing to learn")


def read_split(folder: Path, stems: list[str]) -> dict[str, str]:
    """The part that each image belongs to: what split.csv says, else a seeded quarter is held back."""
    path = folder / "split.csv"
    if path.is_file():
        wrong = f"not one of {', '.join(_SPLITS)}"
        split = _read_csv(path, "split", stems, lambda part: "" if part in _SPLITS else wrong)
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


def _read_csv(path: Path, column: str, stems: list[str], problem: Callable[[str], str]) -> dict[str, str]:
    """The column by stem: one row for every image. `problem` says what is wrong with a value, or ""."""
    values: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"stem", column} <= set(rows.fieldnames or ()):
            raise UserError(f"{path}: the first line must be stem,{column}; it is {','.join(rows.fieldnames or ())!r}")
        for row in rows:
            stem, value = row["stem"], row[column] or ""
            if problem(value):
                raise UserError(f"{path}, line {rows.line_num}: {value!r} is {problem(value)}")
            if stem not in stems:
                raise UserError(f"{path}, line {rows.line_num}: there is no image with the stem {stem!r}")
            if stem in values:
                raise UserError(f"{path}, line {rows.line_num}: {stem!r} is listed twice")
            values[stem] = value
    missing = [stem for stem in stems if stem not in values]
    if missing:
        hint = " (unused leaves it out)" if column == "split" else ""
        raise UserError(f"{path}: {missing[0]!r} is not listed; give it a {column}{hint}")
    return values


def _fingerprint(samples: list[tuple[str, Sample]]) -> str:
    """Changes when any pixel, label, name or split changes."""
    digest = hashlib.sha256()
    for part, sample in samples:
        digest.update(f"{sample.stem} {part} {sample.image.shape}".encode())
        digest.update(sample.image.tobytes())
        digest.update(sample.label.tobytes())
    return digest.hexdigest()[:16]


def _size(shape: tuple[int, ...]) -> str:
    """Width first, as people say it."""
    return " x ".join(map(str, reversed(shape)))
