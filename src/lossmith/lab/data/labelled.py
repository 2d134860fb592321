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

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab import UserError
from lossmith.lab.data.classes import name_classes
from lossmith.lab.data.faults import Fault, Faulty, raise_first
from lossmith.lab.data.files import FORMATS, image_shape, mask_shape, read_image, read_mask, suffixes_beside
from lossmith.lab.data.index import Index, index_images, list_files, list_part, read_headers, unread_in
from lossmith.lab.data.tables import read_column

Array = np.ndarray[Any, Any]


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
    groups: dict[str, str] = field(default_factory=dict)  # the patient of each stem, where that is known
    unlabelled: list[Sample] = field(default_factory=list)  # every pixel of theirs is ignored

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return int(self.train[0].image.shape[0])

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return self.train[0].image.ndim - 1

    def counts(self, samples: list[Sample]) -> Array:
        """Pixels of each class in each of some images, `(images, classes)`; whole images count as one pixel."""
        valid = (s.label[s.label != self.ignore_index] for s in samples)
        return np.stack([np.bincount(labels, minlength=len(self.classes)) for labels in valid])

    def shares(self) -> list[float]:
        """Each class's share of the labelled pixels, unused images left out."""
        total = self.counts(self.train + self.validation).sum(0)
        return [float(n) for n in total / total.sum()]


# ------------------------------------------------------------------------------------------------- names and headers


def index_pixels(folder: Path) -> Index:
    """A folder of images and masks, indexed."""
    index = index_images(folder, f"expected {FORMATS}")
    masks = list_part(folder, "masks", index.faults) if index.images else {}
    if masks is not None:
        unread, images = unread_in(folder / "masks", index.faults), index.images.keys() | index.unread
        missing = [(path, "mask", "masks", s) for s, path in index.images.items() if s not in masks.keys() | unread]
        missing += [(path, "image", "images", s) for s, path in masks.items() if s not in images]
        for path, what, part, stem in missing:
            fix = f"expected {part}/{stem} with {suffixes_beside(path)}"
            index.faults.append(Fault(path, f"no {what} for it", fix))
        index.partners = {stem: masks[stem] for stem in index.images if stem in masks}
    spaces = read_headers(index.partners, mask_shape, index.faults)
    index.shapes = read_headers(index.images, image_shape, index.faults)
    _compare_shapes(index, spaces)
    index.read_tables()
    return index


def index_labels(folder: Path, ignore_index: int) -> tuple[Index, dict[str, int]]:
    """A folder of images and labels.csv, indexed; and the labels by stem."""

    def problem(text: str) -> str:
        number = text.removeprefix("-").isdecimal() and (int(text) >= 0 or int(text) == ignore_index)
        return "" if number else "no label; labels are whole numbers from 0"

    index = index_images(folder, f"expected {FORMATS}")
    table = folder / "labels.csv"
    texts = read_column(table, "label", index.stems, problem, index.faults, index.unread) if index.images else {}
    index.partners = dict.fromkeys(index.images, table)
    index.shapes = read_headers(index.images, image_shape, index.faults)
    _compare_shapes(index, None)
    index.read_tables()
    labels = {stem: int(text) for stem, text in texts.items() if stem in index.images and not problem(text)}
    return index, labels


def _compare_shapes(index: Index, masks: dict[str, tuple[int, ...]] | None) -> None:
    """The images fit their masks and each other; without masks they have one size."""
    first = next(iter(index.shapes), "")
    for stem, shape in index.shapes.items():
        path, other, name = index.images[stem], index.shapes[first], index.images[first].name
        if masks is not None and shape[1:] != masks.get(stem, shape[1:]):
            path = index.partners[stem]
            what = f"the mask is {_size(masks[stem])} but its image is {_size(shape[1:])} pixels"
            fix = "they must have the same size"
        elif len(shape) != len(other):
            what = f"is {len(shape) - 1}-D, but {name} is {len(other) - 1}-D"
            fix = "keep images and volumes in separate folders"
        elif shape[0] != other[0]:
            what = f"{shape[0]} channels, but {name} has {other[0]}"
            fix = "save all images with the same number of channels"
        elif masks is None and shape != other:
            what = f"is {_size(shape[1:])} pixels, but {name} is {_size(other[1:])}"
            fix = "images with a label each must have one size"
        else:
            continue
        index.faults.append(Fault(path, what, fix))


