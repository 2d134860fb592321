"""Labelled images: a folder with `images/` and `masks/`, or with `images/` and `labels.csv`.

    mydata/
      images/a.png b.png …     PNG, JPEG, BMP, TIFF or NPY; 8 bit, 16 bit or float; grey, RGB or more channels; or
                               NIfTI volumes; turned upright where an orientation tag says so; in sub-folders too
      masks/a.png b.png …      the same stems, or a_mask, a_label, a_seg; whole numbers, 0 is background; labels/ too
      labels.csv               instead of masks/: columns stem,label; a label for each whole image (classification)
      split.csv                optional: columns stem,split with split = train, validation or unused; and group (or
                               patient, case) for images that belong together, with or without split
      classes.txt              optional: one class name a line, background first
      SOURCE.txt               optional: licence and citation, printed and put into the report

Or a folder of nnU-Net or of the Decathlon: imagesTr/ (case_0000, case_0001 … for the channels of a case), labelsTr/ and
dataset.json, which names the classes. What is no image (README.txt, Thumbs.db) is skipped with a line.

Tables may give names of files for stems. Without a split a seeded quarter of the images is held back for validation,
whole groups where they are known (groups.py). Every channel of every image is brought to mean 0 and standard deviation
1. Pixels are held as the files have them, or stream from disk (stored.py). The spacing of volumes is not read: a voxel
is a cube. A second folder may hold images without masks, of the same kind: `add_unlabelled`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab import UserError
from lossmith.lab.data.classes import name_classes
from lossmith.lab.data.faults import Fault, Faulty, raise_first
from lossmith.lab.data.files import (
    FORMATS,
    image_shape,
    mask_shape,
    orientation,
    read_mask,
    read_stored,
)
from lossmith.lab.data.folds import deal
from lossmith.lab.data.index import Index, index_images, list_files, list_masks, read_headers, turned
from lossmith.lab.data.samples import Sample, fingerprint, read_sample
from lossmith.lab.data.stored import Store, Watch, in_threads
from lossmith.lab.data.tables import read_column

Array = np.ndarray[Any, Any]


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
    groups: dict[str, str] = field(default_factory=dict)  # stem → patient or the like; {} if nobody said
    notices: list[str] = field(default_factory=list)  # what the user should know and nothing fails for

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.train[0].shape[0]

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.train[0].shape) - 1

    def counts(self, samples: list[Sample]) -> Array:
        """Pixels of each class in each of some images, `(images, classes)`; whole images count as one pixel."""
        counts = np.zeros((len(samples), len(self.classes)), np.int64)
        for row, sample in zip(counts, samples, strict=True):
            for label, pixels in sample.pixels.items():
                if label != self.ignore_index:
                    row[label] = pixels
        return counts

    def shares(self) -> list[float]:
        """Each class's share of the labelled pixels, unused images left out."""
        total = self.counts(self.train + self.validation).sum(0)
        return [float(n) for n in total / total.sum()]

    def one_sided(self) -> dict[str, str]:
        """The classes that only one side holds, and what that means."""
        train, held = (self.counts(side).sum(0) > 0 for side in (self.train, self.validation))
        told = {
            (True, False): "stands in no image that is held back: nothing can be said of it",
            (False, True): "stands in no image to train on: nothing can learn it",
        }
        pairs = zip(self.classes[1:], train[1:].tolist(), held[1:].tolist(), strict=True)
        return {name: told[a, b] for name, a, b in pairs if a != b}

    def fold(self, k: int, of: int) -> Data:
        """The data with other images held back: those of fold `k` of `of`, counted from 0.

        Each image that trains or is held back is held back in one fold; groups stay whole. The folds are the same
        whenever this is called. Raises `UserError` for more folds than there are groups, or images if nobody said.
        """
        samples = sorted(self.train + self.validation, key=lambda s: s.stem)
        held = self.counts(samples) > 0
        images = held.sum(0)
        rarest = int(np.where(images > 0, images, len(samples) + 1).argmin())
        rare = {s.stem: bool(h) for s, h in zip(samples, held[:, rarest], strict=True)}
        fold = deal(rare, self.groups, of)
        return replace(
            self,
            train=[s for s in samples if fold[s.stem] != k],
            validation=[s for s in samples if fold[s.stem] == k],
        )


