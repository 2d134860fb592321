"""The fused engine: Numba kernels for float32, bfloat16 and float16 logits on a CPU.

One read of the logits makes every sum a loss asked for; one more read and one write make the gradient, with the exps
computed anew. Nothing of the logits' size is stored in between: no probabilities, no one-hot target.

The formulas work on the sums in ordinary torch and hand back ∂L/∂sum and ∂L/∂u; `_Sums` turns these into ∂L/∂logits.
Tensors are read where they are, whatever their dtype and layout (channels_last, (N, C), slices), with few exceptions:
spatial dimensions that cannot be walked with one stride, 16-bit integer labels and weights other than float32 are
copied.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..choice import gradient, unusual
from ..contract import Event, Measured, Order, Pass, Sums, Want
from ..curves import KINDS, Curve
from ..plain import sums as plain
from ..problem import Problem
from .compiling import compiling

if TYPE_CHECKING:
    from . import kernels

# How torch's memory is shown to NumPy, which has no bfloat16: to the kernels, 16-bit integers are the bits of a half.
_BITS = {torch.float32: torch.float32, torch.bfloat16: torch.uint16, torch.float16: torch.int16}
_TARGETS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float64, *_BITS}
_ALONE = 1 << 17  # logits below which handing work to other threads costs more than it saves
_CHUNK = 1 << 16  # logits per chunk: the unit of work, and of summation


def refuses(question: Pass | Order) -> str | None:
    """Why the kernels cannot take logits and their target; None if they can."""
    problem = question.problem
    logits, target = problem.logits, problem.target
    strange = unusual(logits, target, problem.weight, problem.sample)
    if strange is not None:
        return strange
    if logits.device.type != "cpu":
        return f"the kernels run on the CPU, not on {logits.device.type}"
    if logits.dtype not in _BITS:
        return f"the kernels take float32, bfloat16 and float16, not {logits.dtype}"
    if logits.layout != torch.strided:
        return f"the kernels take ordinary dense tensors, not {logits.layout}"
    if target.dtype not in _TARGETS:
        return f"a target of {target.dtype}"
    if target.requires_grad:
        return "a target that requires a gradient"
    if problem.weight is not None and problem.weight.requires_grad:
        return "a weight that requires a gradient"
    if not isinstance(question, Pass):
        return None
    want = question.want
    if want.u and not problem.hard and (problem.exclusive or target.is_floating_point()):
        return "per-pixel values of soft targets"
    if want.u and want.spread:
        return "per-pixel values of every label"
    return None


def measured(question: Pass) -> Measured:
    """The sums a problem asks for, differentiable with respect to its logits."""
    problem, want = question.problem, question.want
    n, t, tt, span, u, label, weight, complete, *found = _Sums.apply(problem.logits, problem, want)  # type: ignore[no-untyped-call]
    known = dict(zip(_rows(problem, want), found, strict=True))
    sums = {name: value for name, value in known.items() if isinstance(name, str) and name != "spread"}
    return Measured(
        sums=Sums(n=n, t=t, tt=tt, **sums),
        curves={name: value for name, value in known.items() if isinstance(name, Curve)},
        spread=known.get("spread"),
        events=[Event(u, label, None)] if want.u else [],
        weight=weight,
        complete=complete,
        span=span,
    )


def _rows(problem: Problem, want: Want) -> dict[str | Curve, tuple[int, ...]]:
    """The sums wanted, and the rows of the kernels' table each consists of: no and yes for labels of a sigmoid."""
    from . import kernels as k

    curves = want.curves
    rows: dict[str | Curve, tuple[int, ...]] = {}
    if want.errors:
        rows |= {"fp": (k.FP,), "fn": (k.FN,)}
    if want.squares:
        rows |= {"fp2": (k.FP2,), "fn2": (k.FN2,)}
    softmax = problem.exclusive
    if want.spread:
        rows["spread"] = (k.SPREAD,) if softmax else (k.SPREAD_NO, k.SPREAD)
    for i, curve in enumerate(curves, start=k.CURVES):
        rows[curve] = (i,) if softmax else (i + len(curves), i)
    return rows


