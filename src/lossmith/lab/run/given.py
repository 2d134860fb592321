"""Data that the user gives: a `torch.utils.data.Dataset`, or a `DataLoader` of one, of pairs (image, label).

What a data set draws at random follows from the seed of the trial, the step, and the place in the batch, in worker
processes too: every loss sees the same images. A loader's own order, batches, collate_fn and workers are kept.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data
from lossmith.lab.run.chance import reseed, seeded
from lossmith.lab.run.crops import checksum
from lossmith.lab.settings import RunSettings

Array = np.ndarray[Any, Any]

_HELD = 8  # items in memory: what a property asks for is one of the last


class Source:
    """A data set, whose items are read with the random numbers of a seed.

    Args:
        given: the data set or loader.
        name: what errors call it.
        keys: of image and label, where items are dicts.
        task, ignore_index: as in the settings of a comparison; binary reads labels above 0 as 1.
    """

    def __init__(self, given: Any, name: str, keys: tuple[str, str], task: str, ignore_index: int) -> None:
        self.name, self._keys, self._task, self._ignore_index = name, keys, task, ignore_index
        self.loader: Any = given if isinstance(given, DataLoader) else None
        self.dataset: Any = given if self.loader is None else self.loader.dataset
        if isinstance(self.dataset, IterableDataset) or not hasattr(self.dataset, "__getitem__"):
            what = type(self.dataset).__name__
            raise UserError(f"{name}: a {what} has no items; give a torch.utils.data.Dataset with them")
        try:
            self.length: int = len(self.dataset)  # type: ignore[arg-type]
        except TypeError as error:
            raise UserError(
                f"{name}: a {type(self.dataset).__name__} has no length; add __len__, for only then can every loss "
                "see the same images"
            ) from error
        if not self.length:
            raise UserError(f"{name}: is empty")
        if self.loader is not None and self.loader.batch_sampler is None:
            raise UserError(f"{name}: a DataLoader without batches; give it a batch_size")
        self.collate = self.loader.collate_fn if self.loader is not None else default_collate
        self.item = lru_cache(_HELD)(self._item)

    def order(self, steps: int, batch: int, seed: int) -> list[list[int]]:
        """Which items each step shows: as the loader would, or else in an order that is drawn anew for each epoch."""
        random = np.random.default_rng(seed)
        epoch: Any = self.loader.batch_sampler if self.loader is not None else None
        plan: list[list[int]] = []
        with seeded(seed):
            for part in (self.loader, epoch, getattr(epoch, "sampler", None)):
                if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                    generator.manual_seed(seed)
            while len(plan) < steps:
                if epoch is None:
                    drawn = random.permutation(self.length).tolist()
                    batches = iter([drawn[i : i + batch] for i in range(0, self.length, batch)])
                else:
                    batches = iter(epoch)
                more = [list(rows) for rows in itertools.islice(batches, steps - len(plan))]
                if not more:
                    raise UserError(f"{self.name}: its loader gives no batch; drop drop_last, or take a smaller batch")
                plan += more
        return plan

    def batch(self, rows: Sequence[int], seed: int, step: int) -> tuple[Tensor, Tensor]:
        """The images (N, channels, *S) float32 and labels (N, *S) or (N,) int64 of one step."""
        with seeded(seed, step):
            drawn = _Drawn(self.dataset)
            items = [drawn[row, seed, step, i] for i, row in enumerate(rows)]
            try:
                collated = self.collate(items)
            except (RuntimeError, TypeError) as error:
                which, why = ", ".join(map(str, rows)), str(error).splitlines()[0]
                raise UserError(
                    f"{self.name}: items {which} make no batch ({why}); crop or pad images to one size, or give a "
                    "DataLoader with a collate_fn"
                ) from error
            return self.unpacked(collated, 1)

    def in_workers(self, plan: Sequence[Sequence[int]], seed: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same for the steps from `first` on, by the worker processes of the loader."""
        rows = [[(row, seed, step, i) for i, row in enumerate(plan[step])] for step in range(first, len(plan))]
        dataset: Any = _Drawn(self.dataset)
        loader: Any = DataLoader(
            dataset,
            batch_sampler=rows,
            collate_fn=self.collate,
            num_workers=self.loader.num_workers,
            worker_init_fn=self.loader.worker_init_fn,
            multiprocessing_context=self.loader.multiprocessing_context,
        )
        return (self.unpacked(batch, 1) for batch in loader)

    def _item(self, index: int) -> tuple[Array, Array]:
        """An image (channels, *S) and its labels, () for the whole image; the same at each call."""
        with seeded(index):
            item = _Drawn(self.dataset)[index, index, 0, 0]
        if isinstance(item, list) and item and isinstance(item[0], Mapping):
            item = item[0]  # several crops of one image, as some transforms of MONAI give
        image, label = self.unpacked(item, 0)
        return image.numpy(), label.numpy().astype(np.int32)

    def unpacked(self, item: Any, axis: int) -> tuple[Tensor, Tensor]:
        """Image and label of an item, or of a batch; `axis` is that of the channels."""
        if isinstance(item, Mapping):
            missing = [key for key in self._keys if key not in item]
            if missing:
                has = ", ".join(map(str, item))
                raise UserError(f"{self.name}: no {missing[0]!r} among {has}; name both with keys=(image, label)")
            item = [item[key] for key in self._keys]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            what = f"{len(item)} things" if isinstance(item, (tuple, list)) else f"a {type(item).__name__}"
            raise UserError(f"{self.name}: gives {what}; it must give (image, label), or a dict with keys=")
        image, label = (self._tensor(part, which) for part, which in zip(item, ("image", "label"), strict=True))
        if not image.is_floating_point():
            raise UserError(f"{self.name}: images are {image.dtype}; give floats, as the network takes them")
        return image.float(), self._label(label, image, axis)

    def _tensor(self, part: Any, which: str) -> Tensor:
        try:
            tensor = part if isinstance(part, Tensor) else torch.as_tensor(np.asarray(part))
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.name}: the {which} is a {type(part).__name__}; it must be a tensor") from error
        return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor  # MONAI's know where they come from

    def _label(self, label: Tensor, image: Tensor, axis: int) -> Tensor:
        if label.ndim == image.ndim and label.shape[axis] == 1:
            label = label.squeeze(axis)  # one channel of labels, as MONAI has them
        if label.is_floating_point() and not bool((label == label.round()).all()):
            raise UserError(f"{self.name}: labels are {label.dtype} with fractions; they must be class numbers")
        space = image.shape[:axis] + image.shape[axis + 1 :]
        if label.shape not in (space, image.shape[:axis]):
            raise UserError(
                f"{self.name}: labels {tuple(label.shape)} do not fit images {tuple(image.shape)}; they must be "
                f"{tuple(space)}, or {tuple(image.shape[:axis])} with one label for each image"
            )
        label = label.long()
        return torch.where(label == self._ignore_index, label, (label > 0).long()) if self._task == "binary" else label

    def known(self) -> str:
        """What the data are known by: their type, their length, and a hash of the first of their items."""
        digest = hashlib.sha256(f"{plain(repr(self.dataset))} {self.length}".encode())
        for index in range(min(_HELD, self.length)):
            for array in self.item(index):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