# ------------------------------------------------------------------------------------------------- names and headers


def index_pixels(folder: Path, group_by: str | None = None, pages: str | None = None) -> Index:
    """A folder of images and masks, indexed."""
    index = index_images(folder, f"expected {FORMATS}", pages)
    if index.images:
        list_masks(index)
    spaces = read_headers(index.partners, lambda path: mask_shape(path, pages), index.faults)
    index.shapes = read_headers(index.images, lambda path: image_shape(path, pages), index.faults)
    _compare_shapes(index, spaces)
    turned(index)
    index.read_tables(group_by)
    _leave_out_unused(index)
    return index


def _leave_out_unused(index: Index) -> None:
    """An image that split.csv marks unused may have faults: then it is not there."""
    for stem in [stem for stem, side in index.split.items() if side == "unused" and stem in index.images]:
        paths = {index.images[stem], index.partners.get(stem)}
        if any(fault.fatal and fault.path in paths for fault in index.faults):
            index.faults[:] = [fault for fault in index.faults if fault.path not in paths]
            for known in (index.images, index.partners, index.shapes):
                known.pop(stem, None)


def index_labels(folder: Path, ignore_index: int, group_by: str | None = None) -> tuple[Index, dict[str, int]]:
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
    index.read_tables(group_by)
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
            if orientation(index.images[stem]) != orientation(path):
                what += ", turned upright as its tag says"
                fix = "remove the orientation tag of the image if the mask was drawn on it as it is stored"
        elif index.dataset.channels not in (None, shape[0]):
            what = f"{shape[0]} channels, but dataset.json names {index.dataset.channels}"
            fix = "give every case all its channels, from _0000 on"
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


def read_pixels(
    folder: Path,
    name: str,
    task: str,
    ignore_index: int,
    group_by: str | None = None,
    watch: Watch = lambda *_: None,
    pages: str | None = None,
) -> Data:
    """Read a folder of images and masks (see the top of this file).

    `task="binary"` reads every label above 0 as foreground, `group_by` says which images belong together (groups.py),
    `watch(done, total)` hears how far it is, and `pages` says what those of a TIFF are. Raises `UserError` naming the
    file and the fix.
    """
    index = index_pixels(folder, group_by, pages)
    index.check()
    return _read(
        index, name, lambda stem: read_mask(index.partners[stem], ignore_index, pages), task, ignore_index, watch
    )


def read_labels(
    folder: Path, name: str, task: str, ignore_index: int, group_by: str | None = None, watch: Watch = lambda *_: None
) -> Data:
    """The same for a folder of images with a label each."""
    index, labels = index_labels(folder, ignore_index, group_by)
    index.check()
    return _read(index, name, lambda stem: np.array(labels[stem]), task, ignore_index, watch)


def _read(
    index: Index, name: str, read_label: Callable[[str], Array], task: str, ignore_index: int, watch: Watch
) -> Data:
    store = Store()

    def read(stem: str) -> Sample:
        label = read_label(stem)
        if task == "binary":
            label = np.where(label == ignore_index, label, label > 0)
        return read_sample(stem, index.images[stem], label, ignore_index, store, index.pages)

    samples = dict(zip(index.images, in_threads(read, index.stems, index.largest, watch), strict=True))
    seen = {stem: set(sample.pixels) for stem, sample in samples.items()}
    classes, faults = name_classes(seen, index, task, ignore_index)
    raise_first(faults)
    rows = [(f"{index.split[s]} {index.groups.get(s, '')}", samples[s]) for s in index.images]
    return Data(
        name=name,
        train=[samples[s] for s in index.images if index.split[s] == "train"],
        validation=[samples[s] for s in index.images if index.split[s] == "validation"],
        classes=classes,
        ignore_index=ignore_index,
        source=index.source,
        fingerprint=fingerprint(rows),
        groups=index.groups,
        notices=[*map(str, index.faults + faults), *store.notices],
    )