class _Sums(torch.autograd.Function):
    """Logits to n, t, tt, the target's range; u, its label and weight (or None); whether all count; the sums of
    `_rows`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, problem: Problem, want: Want) -> tuple[Any, ...]:
        from . import kernels as k

        job = _Job(problem, want)
        partial = np.zeros((job.chunks, job.table_shape[1], job.grid.channels))
        limits = np.full((job.chunks + 1, 2), [np.inf, -np.inf])  # of the target; one more, so it is never empty
        u = _fresh(*(job.u_shape if want.u else (0,)))
        job.run(job.forward, partial, limits, *([] if job.soft else [u.view(-1).numpy()]))

        table = torch.from_numpy(partial.reshape(job.grid.images, job.grid.chunks_per_image, *partial.shape[1:]).sum(1))
        if job.hard_softmax:
            t = tt = table[:, k.T]
            n = t.sum(1, keepdim=True).expand(t.shape)
        else:
            n, t, tt = table[:, k.N], table[:, k.T], table[:, k.TT]
        low, high = limits[:, 0].min().item(), limits[:, 1].max().item()
        unweighted = problem.weight is None and problem.sample is None
        complete = unweighted and logits.numel() > 0 and bool((n == job.grid.pixels).all())
        pixels: tuple[Any, ...] = (None, None, None)
        if want.u:
            pixels = (u, problem.labels.target, problem.labels.weight)
        sums = [_gather(table, rows) for rows in _rows(problem, want).values()]

        ctx.save_for_backward(logits, problem.target, problem.weight, problem.sample)
        ctx.settings = (problem.task, problem.ignore_index)
        ctx.want = want
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(n, t, tt, *[x for x in pixels[1:] if x is not None])
        return n, t, tt, (low, high) if low <= high else (0.0, 0.0), *pixels, complete, *sums

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, None, None]:
        problem, want = Problem(*ctx.saved_tensors, *ctx.settings), ctx.want
        u, sums = upstream[4], dict(zip(_rows(problem, want), upstream[8:], strict=True))
        known = (problem, want, u, sums)
        return gradient(lambda: _gradient(*known), lambda further: _by_torch(*known, further)), None, None


def _gather(table: Tensor, rows: tuple[int, ...]) -> Tensor:
    return table[:, rows[0]].clone() if len(rows) == 1 else torch.stack([table[:, row] for row in rows], dim=-1)


def _gradient(
    problem: Problem, want: Want, upstream_u: Tensor | None, upstream: dict[str | Curve, Tensor | None]
) -> Tensor:
    job = _Job(problem, want)
    table = _fresh(*job.table_shape).zero_()
    for name, rows in _rows(problem, want).items():
        g = upstream[name]
        if g is not None:
            for i, row in enumerate(rows):
                table[:, row] = g if len(rows) == 1 else g[..., i]
    flat_u = _fresh(0) if upstream_u is None else upstream_u.contiguous().view(-1)
    out = torch.empty_like(problem.logits)
    if _pixel_stride(out) is None:
        out = torch.empty_like(problem.logits, memory_format=torch.contiguous_format)
    _ask_for_huge_pages(out)
    job.run(job.backward, table.numpy(), *([] if job.soft else [flat_u.numpy()]), _field(out))
    return out


def _by_torch(
    problem: Problem,
    want: Want,
    upstream_u: Tensor | None,
    upstream: dict[str | Curve, Tensor | None],
    further: bool,
) -> Tensor:
    """The same gradient by the plain engine, which autograd can follow further."""
    found = plain.measured(Pass(problem, want._replace(labels=True)))
    known: dict[Any, Any] = {**found.sums.known, **found.curves, "spread": found.spread}
    pairs = [(known[name], g) for name, g in upstream.items() if g is not None]
    if upstream_u is not None:
        pairs.append((found.events[0].u, upstream_u))
    values = [value for value, _ in pairs]
    gradients = [g.to(value.dtype) for value, g in pairs]
    return torch.autograd.grad(values, problem.logits, gradients, create_graph=further)[0]


class _Job:
    """A problem as the kernels see it."""

    def __init__(self, problem: Problem, want: Want) -> None:
        from . import kernels as k

        logits, weight, sample = problem.logits, problem.weight, problem.sample
        images, channels = logits.shape[:2]
        pixels = logits.shape[2:].numel()
        chunk = k.LANES * max(1, _CHUNK // (k.LANES * max(channels, 1)))
        chunks_per_image = max(1, -(-pixels // chunk))
        self.grid = k.Grid(images, channels, pixels, chunk, chunks_per_image)
        self.chunks = images * chunks_per_image

        self.soft = problem.exclusive and not problem.hard
        self.hard_softmax = problem.exclusive and problem.hard
        curves = want.curves
        labels = 1 if problem.exclusive else 2
        self.table_shape = (images, k.CURVES + labels * len(curves), channels)
        self.u_shape = logits.shape[:1] + logits.shape[2:] if self.hard_softmax else logits.shape

        target = problem.target
        if target.dtype in (torch.int16, torch.uint16):
            target = target.int()  # see _BITS
        target = target.unsqueeze(1).expand(logits.shape) if problem.hard else target
        nothing = np.empty(0, np.float32)
        known = k.Known(
            target=_field(target),
            weight=nothing if weight is None else weight.detach().float().contiguous().view(-1).numpy(),
            sample=nothing if sample is None else sample.detach().float().contiguous().numpy(),
            ignore=problem.ignore_index,
        )
        shapes = np.array([(KINDS.index(type(c)), c.x) for c in curves], np.float32)
        straight = all(c.straight for c in curves)
        ask = k.Ask(want.errors, want.squares, want.spread, len(curves), None if straight else shapes)
        common = (self.grid, _field(logits), known)
        if self.hard_softmax:
            self.forward, self.backward = k.softmax_sums, k.softmax_gradient
            self.arguments: tuple[Any, ...] = (*common, ask)
        elif self.soft:
            self.forward, self.backward = k.soft_sums, k.soft_gradient
            self.arguments = (*common, ask)
        else:
            self.forward, self.backward = k.sigmoid_sums, k.sigmoid_gradient
            one_vs_rest = problem.hard and problem.task == "multilabel"
            self.arguments = (*common, one_vs_rest, ask)

    def run(self, kernel: Callable[..., None], *results: Any) -> None:
        """All chunks, on as many threads as torch uses. Who does which chunk makes no difference to the result."""
        grid = self.grid
        threads = min(torch.get_num_threads(), self.chunks)
        arguments = *self.arguments, *results
        if threads < 2 or grid.images * grid.channels * grid.pixels < _ALONE:
            with compiling():
                kernel(0, self.chunks, *self._scratch(), *arguments)
            return
        with compiling():  # here: in a thread it could deadlock on the import lock
            kernel(0, 0, *self._scratch(), *arguments)
        edges = np.linspace(0, self.chunks, min(self.chunks, 8 * threads) + 1).astype(int).tolist()
        spans = iter(list(itertools.pairwise(edges)))  # a list's iterator may be shared by threads

        def drain() -> None:
            scratch = self._scratch()
            for start, stop in spans:
                kernel(start, stop, *scratch, *arguments)

        others = [_pool().submit(drain) for _ in range(threads - 1)]
        drain()
        for other in others:
            if not other.cancel():  # one that has not begun has nothing left to do
                other.result()

    def _scratch(self) -> tuple[Any, Any]:
        """Working memory of one thread. torch aligns it to whole cache lines, NumPy would not."""
        from . import kernels as k

        rows = _fresh(*([3] if self.soft else []), self.grid.channels, k.LANES)
        return rows.numpy(), _fresh(k.LANE_ROWS, k.LANES).numpy()


def _fresh(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for the kernels to write to: on the CPU and of this type, whatever the process has for a default."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def _ask_for_huge_pages(fresh: Tensor) -> None:
    """Lets Linux back a large new tensor by 2 MB pages: touching it page by page costs as much as the arithmetic."""
    size, page = fresh.numel() * fresh.element_size(), mmap.PAGESIZE
    if size >= 1 << 22 and hasattr(mmap, "MADV_HUGEPAGE") and (madvise := _madvise()) is not None:
        start = -(-fresh.data_ptr() // page) * page
        madvise(start, (fresh.data_ptr() + size - start) // page * page, mmap.MADV_HUGEPAGE)  # a wish: it may fail


@functools.cache
def _madvise() -> Any:
    try:
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):
        return None
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return madvise


def _pixel_stride(tensor: Tensor) -> int | None:
    """The one stride with which the spatial dimensions can be walked, if there is one."""
    stride, walked = None, 1
    for size, step in zip(reversed(tensor.shape[2:]), reversed(tensor.stride()[2:]), strict=True):
        if size == 1:
            continue
        if stride is None:
            stride = step
        elif step != stride * walked:
            return None
        walked *= size
    return 1 if stride is None else stride


def _field(tensor: Tensor) -> kernels.Field:
    """A tensor (N, C, *S) as flat memory and strides."""
    from . import kernels as k

    tensor = tensor.detach()
    pixel = _pixel_stride(tensor)
    if pixel is None:
        tensor, pixel = tensor.contiguous(), 1
    extent = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.as_strided((extent if tensor.numel() else 0,), (1,))
    image, channel = tensor.stride()[:2]
    bits = flat.view(_BITS.get(flat.dtype, flat.dtype)).numpy()
    return k.Field(bits, image, channel, None if pixel == 1 else pixel)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lossmith")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process inherits the pool but not its threads
