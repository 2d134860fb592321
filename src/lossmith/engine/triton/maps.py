"""Sums over a map by the kernels: one read of the logits and of the map, nothing kept in between."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ..contract import Error, MapSums
from ..kernels import gradient_of, strange
from ..plain import maps as plain
from ..problem import Problem, Task
from . import mapped
from .call import WALKED, Call, like
from .launch import launch
from .operators import PROBLEM


def refuses(question: MapSums) -> str | None:
    """Why the kernels cannot sum over a map; None if they can."""
    if question.price.requires_grad:
        return "a map that requires a gradient"
    return strange(question)


def summed(question: MapSums) -> Tensor:
    """Σ price · error over the pixels of each image, (N, C)."""
    problem = question.problem
    tensors = problem.logits, problem.target, problem.weight, problem.sample
    return cast(Tensor, _summed(*tensors, question.price, problem.task, problem.ignore_index, question.error))


def _told(call: Call, error: str) -> dict[str, Any]:
    return {"C": call.classes, "B": WALKED, "MODE": call.mode, "ERROR": error, "num_warps": 1, **call.flags}


def _forward(
    z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, price: Tensor, task: str, ignore: int, error: str
) -> Tensor:
    call = Call(z, y, w, sample, task, ignore, apart=False)
    programs, steps = call.shared(WALKED)
    part = z.new_empty(len(z), programs, call.classes, dtype=torch.float32)
    price = price.float().contiguous()
    launch(
        mapped.sums, len(z) * programs, *call.tensors, price, part, *call.strides, call.pixels, programs, steps,
        ignore, **_told(call, error),
    )  # fmt: skip
    return part.sum(1, dtype=torch.float64)


def _backward(
    z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, price: Tensor, up: Tensor, task: str, ignore: int,
    error: str,
) -> Tensor:  # fmt: skip
    call = Call(z, y, w, sample, task, ignore, apart=False)
    out, *strides = call.output(z)
    programs = -(-call.pixels // WALKED)
    given = price.float().contiguous(), up.float().contiguous(), out
    launch(
        mapped.gradient, len(z) * programs, *call.tensors, *given, *call.strides, *strides, call.pixels, programs,
        ignore, **_told(call, error),
    )  # fmt: skip
    return out


SETTINGS = "str task, int ignore, str error"
_summed = torch.library.custom_op(
    "lossmith::map_sums", _forward, mutates_args=(), schema=f"({PROBLEM}, Tensor price, {SETTINGS}) -> Tensor"
)
_spread = torch.library.custom_op(
    "lossmith::map_gradient",
    _backward,
    mutates_args=(),
    schema=f"({PROBLEM}, Tensor price, Tensor up, {SETTINGS}) -> Tensor",
)


@_summed.register_fake
def _(z: Tensor, *rest: Any) -> Tensor:
    return z.new_empty(z.shape[0], z.shape[1], dtype=torch.float64)


@_spread.register_fake
def _(z: Tensor, *rest: Any) -> Tensor:
    return like(z)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.settings = inputs[5:]


def _back(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
    z, y, w, sample, price = ctx.saved_tensors
    nothing = (None,) * (4 + len(ctx.settings))

    def by_kernels() -> Tensor:
        return cast(Tensor, _spread(z, y, w, sample, price, up, *ctx.settings))

    def by_plain(further: bool) -> Tensor:
        task, ignore, error = ctx.settings
        problem = Problem(z, y, w, sample, cast(Task, task), ignore)
        sums = plain.summed(MapSums(problem, price, cast(Error, error)))
        found: Tensor = torch.autograd.grad(sums, z, up.to(sums.dtype), create_graph=further)[0]
        return found

    return gradient_of(by_kernels, by_plain, z, up), *nothing


_summed.register_autograd(_back, setup_context=_keep)
