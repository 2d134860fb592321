"""What is measured of one image whose pixels are labelled, or which has one label as a whole.

Runs in processes of its own: what goes in and comes out is small, and only one image is in memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from lossmith.lab.data.faults import Fault, Faulty
from lossmith.lab.data.files import mean_and_spread, read_mask, read_stored, standardised
from lossmith.lab.settings import Pages

Array = np.ndarray[Any, Any]

BINS = 200  # of grey, in steps of 0.05 standard deviations of the image around its mean
_REACH = 5.0
_MOST_CLASSES = 64  # labels in one image: more are numbers of objects
_LABELS_KEPT = 64


@dataclass(frozen=True)
class PixelJob:
    """One image to measure. Without a mask `label` is that of the whole image."""

    stem: str
    part: str  # train, validation, unused
    image: Path
    mask: Path | None
    label: int
    ignore_index: int
    binary: bool
    crop: int
    pages: Pages | None = None


@dataclass
class Region:
    """The pixels of one class in one image, or of all classes but the background."""

    pixels: int
    boundary: int
    grey: Array  # how many of them in each bin of each channel, (channels, bins)
    sizes: Array  # pixels of each object: what touches, diagonally too, is one
    crops_without: float  # share of all places of a crop that hold none of it


@dataclass(frozen=True)
class Grey:
    """The values of one channel as they stand in the file."""

    least: float
    most: float
    mean: float
    deviation: float


@dataclass
class Measured:
    """What one image says by itself. Without `grey` it could not be read."""

    stem: str
    part: str
    shape: tuple[int, ...] = ()
    faults: list[Fault] = field(default_factory=list)
    digest: str = ""
    dtype: str = ""
    grey: list[Grey] = field(default_factory=list)


@dataclass
class MeasuredPixels(Measured):
    """And what its labels say. Without `labels` they could not be read."""

    spacing: tuple[float, ...] = ()
    labels: set[int] = field(default_factory=set)
    numbered: bool = False  # so many labels that they number objects; the classes are then 0 and 1
    valid: int = 0
    ignored: int = 0
    classes: dict[int, Region] = field(default_factory=dict)
    foreground: Region | None = None


def measure_pixels(job: PixelJob) -> MeasuredPixels:
    """Everything that one image says. What cannot be read is a fault, and the rest is measured."""
    found = MeasuredPixels(job.stem, job.part)
    bins = None
    try:
        raw = read_stored(job.image, job.pages)
        found.shape, found.dtype = raw.shape, str(raw.dtype)
        found.digest = digest_of(raw)
        found.grey = [grey_of(channel) for channel in raw]
        found.spacing = _spacing(job.image)
        if all(grey.deviation == 0 for grey in found.grey):
            fix = "replace it, or mark it unused in split.csv"
            found.faults.append(Fault(job.image, "every pixel has the same value", fix, fatal=False))
        bins = _binned(standardised(raw, *mean_and_spread(raw.astype(np.float32))))
        del raw
    except Faulty as error:
        found.faults.append(error.fault)
    try:
        label = read_mask(job.mask, job.ignore_index, job.pages) if job.mask else np.array(job.label, np.int32)
    except Faulty as error:
        found.faults.append(error.fault)
        return found
    if bins is not None and label.ndim and bins.shape[1:] != label.shape:
        bins = None
    _measure_labels(found, label, bins, job)
    return found


def digest_of(image: Array) -> str:
    """The same for the same values, however they are stored."""
    return hashlib.sha256(f"{image.shape}".encode() + image.astype(np.float32).tobytes()).hexdigest()[:32]


def grey_of(channel: Array) -> Grey:
    """Of one channel."""
    wide = channel.astype(np.float64)
    return Grey(float(wide.min()), float(wide.max()), float(wide.mean()), float(wide.std()))


def _spacing(path: Path) -> tuple[float, ...]:
    """Of a volume, in the units of its header; nothing for other images."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return ()
    volume: Any = nibabel.load(path)
    upright = nibabel.as_closest_canonical(volume)  # type: ignore[no-untyped-call]
    return tuple(round(float(step), 4) for step in upright.header.get_zooms()[:3])


