"""Which images of a folder are measured, and how: an index of the folder becomes jobs, by the kind of data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab.audit.pixels import PixelJob, measure_pixels
from lossmith.lab.audit.scenes import SceneJob, measure_scene
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.index import Index
from lossmith.lab.data.labelled import index_labels, index_pixels
from lossmith.lab.data.scenes import index_scenes
from lossmith.lab.kind import Kind
from lossmith.lab.settings import Asked

MOST_PIXELS = 6_000_000_000  # more are sampled unless --all: these took some five minutes on two cores


@dataclass
class Survey:
    """A folder, indexed, and the images in it that are to be measured."""

    kind: Kind
    asked: Asked
    index: Index
    jobs: list[Any]
    measure: Callable[[Any], Any]
    crop: int  # what a comparison would take; 0 for images as wholes
    faults: list[Fault] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every image that can be is measured."""
        return len(self.jobs) == len(self.index.shapes)

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return max((len(shape) - 1 for shape in self.index.shapes.values()), default=2)

    @property
    def channels(self) -> int:
        """Of every image."""
        return next((shape[0] for shape in self.index.shapes.values()), 1)

    def pixels(self, stem: str) -> int:
        """Of one image, in one channel."""
        return math.prod(self.index.shapes[stem][1:])


def survey(kind: Kind, folder: Path, asked: Asked, sample: int | None = None, everything: bool = False) -> Survey:
    """The folder and what to measure of it: all, or `sample` images, or as many as `MOST_PIXELS` allows.

    A kind of data that nothing here measures has its faults only.
    """
    if kind.name == "segmentation":
        index = index_pixels(folder, asked.group_by, asked.pages)
        found = Survey(kind, asked, index, [], measure_pixels, 0)
        found.crop = asked.crop or kind.sizes(found)[0]
        found.jobs = [_pixels(found, stem, mask, 0) for stem, mask in index.partners.items() if stem in index.shapes]
        found.jobs += [_pixels(found, stem, None, 0) for stem in index.shapes if stem not in index.partners]
    elif kind.name == "classification":
        index, labels = index_labels(folder, asked.ignore_index, asked.group_by)
        found = Survey(kind, asked, index, [], measure_pixels, 0)
        found.jobs = [_pixels(found, stem, None, labels[stem]) for stem in index.shapes if stem in labels]
    elif kind.name == "detection":
        index, (boxes, ignore) = index_scenes(folder)
        found = Survey(kind, asked, index, [], measure_scene, asked.crop or kind.sizes(None)[0])
        found.jobs = [
            SceneJob(stem, _part(index, stem), index.images[stem], boxes[stem], ignore[stem])
            for stem in index.shapes
            if stem in boxes
        ]
    else:
        return Survey(kind, asked, Index(folder, {}, {}, []), [], measure_pixels, 0, kind.faults(folder, asked))
    found.faults = list(index.faults)
    found.jobs = _chosen(found, sample, everything)
    return found


def _pixels(found: Survey, stem: str, mask: Path | None, label: int) -> PixelJob:
    asked, index = found.asked, found.index
    image, part = index.images[stem], _part(found.index, stem)
    binary = asked.task == "binary"
    return PixelJob(stem, part, image, mask, label, asked.ignore_index, binary, found.crop, asked.pages)


def _part(index: Index, stem: str) -> str:
    part = index.split.get(stem, "train")  # a fault in split.csv is listed; the image can be measured all the same
    return part if part in ("train", "validation", "unused") else "train"


def _chosen(found: Survey, sample: int | None, everything: bool) -> list[Any]:
    """All jobs, or a seeded choice of them, as many of each part as its share."""
    jobs = found.jobs
    total = sum(found.pixels(job.stem) for job in jobs)
    if sample is None:
        sample = max(2, int(len(jobs) * MOST_PIXELS / total)) if total > MOST_PIXELS and not everything else len(jobs)
    if sample >= len(jobs):
        return jobs
    random, kept = np.random.default_rng(0), set()
    for part in {job.part for job in jobs}:
        members = [i for i, job in enumerate(jobs) if job.part == part]
        count = max(1, round(sample * len(members) / len(jobs)))
        kept.update(random.permutation(members)[:count].tolist())
    return [job for i, job in enumerate(jobs) if i in kept]
