"""Errors in order: the kernels make the histogram and apply the table, `plain/order.py` is between.

Each thread counts in a histogram of its own. The counts are whole numbers, weights included, so that their sum is the
same however the work was shared out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..choice import gradient
from ..contract import Order, Ranking, Want
from ..images import Images
from ..plain import order as plain
from ..problem import Problem
from .sums import _ask_for_huge_pages, _field, _fresh, _Job, _pixel_stride
from .sums import refuses as refuses_logits

BITS = 62  # of a count


def refuses(question: Order) -> str | None:
    """Why the kernels cannot put errors in order; None if they can."""
    problem = question.problem
    if plain.sorts(question):
        return "errors that are sorted: the kernels count them on levels"
    if problem.exclusive and not problem.hard:
        return "errors in order of soft targets"
    strange = refuses_logits(question)
    if strange is None and _factor(question) is None:
        return "a weight that is not finite"
    return strange


def ranked(question: Order) -> tuple[Tensor, Tensor]:
    """The losses and the weight of the foreground, per group and class (G, C)."""
    problem, factor = question.problem, _factor(question)
    told = problem.logits, problem, question.ranking, question.images, factor
    losses, foreground = _Ranked.apply(*told)  # type: ignore[no-untyped-call]
    return losses, foreground


def _factor(question: Order) -> Tensor | None:
    """What a pixel of weight 1 counts, per image: 1, or as much as the counts hold. None if a weight is not finite."""
    problem, how = question.problem, question.ranking
    factor = _fresh(len(problem.logits)).fill_(1.0)
    weights = [x.detach().float() for x in (problem.weight, problem.sample) if x is not None]
    if problem.sample is not None and not how.per_image:
        factor = problem.sample.detach().float()
    largest = factor.max() * (1.0 if problem.weight is None else problem.weight.detach().max().float())
    if not all(bool(x.sum().isfinite()) for x in (*weights, largest)):
        return None
    if problem.weight is None and bool((factor == 1).all()):
        return factor
    pixels = problem.logits.shape[2:].numel() * len(factor)
    _, exponent = torch.frexp(largest)
    return torch.ldexp(factor, (BITS - pixels.bit_length() - exponent).clamp(max=126))


class _Ranked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, problem: Problem, how: Ranking, images: Images, factor: Tensor
    ) -> tuple[Tensor, Tensor]:
        job = _RankingJob(problem, how, factor)
        span = job.span()
        histogram = job.histogram(span)
        losses, table = plain.weigh(histogram, span)
        foreground = histogram[:, :, 1].sum(2)
        ctx.save_for_backward(logits, problem.target, problem.weight, problem.sample, factor, span, table)
        ctx.settings = (problem.task, problem.ignore_index)
        ctx.how, ctx.images = how, images
        ctx.mark_non_differentiable(foreground)
        return losses, foreground

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        *tensors, factor, span, table = ctx.saved_tensors
        problem = Problem(*tensors, *ctx.settings)

        def by_torch(further: bool) -> Tensor:
            losses, _ = plain.ranked(Order(problem, ctx.how, ctx.images))
            return torch.autograd.grad(losses, problem.logits, upstream[0], create_graph=further)[0]

        def by_kernels() -> Tensor:
            charge = table * upstream[0].reshape(*upstream[0].shape, 1, 1)
            return _RankingJob(problem, ctx.how, factor).gradient(charge, span)

        return gradient(by_kernels, by_torch), None, None, None, None


class _RankingJob(_Job):
    def __init__(self, problem: Problem, how: Ranking, factor: Tensor) -> None:
        super().__init__(problem, Want())
        self.logits, self.how, self.factor = problem.logits, how, factor
        self.slots = how.bins + plain.EXTRA
        self.groups = self.grid.images if how.per_image else 1
        self.common = self.arguments[:3]
        self.channelwise = () if self.hard_softmax else (problem.hard and problem.task == "multilabel",)
        self.counts: list[np.ndarray[Any, Any]] = []

    def span(self) -> Tensor:
        """The largest error of each group and class."""
        from . import kernels as k

        if not self.how.hinge:
            return _fresh(self.groups, self.grid.channels, dtype=torch.float64).fill_(1.0)
        largest = np.zeros((self.chunks, self.grid.channels), np.float32)
        self.arguments = (*self.common, *self.channelwise)
        self.run(k.largest_errors, largest)
        return torch.from_numpy(largest).reshape(self.groups, -1, self.grid.channels).amax(1).double()

    def histogram(self, span: Tensor) -> Tensor:
        """The weights of background and foreground in each slot: (G, C, 2, slots)."""
        from . import kernels as k

        self.counts = []
        self._rank(k.softmax_histogram if self.hard_softmax else k.sigmoid_histogram, span)
        counts: Tensor = torch.from_numpy(sum(self.counts)).double()
        return counts.view(self.groups, -1, 2, self.slots)

    def gradient(self, table: Tensor, span: Tensor) -> Tensor:
        from . import kernels as k

        out = torch.empty_like(self.logits)
        if _pixel_stride(out) is None:
            out = torch.empty_like(self.logits, memory_format=torch.contiguous_format)
        _ask_for_huge_pages(out)
        charge = k.softmax_charge if self.hard_softmax else k.sigmoid_charge
        self._rank(charge, span, table.flatten(2).float().numpy(), _field(out))
        return out

    def _rank(self, kernel: Callable[..., None], span: Tensor, *results: Any) -> None:
        from . import kernels as k

        scale = plain.scale_of(span, self.how.bins).float().numpy()
        slots = k.Slots(self.how.bins, self.how.per_image, self.factor.numpy(), scale)
        hinge = () if self.hard_softmax else (self.how.hinge,)
        self.arguments = (*self.common, *self.channelwise, *hinge, slots)
        self.run(kernel, *results)

    def _scratch(self) -> tuple[Any, ...]:
        from . import kernels as k

        rows = _fresh(2, self.grid.channels, k.LANES)
        lane = _fresh(k.LANE_ROWS, k.LANES)
        places = _fresh(k.LANES, dtype=torch.int32)
        amounts = _fresh(k.LANES, dtype=torch.int64)
        self.counts.append(np.zeros((self.groups, self.grid.channels, 2 * self.slots), np.int64))
        return rows.numpy(), lane.numpy(), places.numpy(), amounts.numpy(), self.counts[-1]
