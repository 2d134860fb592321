"""How boxes lie to each other, by the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..choice import unusual
from ..contract import Boxes, Overlap
from ..kernels import gradient_of
from ..plain.overlap import overlap as plain_overlap
from . import boxes as k
from .arithmetic import LANES
from .launch import fresh, launch

FIELDS = tuple(Boxes.__annotations__)  # in the order of the numbers in boxes.py
_ALONE = 1 << 17  # boxes below which another thread costs more than it saves


def refuses(question: Overlap) -> str | None:
    """Why the kernels cannot take these boxes; None if they can."""
    a, b = question.prediction, question.target
    strange = unusual(a, b)
    if strange is not None:
        return strange
    if a.dtype != torch.float32:
        return f"the kernels take boxes in float32, bfloat16 and float16, not {a.dtype}"
    if a.layout != torch.strided or b.layout != torch.strided:
        return "the kernels take ordinary dense tensors"
    return "target boxes that require a gradient" if b.requires_grad else None


def overlap(question: Overlap) -> Boxes:
    """The fields that were asked for."""
    wanted = tuple(sorted(question.reads, key=FIELDS.index))
    rows = _Fields.apply(question.prediction, question.target, wanted)  # type: ignore[no-untyped-call]
    return Boxes(dict(zip(wanted, rows, strict=True)))


class _Fields(torch.autograd.Function):
    """Boxes to their wanted fields by the kernels. Nothing is kept but the boxes themselves."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, wanted: tuple[str, ...]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(a, b)
        ctx.wanted = wanted
        out = a.new_empty(len(wanted), *a.shape[:-1])
        _run(k.fields, _numbers(wanted), a, b, out)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        saved: tuple[Tensor, Tensor] = ctx.saved_tensors
        a, b = saved

        def by_torch(further: bool) -> Tensor:
            known = plain_overlap(a, b, ctx.wanted)
            values = [getattr(known, name) for name in ctx.wanted]
            return torch.autograd.grad(values, a, upstream, create_graph=further)[0]

        def by_kernels() -> Tensor:
            out = a.new_empty(a.shape)
            _run(k.gradient, _numbers(ctx.wanted), a, b, torch.stack(upstream), out)
            return out

        return gradient_of(by_kernels, by_torch, *upstream), None, None


def _numbers(wanted: tuple[str, ...]) -> Any:
    return np.array([FIELDS.index(name) for name in wanted], np.int64)


def _run(kernel: Any, numbers: Any, *tensors: Tensor) -> None:
    """All boxes, on as many threads as torch uses."""
    arrays = [tensor.detach().contiguous().view(-1).numpy() for tensor in tensors]
    count = arrays[0].size // 4
    threads = min(torch.get_num_threads(), count // _ALONE)
    launch(kernel, count, threads, lambda: (fresh(k.ROWS * LANES).numpy(),), (numbers, *arrays))
