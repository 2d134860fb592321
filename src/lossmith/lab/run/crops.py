"""The random crops of a trial, planned ahead from its seed: which part of which image each step shows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossmith.lab.data.labelled import Data
from lossmith.lab.data.samples import Sample
from lossmith.lab.settings import RunSettings

Array = np.ndarray[Any, Any]


class Crops:
    """The random crops of a run, all planned ahead from the seed: image, corner, and in 2-D the axes that are flipped.

    Volumes are not flipped: what is up and what is left means something in them. `batch` is how many crops a step has,
    if not as many as the settings say; a second number in the seed draws other crops.
    """

    def __init__(
        self, samples: list[Sample], settings: RunSettings, seed: int | tuple[int, int], batch: int | None = None
    ) -> None:
        self._samples, self._ignore_index = samples, settings.ignore_index
        space = np.array([s.shape[1:] for s in samples])
        space = np.maximum(space, settings.crop)  # smaller images are padded
        self._size = np.full_like(space[0], settings.crop) if settings.crop else space[0]
        shape = (settings.steps, batch or settings.batch)
        random = np.random.default_rng(seed)
        which = random.integers(len(samples), size=shape)
        corner = random.integers((space - self._size)[which] + 1)
        flips = random.integers(2, size=(*shape, 2)) if space.shape[1] == 2 else np.zeros_like(corner)
        self.plan = np.concatenate([which[..., None], corner, flips], axis=2)
        self.checksum = checksum(self.plan)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (batch, channels, *crop) float32 and labels (batch, *crop) or (batch,) int64 of one step."""
        images, labels = [], []
        for which, *rest in self.plan[step]:
            corner, flips = np.split(np.array(rest), 2)
            image, label = self._crop(self._samples[which], corner)
            turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
            images.append(image[:, *turn])
            labels.append(label[turn] if label.ndim else label)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long()

    def _crop(self, sample: Sample, corner: Array) -> tuple[Array, Array]:
        """A part of a sample; beyond its edge the image is its mean, and there is nothing to learn."""
        image, label = sample.window(tuple(slice(a, a + n) for a, n in zip(corner, self._size, strict=True)))
        missing = [(0, n - seen) for n, seen in zip(self._size, image.shape[1:], strict=True)]
        if any(after for _, after in missing):
            image = np.pad(image, [(0, 0), *missing])
            label = np.pad(label.astype(np.int64), missing, constant_values=self._ignore_index)
        return image, label


class LabelledCrops:
    """The crops of labelled images, and beside them those of images without labels, if there are any."""

    def __init__(self, data: Data, settings: RunSettings, seed: int) -> None:
        self.sources = [Crops(data.train, settings, seed)]
        if data.unlabelled:  # from a stream of its own: the labelled crops are the same with and without them
            self.sources.append(Crops(data.unlabelled, settings, (seed, 1), settings.unlabelled_batch))
        self.checksum = checksum(*(source.plan for source in self.sources))

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Images and labels of one step."""
        return tuple(map(torch.cat, zip(*(source.batch(step) for source in self.sources), strict=True)))


def checksum(*arrays: Array) -> str:
    """A short fingerprint of the bytes of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