def faults_of_pixels(
    folder: Path, task: str, ignore_index: int, group_by: str | None = None, pages: str | None = None
) -> list[Fault]:
    """Everything that is wrong in a folder of images and masks, a few files in memory at a time."""
    index = index_pixels(folder, group_by, pages)
    return _faults(index, lambda stem: read_mask(index.partners[stem], ignore_index, pages), task, ignore_index)


def faults_of_labels(folder: Path, task: str, ignore_index: int, group_by: str | None = None) -> list[Fault]:
    """The same for a folder of images with a label each."""
    index, labels = index_labels(folder, ignore_index, group_by)
    index.partners = {stem: path for stem, path in index.partners.items() if stem in labels}
    return _faults(index, lambda stem: np.array(labels[stem]), task, ignore_index)


def _faults(index: Index, read_label: Callable[[str], Array], task: str, ignore_index: int) -> list[Fault]:
    def look(stem: str) -> tuple[set[int], list[Fault]]:
        labels: set[int] = set()
        faults: list[Fault] = []
        try:
            labels = {int(v) for v in np.unique(read_label(stem))} if stem in index.partners else labels
        except Faulty as error:
            faults.append(error.fault)
        return labels, faults + _unreadable(stem, index)

    found = dict(zip(index.images, in_threads(look, index.stems, index.largest), strict=True))
    seen = {stem: labels for stem, (labels, _) in found.items() if labels}
    faults = [*index.faults, *(fault for _, faults in found.values() for fault in faults)]
    if len(seen) == len(index.images):  # what all labels together say is said of all or not at all
        faults += name_classes(seen, index, task, ignore_index)[1]
    return list(dict.fromkeys(faults))  # a file whose header is wrong is met twice


def unreadable(index: Index) -> list[Fault]:
    """What is wrong in the pixels of images whose header is right, a few images in memory at a time."""
    found = in_threads(lambda stem: _unreadable(stem, index), index.stems, index.largest)
    return [fault for faults in found for fault in faults]


def _unreadable(stem: str, index: Index) -> list[Fault]:
    try:
        if stem in index.shapes:
            read_stored(index.images[stem], index.pages)
    except Faulty as error:
        return [error.fault]
    return []


def add_unlabelled(data: Data, folder: Path, watch: Watch = lambda *_: None) -> Data:
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
    held_back = {s.digest: s.stem for s in data.validation}
    store, ignored = Store(), np.array(data.ignore_index)
    shapes = {stem: image_shape(path) for stem, path in paths.items()}
    largest = max(math.prod(shape) for shape in shapes.values())

    def read(stem: str) -> Sample:
        path, shape = paths[stem], shapes[stem]
        if (len(shape) - 1, shape[0]) != (data.dimensions, data.channels):
            raise UserError(
                f"{path}: {len(shape) - 1}-D with {shape[0]} channels, but the images of {data.name} are "
                f"{data.dimensions}-D with {data.channels}; all must be alike"
            )
        sample = read_sample(stem, path, ignored, data.ignore_index, store)
        same = held_back.get(sample.digest)
        if same is not None:
            raise UserError(f"{path}: is the image {same!r}, which is held back to judge by; remove it")
        return replace(sample, stored_label=np.broadcast_to(ignored, shape[1:]))

    samples = list(in_threads(read, list(paths), largest, watch))
    rows = [(f"unlabelled beside {data.fingerprint}", s) for s in samples]
    return replace(data, unlabelled=samples, fingerprint=fingerprint(rows), notices=data.notices + store.notices)


def _size(shape: tuple[int, ...]) -> str:
    """Width first, as people say it."""
    return " x ".join(map(str, reversed(shape)))
