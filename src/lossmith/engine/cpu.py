"""The fused engine: Numba kernels for float32, bfloat16 and float16 logits on a CPU.

One read of the logits makes every sum a loss asked for; one more read and one write make the gradient, with the exps
computed anew. Nothing of the logits' size is stored in between: no probabilities, no one-hot target.

The formulas work on the sums in ordinary torch and hand back ∂L/∂sum and ∂L/∂u; `_Sums` turns these into ∂L/∂logits.
Tensors are read where they are, whatever their dtype and layout (channels_last, (N, C), slices), with few exceptions:
spatial dimensions that cannot be walked with one stride, 16-bit integer labels and weights other than float32 are
copied.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import Curve, Event, Problem, Stats, plain

if TYPE_CHECKING:
    from . import kernels

# How torch's memory is shown to NumPy, which has no bfloat16: to the kernels, 16-bit integers are the bits of a half.
_BITS = {torch.float32: torch.float32, torch.bfloat16: torch.uint16, torch.float16: torch.int16}
_ALONE = 1 << 17  # logits below which handing work to other threads costs more than it saves
_CHUNK = 1 << 16  # logits per chunk: the unit of work, and of summation


def refuses(problem: Problem) -> str | None:
    """Why the kernels cannot take a problem; None if they can."""
    logits, target, want = problem.logits, problem.target, problem.want
    if logits.device.type != "cpu":
        return f"the kernels run on the CPU, not on {logits.device.type}"
    if logits.dtype not in _BITS:
        return f"the kernels take float32, bfloat16 and float16, not {logits.dtype}"
    if logits.layout != torch.strided or type(logits) not in (Tensor, torch.nn.Parameter):
        return f"the kernels take ordinary dense tensors, not {type(logits).__name__} ({logits.layout})"
    if target.requires_grad:
        return "a target that requires a gradient"
    if problem.weight is not None and problem.weight.requires_grad:
        return "a weight that requires a gradient"
    if want.u and not problem.hard and (problem.task == "multiclass" or target.is_floating_point()):
        return "per-pixel values of soft targets"
    if want.u and want.spread:
        return "per-pixel values of every label"
    return None


def statistics(problem: Problem) -> Stats:
    """The sums a problem asks for, differentiable with respect to its logits."""
    from . import kernels as k

    fixed, sums, low, high, *events = _Sums.apply(problem.logits, problem)  # type: ignore[no-untyped-call]
    want, curves = problem.want, _curves(problem)
    n, t, tt = fixed.unbind(1)
    rows = sums.unbind(1)  # from row FP on

    def row(index: int) -> Tensor:
        found: Tensor = rows[index - k.FP]
        return found

    def labels(yes: int, no: int) -> Tensor:
        return row(yes) if problem.task == "multiclass" else torch.stack([row(no), row(yes)], dim=-1)

    return Stats(
        n=n,
        t=t,
        tt=tt,
        fp=row(k.FP) if want.errors else None,
        fn=row(k.FN) if want.errors else None,
        fp2=row(k.FP2) if want.squares else None,
        fn2=row(k.FN2) if want.squares else None,
        spread=labels(k.SPREAD, k.SPREAD_NO) if want.spread else None,
        curves={c: labels(k.CURVES + i, k.CURVES + len(curves) + i) for i, c in enumerate(curves)},
        events=[Event(events[0], events[1], None)] if want.u else [],
        weight=events[2] if want.u else None,
        target_range=(low, high) if low <= high else (0.0, 0.0),
    )


class _Sums(torch.autograd.Function):
    """Logits to (n, t, tt), the other sums, the range of the target, and u with its label and weight if wanted."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, problem: Problem) -> tuple[Any, ...]:
        from . import kernels as k

        job = _Job(problem)
        partial = np.zeros((job.chunks, job.sum_rows, job.grid.channels))
        u = torch.empty(job.u_shape if problem.want.u else 0)
        limits = np.full((job.chunks + 1, 2), [np.inf, -np.inf])  # of the target; one more, so it is never empty
        job.run(job.forward, partial, limits, *([] if job.soft else [u.view(-1).numpy()]))

        sums = torch.from_numpy(partial.reshape(job.grid.images, job.grid.chunks_per_image, *partial.shape[1:]).sum(1))
        fixed = sums[:, : k.FP]
        if job.hard_softmax:
            t = fixed[:, k.T]
            fixed = torch.stack([t.sum(1, keepdim=True).expand_as(t), t, t], dim=1)
        outputs = [fixed, sums[:, k.FP :].contiguous(), limits[:, 0].min().item(), limits[:, 1].max().item()]
        ctx.save_for_backward(logits, problem.target, problem.weight, problem.sample)
        ctx.settings = (problem.task, problem.ignore_index, problem.want)
        ctx.set_materialize_grads(False)
        if problem.want.u:
            outputs += [u, *_label_and_weight(problem)]
            ctx.mark_non_differentiable(fixed, *outputs[-2:])
        else:
            ctx.mark_non_differentiable(fixed)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, None]:
        problem = Problem(*ctx.saved_tensors, *ctx.settings)
        sums, u = upstream[1], upstream[4] if problem.want.u else None
        if sums is None and u is None:
            return None, None
        if torch.is_grad_enabled():
            return _twice_differentiable(problem, sums, u), None
        return _gradient(problem, sums, u), None


