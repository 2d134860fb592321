"""Sums over a map by the kernels: one read of the logits and of the map, and nothing kept in between."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ..choice import unusual
from ..contract import Error, MapSums, Want
from ..kernels import gradient_of, strange
from ..plain.maps import summed as plain_summed
from ..problem import Problem
from . import mapped
from .arithmetic import LANES
from .launch import fresh
from .pixels import LANE_ROWS
from .plan import plan_of

_NUMBERS: dict[Error, int] = {error: number for number, error in enumerate(get_args(Error))}


def refuses(question: MapSums) -> str | None:
    """Why the kernels cannot sum over a map; None if they can."""
    problem, price = question.problem, question.price
    if price.requires_grad:
        return "a map that requires a gradient"
    return unusual(problem.logits, problem.target, problem.weight, problem.sample, price) or strange(question)


def summed(question: MapSums) -> Tensor:
    """Σ price · error over the pixels of each image, (N, C)."""
    problem = question.problem
    sums: Tensor = _Summed.apply(problem.logits, problem, question.price, question.error)  # type: ignore[no-untyped-call]
    return sums


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, problem: Problem, price: Tensor, error: Error) -> Tensor:
        ctx.save_for_backward(logits, problem.target, problem.weight, problem.sample, price)
        ctx.settings, ctx.error = (problem.task, problem.ignore_index), error
        job = _Job(problem, price, error)
        return job.sums()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        *tensors, price = ctx.saved_tensors
        problem = Problem(*tensors, *ctx.settings)

        def by_torch(further: bool) -> Tensor:
            sums = plain_summed(MapSums(problem, price, ctx.error))
            found: Tensor = torch.autograd.grad(sums, problem.logits, upstream.to(sums), create_graph=further)[0]
            return found

        def by_kernels() -> Tensor:
            return _Job(problem, price, ctx.error).gradient(upstream)

        return gradient_of(by_kernels, by_torch, upstream), None, None, None


class _Job:
    def __init__(self, problem: Problem, price: Tensor, error: Error) -> None:
        self.plan = plan_of(problem, Want(), pixel_is_image=False)
        grid, logits, known, *one_vs_rest = self.plan.shown(problem)
        self.softmax = problem.exclusive
        if self.softmax:
            self.kernels: Any = mapped.softmax_sums, mapped.softmax_gradient
            how = True if self.plan.soft else None
        else:
            self.kernels = mapped.sigmoid_sums, mapped.sigmoid_gradient
            (how,) = one_vs_rest
        channels, pixels = self.plan.grid.channels, self.plan.grid.pixels
        prices = price.detach().float().contiguous().numpy().reshape(-1), channels * pixels, pixels, None
        self.arguments = grid, logits, known, how, prices, _NUMBERS[error]

    def sums(self) -> Tensor:
        grid = self.plan.grid
        partial = np.zeros((self.plan.chunks, grid.channels))
        self.plan.run(self.kernels[0], (*self.arguments, partial), self._scratch)
        return torch.from_numpy(partial.reshape(grid.images, grid.chunks_per_image, grid.channels).sum(1))

    def gradient(self, upstream: Tensor) -> Tensor:
        out = self.plan.output()
        table = upstream.detach().float().contiguous().numpy()
        self.plan.run(self.kernels[1], (*self.arguments, table, self.plan.out.field(out)), self._scratch)
        return out

    def _scratch(self) -> tuple[Any, ...]:
        lane = fresh(LANE_ROWS, LANES).numpy()
        return (fresh(3, self.plan.grid.channels, LANES).numpy(), lane) if self.softmax else (lane,)