def _binned(image: Array) -> Array:
    """A standardised image (channels, *S) as numbers of bins."""
    return np.asarray(np.clip((image + _REACH) * (BINS / (2 * _REACH)), 0, BINS - 1).astype(np.int16))


def lower_edge(number: int) -> float:
    """Of a bin, in standard deviations from the mean of the image."""
    return number * 2 * _REACH / BINS - _REACH


def _measure_labels(found: MeasuredPixels, label: Array, bins: Array | None, job: PixelJob) -> None:
    valid = label != job.ignore_index
    found.valid = int(valid.sum())
    found.ignored = label.size - found.valid
    found.labels = _some(np.unique(label).tolist())
    present = [k for k in np.unique(label[valid]).tolist() if k > 0]
    found.numbered = label.ndim > 0 and len(present) > _MOST_CLASSES
    if job.part == "unused":
        return
    if job.binary or found.numbered:
        label = np.where(valid, label > 0, job.ignore_index).astype(np.int32)
        present = [1] if present else []
    edges = _edges(label, valid)
    found.classes = {k: _region(label == k, edges, bins, job.crop, objects=k > 0) for k in (0, *present)}
    if len(present) == 1:
        found.foreground = found.classes[present[0]]
    else:
        found.foreground = _region(valid & (label != 0), edges, bins, job.crop, objects=True)


def _some(labels: list[int]) -> set[int]:
    """The labels of an image; of very many the lowest and the highest, which say enough of numbered objects."""
    half = _LABELS_KEPT // 2
    return set(labels if len(labels) <= _LABELS_KEPT else labels[:half] + labels[-half:])


def _edges(label: Array, valid: Array) -> Array:
    """The pixels that have another label beside them, by a side. What is ignored is no other label."""
    edges = np.zeros(label.shape, dtype=bool)
    for axis in range(label.ndim):
        here = tuple(np.s_[:-1] if i == axis else np.s_[:] for i in range(label.ndim))
        there = tuple(np.s_[1:] if i == axis else np.s_[:] for i in range(label.ndim))
        differs = (label[here] != label[there]) & valid[here] & valid[there]
        edges[here] |= differs
        edges[there] |= differs
    return edges


def _region(inside: Array, edges: Array, bins: Array | None, crop: int, objects: bool) -> Region:
    pixels = int(inside.sum())
    grey = np.zeros((0, BINS), np.int64)
    if bins is not None and inside.ndim:
        grey = np.stack([np.bincount(channel[inside], minlength=BINS) for channel in bins])
    if not (objects and inside.ndim):
        return Region(pixels, int((edges & inside).sum()), grey, np.zeros(0, np.int64), 0.0 if pixels else 1.0)
    sizes = object_sizes(inside)
    return Region(pixels, int((edges & inside).sum()), grey, sizes, crops_without(inside, crop) if pixels else 1.0)


def object_sizes(inside: Array) -> Array:
    """The pixels of each connected part, touching by corners too."""
    boxes = ndimage.find_objects(inside.astype(np.uint8))
    if not boxes:
        return np.zeros(0, np.int64)
    whole = np.ones((3,) * inside.ndim, dtype=bool)
    numbered, _ = ndimage.label(inside[boxes[0]], structure=whole)
    return np.asarray(np.bincount(numbered.ravel())[1:])


def crops_without(inside: Array, crop: int) -> float:
    """The share of all places of a crop at which it holds nothing: each is as likely, as in training."""
    held = inside
    for axis in range(inside.ndim):
        if held.shape[axis] <= crop:
            held = np.asarray(held.any(axis=axis, keepdims=True))
            continue
        sums = np.cumsum(held, axis=axis, dtype=np.int32)
        start = np.zeros_like(sums.take([0], axis))
        before = np.concatenate([start, sums], axis=axis)
        low = np.arange(held.shape[axis] - crop + 1)
        held = before.take(low + crop, axis) > before.take(low, axis)
    return float(1 - held.mean())
