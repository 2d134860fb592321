"""An image with its labels, kept as its file has it; what is measured when it is read; the fingerprint of many."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab.data.files import mean_and_spread, read_stored, standardised
from lossmith.lab.data.stored import Store, Stored

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image `(channels, *S)` and its labels `(*S)`, or `()` for the whole image, in memory or on disk.

    Pixels are kept as their file has them and standardised when they are asked for. What is not given here is that of
    an image which is standardised already.
    """

    stem: str
    stored: Stored
    stored_label: Stored
    scale: tuple[Array, Array] | None = None  # mean and standard deviation of each channel, (channels, 1, …)
    pixels: dict[int, int] = field(default_factory=dict)  # of each label
    digest: str = ""  # of the image, whatever format it was stored in
    label_digest: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image, `(channels, *S)`."""
        return self.stored.shape

    @property
    def image(self) -> Array:
        """The whole image, float32."""
        return self._standardised(self.stored[...])

    @property
    def label(self) -> Array:
        """All labels, in as few bytes as hold them."""
        return self.stored_label[...]

    def window(self, window: tuple[slice, ...]) -> tuple[Array, Array]:
        """A part of the image and its labels; a label of the whole image stays what it is."""
        label = self.stored_label[window] if self.stored_label.ndim else self.label
        return self._standardised(self.stored[:, *window]), label

    def _standardised(self, pixels: Array) -> Array:
        return standardised(pixels, *self.scale) if self.scale else pixels


def read_sample(
    stem: str, path: Path, label: Array, ignore_index: int, store: Store, pages: str | None = None
) -> Sample:
    """Read, check and measure an image whose labels are known; its pixels go into the store."""
    stored = read_stored(path, pages)
    image = stored.astype(np.float32)
    values, pixels = np.unique(narrow := _narrow(label, ignore_index), return_counts=True)
    return Sample(
        stem,
        store.keep(stored),
        store.keep(narrow) if label.ndim else label.astype(np.int32),  # one number is worked with as such
        scale=mean_and_spread(image),
        pixels=dict(zip(values.tolist(), pixels.tolist(), strict=True)),
        digest=_digest(image),
        label_digest=_digest(narrow),
    )


def fingerprint(samples: list[tuple[str, Sample]]) -> str:
    """Changes when any pixel, label, name, split or group changes."""
    digest = hashlib.sha256()
    for part, sample in samples:
        digest.update(f"{sample.stem} {part} {sample.digest} {sample.label_digest}\n".encode())
    return digest.hexdigest()[:16]


def _narrow(label: Array, ignore_index: int) -> Array:
    """The labels in as few bytes as hold them and what is ignored, with which they are compared."""
    low, high = min(int(label.min()), ignore_index), max(int(label.max()), ignore_index)
    limits = (np.iinfo(kind) for kind in (np.uint8, np.int8, np.int16, np.int32))
    return label.astype(next(limit.dtype for limit in limits if limit.min <= low and high <= limit.max))


def _digest(array: Array) -> str:
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
