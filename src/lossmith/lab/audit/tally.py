"""What is kept of all images: sums, histograms, and a few numbers an image. The pixels are gone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossmith.lab.audit.pixels import BINS, Grey, MeasuredPixels, Region
from lossmith.lab.audit.scenes import MeasuredScene
from lossmith.lab.data.faults import Fault

Array = np.ndarray[Any, Any]

SMALL = 64  # pixels or voxels: 8 x 8, or 4 x 4 x 4
_STEPS = np.unique(np.geomspace(1, 2**36, 640).round().astype(np.int64))  # of sizes: exact to 25, then by 4 %


class Sizes:
    """How large objects are, as a histogram."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(_STEPS), np.int64)
        self.small = 0
        self.smallest = 0
        self.largest = 0

    def add(self, sizes: Array) -> None:
        """The objects of one more image."""
        if not sizes.size:
            return
        self.counts += np.bincount(np.searchsorted(_STEPS, sizes, side="right") - 1, minlength=len(_STEPS))
        self.small += int((sizes < SMALL).sum())
        least, most = int(sizes.min()), int(sizes.max())
        self.smallest = min(self.smallest or least, least)
        self.largest = max(self.largest, most)

    def join(self, other: Sizes) -> None:
        """The objects of another part."""
        self.counts += other.counts
        self.small += other.small
        self.smallest = min((n for n in (self.smallest, other.smallest) if n), default=0)
        self.largest = max(self.largest, other.largest)

    @property
    def count(self) -> int:
        """Of all objects."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> int:
        """The size that a share of the objects does not exceed, to 4 %."""
        return int(_STEPS[np.searchsorted(self.counts.cumsum(), share * self.count)]) if self.count else 0


@dataclass
class ClassTally:
    """One class in one part of the images."""

    pixels: int = 0
    boundary: int = 0
    images: int = 0  # that hold it
    shares: list[float] = field(default_factory=list)  # in each of those
    crops_without: float = 0.0  # summed over those
    sizes: Sizes = field(default_factory=Sizes)
    grey: Array = field(default_factory=lambda: np.zeros((0, BINS), np.int64))

    def add(self, region: Region, valid: int) -> None:
        """One more image."""
        if region.grey.size:
            self.grey = self.grey + region.grey if self.grey.size else region.grey
        if not region.pixels:
            return
        self.pixels += region.pixels
        self.boundary += region.boundary
        self.images += 1
        self.shares.append(region.pixels / valid)
        self.crops_without += region.crops_without
        self.sizes.add(region.sizes)


class Tally:
    """What all kinds have. Images that are unused count as such, with their faults, and nowhere else."""

    def __init__(self) -> None:
        self.images: Counter[str] = Counter()
        self.unreadable = 0
        self.faults: list[Fault] = []
        self.digests: dict[str, list[str]] = {}
        self.parts: dict[str, str] = {}
        self.shapes: Counter[tuple[int, ...]] = Counter()
        self.dtypes: Counter[str] = Counter()
        self.spacings: Counter[tuple[float, ...]] = Counter()
        self.grey: dict[str, list[list[Grey]]] = {"train": [], "validation": []}

    def add(self, found: MeasuredPixels | MeasuredScene) -> None:
        """One more image."""
        self.faults += found.faults
        self.images[found.part] += 1
        self.parts[found.stem] = found.part
        self.unreadable += not found.grey
        if not found.grey or found.part == "unused":
            return
        self.digests.setdefault(found.digest, []).append(found.stem)
        self.shapes[found.shape] += 1
        self.dtypes[found.dtype] += 1
        self.grey[found.part].append(found.grey)


class PixelTally(Tally):
    """Images with labels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[int]] = {}
        self.numbered = 0
        self.labelled: Counter[str] = Counter()
        self.valid: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.classes: dict[str, dict[int, ClassTally]] = {"train": {}, "validation": {}}
        self.foreground = {"train": ClassTally(), "validation": ClassTally()}

    def add(self, found: MeasuredPixels | MeasuredScene) -> None:
        """One more image."""
        super().add(found)
        assert isinstance(found, MeasuredPixels)
        if not found.labels:
            return
        self.seen[found.stem] = found.labels
        self.numbered += found.numbered
        if found.part == "unused":
            return
        if found.spacing:
            self.spacings[found.spacing] += 1
        self.labelled[found.part] += 1
        self.valid[found.part] += found.valid
        self.ignored[found.part] += found.ignored
        for k, region in found.classes.items():
            self.classes[found.part].setdefault(k, ClassTally()).add(region, found.valid)
        if found.foreground:
            self.foreground[found.part].add(found.foreground, found.valid)


class SceneTally(Tally):
    """Images with boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: dict[str, list[Array]] = {"train": [], "validation": []}
        self.ignored = 0
        self.points: Counter[str] = Counter()
        self.positive: Counter[str] = Counter()

    def add(self, found: MeasuredPixels | MeasuredScene) -> None:
        """One more image."""
        super().add(found)
        assert isinstance(found, MeasuredScene)
        if found.part == "unused":
            return
        self.sides[found.part].append(found.sides.astype(np.float32))
        self.ignored += found.ignored
        self.points[found.part] += found.points
        self.positive[found.part] += found.positive