class GivenSample:
    """One item of a data set, read when it is asked for."""

    def __init__(self, source: Source, index: int) -> None:
        self.stem, self._source, self._index = str(index), source, index

    @property
    def image(self) -> Array:
        """(channels, *S) float32, as the data set has it."""
        return self._source.item(self._index)[0]

    @property
    def label(self) -> Array:
        """(*S) int32, or () for the whole image."""
        return self._source.item(self._index)[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image."""
        return tuple(self.image.shape)

    @property
    def pixels(self) -> dict[int, int]:
        """How many there are of each label."""
        values, counts = np.unique(self.label, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


class GivenData(Data):
    """Shares are those of the held-back images: a data set may make of its images to train on what it likes."""

    def shares(self) -> list[float]:
        total = self.counts(self.validation).sum(0)
        return [float(n) for n in total / max(1, total.sum())]


class GivenCrops:
    """What each step of a trial shows, planned ahead from its seed."""

    def __init__(self, source: Source, settings: RunSettings, seed: int) -> None:
        self._source, self._seed = source, seed
        self._plan = source.order(settings.steps, settings.batch, seed)
        self.checksum = checksum(np.array([row for rows in self._plan for row in rows]))
        self._workers: Iterator[tuple[Tensor, Tensor]] | None = None
        self._next = 0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images and labels of one step."""
        if self._source.loader is None or not self._source.loader.num_workers:
            return self._source.batch(self._plan[step], self._seed, step)
        if self._workers is None or step != self._next:
            self._workers = self._source.in_workers(self._plan, self._seed, step)
        self._next = step + 1
        return next(self._workers)


class _Drawn:
    """A data set whose items are asked for with the numbers from which their random part follows."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, which: tuple[int, int, int, int]) -> Any:
        index, *seed = which
        reseed(*seed)
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        inner: Any = self._dataset
        while inner is not None:  # transforms that have a random state of their own, as MONAI's and albumentations'
            parts: list[Any] = [inner, getattr(inner, "transform", None)]
            for part in parts:
                if hasattr(part, "set_random_state"):
                    part.set_random_state(seed=number)
                elif hasattr(part, "set_random_seed"):
                    part.set_random_seed(number)
            inner = getattr(inner, "dataset", None)
        return self._dataset[index]


def plain(text: str) -> str:
    """A repr without the addresses that differ between two processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