# -------------------------------------------------------------------------------------------------------------- values


def read_pixels(folder: Path, name: str, task: str, ignore_index: int) -> Data:
    """Read a folder of images and masks (see the top of this file).

    `task="binary"` reads every label above 0 as foreground. Raises `UserError` naming the file and the fix.
    """
    index = index_pixels(folder)
    index.check()
    labels = {stem: read_mask(path, ignore_index) for stem, path in index.partners.items()}
    return _read(index, name, labels, task, ignore_index)


def read_labels(folder: Path, name: str, task: str, ignore_index: int) -> Data:
    """The same for a folder of images with a label each."""
    index, labels = index_labels(folder, ignore_index)
    index.check()
    return _read(index, name, {s: np.array(label, np.int32) for s, label in labels.items()}, task, ignore_index)


def _read(index: Index, name: str, labels: dict[str, Array], task: str, ignore_index: int) -> Data:
    images = {stem: read_image(path) for stem, path in index.images.items()}
    seen = {stem: {int(v) for v in np.unique(label)} for stem, label in labels.items()}
    classes, faults = name_classes(seen, index, task, ignore_index)
    raise_first(faults)
    if task == "binary":
        labels = {s: np.where(x == ignore_index, x, x > 0).astype(np.int32) for s, x in labels.items()}
    samples = {stem: Sample(stem, images[stem], labels[stem]) for stem in index.images}
    return Data(
        name=name,
        train=[samples[s] for s in index.images if index.split[s] == "train"],
        validation=[samples[s] for s in index.images if index.split[s] == "validation"],
        classes=classes,
        ignore_index=ignore_index,
        source=index.source,
        fingerprint=_fingerprint([(index.split[s], samples[s]) for s in index.images]),
    )


def faults_of_pixels(folder: Path, task: str, ignore_index: int) -> list[Fault]:
    """Everything that is wrong in a folder of images and masks, one file in memory at a time."""
    index = index_pixels(folder)
    seen = {}
    for stem, path in index.partners.items():
        try:
            seen[stem] = {int(v) for v in np.unique(read_mask(path, ignore_index))}
        except Faulty as error:
            index.faults.append(error.fault)
    return _faults(index, seen, task, ignore_index)


def faults_of_labels(folder: Path, task: str, ignore_index: int) -> list[Fault]:
    """The same for a folder of images with a label each."""
    index, labels = index_labels(folder, ignore_index)
    return _faults(index, {stem: {label} for stem, label in labels.items()}, task, ignore_index)


def _faults(index: Index, seen: dict[str, set[int]], task: str, ignore_index: int) -> list[Fault]:
    faults = [*index.faults, *unreadable(index)]
    if len(seen) == len(index.images):  # what all labels together say is said of all or not at all
        faults += name_classes(seen, index, task, ignore_index)[1]
    return list(dict.fromkeys(faults))  # a file whose header is wrong is met twice


def unreadable(index: Index) -> list[Fault]:
    """What is wrong in the pixels of images whose header is right, one image in memory at a time."""
    faults = []
    for stem in index.shapes:
        try:
            read_image(index.images[stem])
        except Faulty as error:
            faults.append(error.fault)
    return faults


def add_unlabelled(data: Data, folder: Path) -> Data:
    """The data with every image of a folder as training images whose pixels are all ignored.

    Raises `UserError` for images that do not fit those of the data, and for one that is held back: training must not
    see it.
    """
    if not folder.is_dir():
        raise UserError(f"--unlabelled {folder}: is not a folder")
    faults: list[Fault] = []
    paths = list_files(folder, faults)
    raise_first(faults)
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
