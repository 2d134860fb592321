"""What a call of the kernels needs to know before it sees a number: worked out once per kind of call, and kept.

A kind is a dtype, shape and layout of logits and target, a task and what is wanted.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..contract import Want
from ..curves import KINDS, Curve
from ..problem import Problem, Task
from ..tensors import pixel_stride
from . import pixels as px
from . import scores, sigmoid, soft, softmax
from .arithmetic import LANES
from .launch import fresh, huge_pages, launch

# How torch's memory is shown to NumPy, which has no bfloat16: to the kernels, 16-bit integers are the bits of a half.
BITS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}
_ALONE = 1 << 17  # logits below which handing work to other threads costs more than it saves
_CHUNK = 1 << 16  # logits per chunk: the unit of work, and of summation
Kind = tuple[torch.dtype, tuple[int, ...], tuple[int, ...]]  # of a tensor: dtype, shape and strides
NOTHING = np.empty(0, np.float32)


class Layout(NamedTuple):
    """How tensors of one dtype, shape and strides are shown to the kernels: as flat memory, and strides."""

    image: int
    channel: int
    pixel: int | None  # None: they lie side by side
    extent: int | None  # elements from the first to the last; None: those of the tensor, one after the other
    copied: bool  # the pixels cannot be walked with one stride
    cast: torch.dtype | None  # copied to this type
    bits: torch.dtype | None  # seen as this type

    def by_image(self) -> Layout:
        """Images of one pixel as the pixels of one image."""
        return self._replace(image=0, pixel=None if self.image == 1 else self.image)

    def field(self, tensor: Tensor) -> tuple[np.ndarray[Any, Any], int, int, int | None]:
        """What a kernel takes for a `px.Field`."""
        tensor = tensor.detach()
        if self.cast is not None:
            tensor = tensor.to(self.cast)
        if self.copied:
            tensor = tensor.contiguous()
        if self.extent is not None:
            tensor = tensor.as_strided((self.extent,), (1,))
        if self.bits is not None:
            tensor = tensor.view(self.bits)
        return tensor.numpy().reshape(-1), self.image, self.channel, self.pixel


def _layout(dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...], *, channels: bool = True) -> Layout:
    """Of tensors (N, C, *S), or (N, *S) without channels."""
    cast = torch.int32 if dtype in (torch.int16, torch.uint16) else None  # see BITS
    first = 2 if channels else 1
    pixel = pixel_stride(shape[first:], stride[first:])
    copied = pixel is None or cast is not None
    side_by_side = _contiguous(shape)
    if copied:
        pixel, stride = 1, side_by_side
    dense = 0 in shape or all(a == b for size, a, b in zip(shape, stride, side_by_side, strict=True) if size != 1)
    extent = None if dense else 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    channel = stride[1] if channels else 0
    return Layout(stride[0], channel, None if pixel == 1 else pixel, extent, copied, cast, BITS.get(dtype))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(max(size, 1) for size in shape[i + 1 :]) for i in range(len(shape)))


class Plan:
    """A kind of call. `kernels` is the module whose `sums` and `gradient` answer it."""

    def __init__(
        self, logits: Kind, target: Kind, task: Task, ignore_index: int, want: Want, pixel_is_image: bool
    ) -> None:
        dtype, shape, stride = logits
        self.want = want
        images, channels, *space = shape
        pixels, hard = math.prod(space), len(target[1]) < len(shape)
        self.images, self.pixels = images, pixels
        self.soft = task == "multiclass" and not hard
        self.hard_softmax = task == "multiclass" and hard
        self.scores = self.hard_softmax and pixels == 1 and pixel_is_image
        chunk = LANES * max(1, _CHUNK // (LANES * max(channels, 1)))
        walks, steps = (1, images) if self.scores else (images, pixels)
        chunks_per_walk = max(1, -(-steps // chunk))
        self.grid = px.Grid(walks, channels, steps, chunk, chunks_per_walk)
        self.chunks = walks * chunks_per_walk
        self.alone = images * channels * pixels < _ALONE

        self.rows = _rows(task, want)
        labels = 1 if task == "multiclass" else 2
        self.t, self.table_rows = px.T, px.CURVES + labels * len(want.curves)
        self.u_shape = (images, *space) if self.hard_softmax else tuple(shape)
        self.rows_shape = (3, channels, LANES) if self.soft else (channels, LANES)

        self.logits, self.target, self.ignore = _layout(*logits), _layout(*target, channels=not hard), ignore_index
        self.one_vs_rest = () if task == "multiclass" else (hard and task == "multilabel",)
        shapes = np.array([(KINDS.index(type(c)), c.x) for c in want.curves], np.float32)
        straight = all(c.straight for c in want.curves)
        ask = px.Ask(want.errors, want.squares, want.spread, len(want.curves), None if straight else shapes)
        self.ask = tuple(ask)
        self.kernels: Any = sigmoid if task != "multiclass" else soft if self.soft else softmax

        # Memory that is never touched costs nothing; a tensor on "meta" would import 500 modules.
        like = torch.empty_like(torch.empty_strided(shape, stride, dtype=dtype, device="cpu"))
        walked = pixel_stride(like.shape[2:], like.stride()[2:]) is not None
        self._out = dtype, tuple(shape), tuple(like.stride()) if walked else _contiguous(shape)
        self.out = _layout(*self._out)
        if self.scores:
            self.kernels = scores
            at = scores.rows_of.py_func(ask)
            for name, (row,) in self.rows.items():
                self.rows[name] = [at.curves + row - px.CURVES if isinstance(name, Curve) else getattr(at, name)]
            self.t, self.table_rows = at.t, at.t + 1
            self.logits, self.target, self.out = (x.by_image() for x in (self.logits, self.target, self.out))

    def shown(self, problem: Problem) -> tuple[Any, ...]:
        """The problem as the kernels see it: grid, logits, what is known, and of a sigmoid one thing more."""
        weight, sample = NOTHING, NOTHING
        if problem.weight is not None:
            weight = problem.weight.detach().float().contiguous().numpy().reshape(-1)
        if problem.sample is not None:
            sample = problem.sample.detach().float().contiguous().numpy()
            if self.scores:
                weight, sample = np.where(sample != 0, weight if len(weight) else np.float32(1), np.float32(0)), NOTHING
        known = (self.target.field(problem.target), weight, sample, self.ignore)
        return tuple(self.grid), self.logits.field(problem.logits), known, *self.one_vs_rest

    def table(self, units: int, dtype: type[np.floating[Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A row of zeros for each sum, unit and class: as the kernels take it, and the same with the rows first."""
        if self.scores:
            table = np.zeros((self.table_rows, units, self.grid.channels), dtype)
            return table, table
        table = np.zeros((units, self.table_rows, self.grid.channels), dtype)
        return table, table.swapaxes(0, 1)

    def run(
        self, kernel: Callable[..., None], arguments: tuple[Any, ...], scratch: Callable[[], tuple[Any, ...]]
    ) -> None:
        threads = 1 if self.alone else min(torch.get_num_threads(), self.chunks)
        launch(kernel, self.chunks, threads, scratch, arguments)

    def output(self) -> Tensor:
        """Memory for the gradient, laid out like the logits."""
        dtype, shape, stride = self._out
        out = torch.empty_strided(shape, stride, dtype=dtype, device="cpu")
        huge_pages(out)
        return out

    def scratch(self) -> tuple[Any, Any]:
        """Working memory of this thread. The last one is kept: kernels leave nothing there for each other."""
        if getattr(_last, "shape", None) != self.rows_shape:
            _last.arrays = fresh(*self.rows_shape).numpy(), fresh(px.LANE_ROWS, LANES).numpy()
            _last.shape = self.rows_shape
        arrays: tuple[Any, Any] = _last.arrays
        return arrays


_last = threading.local()


def plan_of(problem: Problem, want: Want, pixel_is_image: bool = True) -> Plan:
    """For kernels that take a pixel as an image of its own where that is what it is, or for others."""
    logits, target = problem.logits, problem.target
    return _plan(
        (logits.dtype, logits.shape, logits.stride()),
        (target.dtype, target.shape, target.stride()),
        problem.task,
        problem.ignore_index,
        want,
        pixel_is_image,
    )


_plan = functools.lru_cache(256)(Plan)


def _rows(task: Task, want: Want) -> dict[str | Curve, list[int]]:
    """The sums wanted, and the rows of the kernels' table each consists of: no and yes for labels of a sigmoid."""
    curves = want.curves
    rows: dict[str | Curve, list[int]] = {}
    if want.errors:
        rows |= {"fp": [px.FP], "fn": [px.FN]}
    if want.squares:
        rows |= {"fp2": [px.FP2], "fn2": [px.FN2]}
    softmax = task == "multiclass"
    if want.spread:
        rows["spread"] = [px.SPREAD] if softmax else [px.SPREAD_NO, px.SPREAD]
    for i, curve in enumerate(curves, start=px.CURVES):
        rows[curve] = [i] if softmax else [i + len(curves), i]
    return rows