def _gradient(problem: Problem, upstream: Tensor | None, upstream_u: Tensor | None) -> Tensor:
    from . import kernels as k

    job = _Job(problem)
    grid = job.grid
    table = np.zeros((grid.images, job.sum_rows, grid.channels), np.float32)
    if upstream is not None:
        table[:, k.FP :] = upstream.numpy()
    flat_u = torch.empty(0) if upstream_u is None else upstream_u.float().contiguous().view(-1)
    out = torch.empty_like(problem.logits)
    if _pixel_stride(out) is None:
        out = torch.empty_like(problem.logits, memory_format=torch.contiguous_format)
    job.run(job.backward, table, *([] if job.soft else [flat_u.numpy()]), _field(out))
    return out


def _twice_differentiable(problem: Problem, upstream: Tensor | None, upstream_u: Tensor | None) -> Tensor:
    """The same gradient by the plain engine, which autograd can follow further."""
    from . import kernels as k

    with torch.enable_grad():
        stats = plain.statistics(problem)
        pairs = []
        if upstream is not None:
            curves = _curves(problem)
            rows = {k.FP: stats.fp, k.FN: stats.fn, k.FP2: stats.fp2, k.FN2: stats.fn2}
            by_label = [(stats.spread, k.SPREAD, k.SPREAD_NO)]
            by_label += [(stats.curves[c], k.CURVES + i, k.CURVES + len(curves) + i) for i, c in enumerate(curves)]
            for value, yes, no in by_label:
                if value is None or problem.task == "multiclass":
                    rows[yes] = value
                else:
                    rows[no], rows[yes] = value.unbind(-1)
            pairs = [(value, upstream[:, row - k.FP]) for row, value in rows.items() if value is not None]
        if upstream_u is not None:
            pairs.append((stats.events[0].u, upstream_u))
        values = [value for value, _ in pairs]
        given = [grad.to(value.dtype) for value, grad in pairs]
        (gradient,) = torch.autograd.grad(values, problem.logits, given, create_graph=True)
    return gradient


class _Job:
    """A problem as the kernels see it."""

    def __init__(self, problem: Problem) -> None:
        from . import kernels as k

        logits, weight, sample = problem.logits, problem.weight, problem.sample
        images, channels = logits.shape[:2]
        pixels = logits.shape[2:].numel()
        chunk = k.LANES * max(1, _CHUNK // (k.LANES * max(channels, 1)))
        chunks_per_image = max(1, -(-pixels // chunk))
        self.grid = k.Grid(images, channels, pixels, chunk, chunks_per_image)
        self.chunks = images * chunks_per_image

        self.soft = problem.task == "multiclass" and not problem.hard
        self.hard_softmax = problem.task == "multiclass" and problem.hard
        curves = _curves(problem)
        labels = 1 if problem.task == "multiclass" else 2
        self.sum_rows = k.CURVES + labels * len(curves)
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
        want = problem.want
        gammas = np.array([c.gamma for c in curves], np.float32)
        ask = k.Ask(want.errors, want.squares, want.spread, gammas)
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
            kernel(0, self.chunks, *self._scratch(), *arguments)
            return
        kernel(0, 0, *self._scratch(), *arguments)  # compile here: in a thread it could deadlock on the import lock
        edges = np.linspace(0, self.chunks, min(self.chunks, 8 * threads) + 1).astype(int).tolist()
        spans = iter(list(itertools.pairwise(edges)))  # a list's iterator may be shared by threads

        def drain() -> None:
            scratch = self._scratch()
            for start, stop in spans:
                kernel(start, stop, *scratch, *arguments)

        others = [_pool().submit(drain) for _ in range(threads - 1)]
        drain()
        for other in others:
            other.result()

    def _scratch(self) -> tuple[Any, Any]:
        """Working memory of one thread. torch aligns it to whole cache lines, NumPy would not."""
        from . import kernels as k

        rows = torch.empty((3, self.grid.channels, k.LANES) if self.soft else (self.grid.channels, k.LANES))
        return rows.numpy(), torch.empty((k.LANE_ROWS, k.LANES)).numpy()


def _curves(problem: Problem) -> list[Curve]:
    return sorted(problem.want.curves)


def _label_and_weight(problem: Problem) -> tuple[Tensor, Tensor]:
    """Label and weight of every u, with 0 for both where the pixel is ignored."""
    logits, target = problem.logits, problem.target
    images, channels, *space = logits.shape
    valid = target != problem.ignore_index
    weight = torch.ones((), dtype=torch.float32).expand(images, *space)
    if problem.weight is not None:
        weight = problem.weight.detach().float()
    if problem.sample is not None:
        weight = weight.where((problem.sample != 0).view(-1, *[1] * len(space)), 0.0)
    if problem.task != "multiclass":
        if problem.hard:
            valid = valid.unsqueeze(1)
            target = target.unsqueeze(1)
            if problem.task == "multilabel":
                target = target == torch.arange(channels).view(-1, *[1] * len(space))
        weight = weight.unsqueeze(1).expand(logits.shape)
    if problem.weight is None and problem.sample is None and bool(valid.all()):
        return target.long(), weight
    weight = weight.where(valid, 0.0)
    return target.long().where(weight != 0, 0), weight


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
    return k.Field(flat.view(_BITS.get(flat.dtype, flat.dtype)).numpy(), image, channel, pixel)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lossmith")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process inherits the pool but not its threads
