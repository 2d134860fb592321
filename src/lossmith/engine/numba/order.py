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

from ..contract import Counted, Levels, Order, Ranking, Want
from ..images import Images
from ..kernels import charged, gradient_of
from ..plain import order as plain
from ..problem import Problem
from .arithmetic import LANES
from .launch import fresh
from .ordered import Slots, largest_errors, sigmoid_charge, sigmoid_histogram, softmax_charge, softmax_histogram
from .pixels import LANE_ROWS
from .plan import plan_of
from .sums import refuses as refuses_logits

BITS = 62  # of a count


def refuses(question: Order | Levels) -> str | None:
    """Why the kernels cannot put errors in order; None if they can."""
    problem = question.problem
    if isinstance(question, Order) and plain.sorts(question):
        return "errors that are sorted: the kernels count them on levels"
    if problem.exclusive and not problem.hard:
        return "errors in order of soft targets"
    strange = refuses_logits(question)
    if strange is None and problem.logits.numel() and _factor(question.problem, question.ranking) is None:
        return "a weight that is not finite"
    return strange


def ranked(question: Order) -> tuple[Tensor, Tensor]:
    """The losses and the weight of the foreground, per group and class (G, C)."""
    if not question.problem.logits.numel():
        return plain.ranked(question)
    problem, (factor, _) = question.problem, _known(_factor(question.problem, question.ranking))
    told = problem.logits, problem, question.ranking, question.images, factor
    losses, foreground = _Ranked.apply(*told)  # type: ignore[no-untyped-call]
    return losses, foreground


def on_levels(question: Levels) -> Counted:
    """Errors counted on levels; of no pixels by torch."""
    return OnLevels(question) if question.problem.logits.numel() else plain.OnLevels(question)


class OnLevels:
    """`Counted`, by the kernels."""

    def __init__(self, question: Levels) -> None:
        self.question, how = question, question.ranking
        problem = question.problem.but(logits=question.problem.logits.detach())
        factor, self.exponent = _known(_factor(problem, how))
        self.job = _RankingJob(problem, how, factor)
        self.span = self.job.span()

    def histogram(self, span: Tensor) -> Tensor:
        return torch.ldexp(self.job.histogram(span), -self.exponent)

    def charged(self, span: Tensor, table: Tensor) -> Tensor:
        problem, how, factor = self.question.problem, self.question.ranking, self.job.factor
        task, ignore, prices = problem.task, problem.ignore_index, torch.ldexp(table, -self.exponent)

        def by_kernels(upstream: Tensor, z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None) -> Tensor:
            charge = prices * upstream.reshape(*upstream.shape, 1, 1)
            return _RankingJob(Problem(z, y, w, sample, task, ignore), how, factor).gradient(charge, span)

        return charged(self.question, span, table, by_kernels)


def _factor(problem: Problem, how: Ranking) -> tuple[Tensor, Tensor] | None:
    """What a pixel of weight 1 counts, per image: 1, or as much as the counts hold, the weight of the image times 2 to
    some exponent; and that exponent. None if a weight is not finite."""
    factor = fresh(len(problem.logits)).fill_(1.0)
    weights = [x.detach().float() for x in (problem.weight, problem.sample) if x is not None]
    if problem.sample is not None and not how.per_image:
        factor = problem.sample.detach().float()
    largest = factor.max() * (1.0 if problem.weight is None else problem.weight.detach().max().float())
    if not all(bool(x.sum().isfinite()) for x in (*weights, largest)):
        return None
    if problem.weight is None and bool((factor == 1).all()):
        return factor, torch.zeros_like(largest, dtype=torch.int32)
    pixels = problem.logits.shape[2:].numel() * len(factor)
    _, exponent = torch.frexp(largest)
    exponent = (BITS - pixels.bit_length() - exponent).clamp(max=126)
    return torch.ldexp(factor, exponent), exponent


def _known(found: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    assert found is not None  # or it had been refused
    return found


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

        return gradient_of(by_kernels, by_torch, *upstream), None, None, None, None


class _RankingJob:
    def __init__(self, problem: Problem, how: Ranking, factor: Tensor) -> None:
        self.plan = plan_of(problem, Want(), pixel_is_image=False)
        self.shown = self.plan.shown(problem)
        self.how, self.factor = how, factor
        self.slots = how.bins + plain.EXTRA
        self.channels = self.plan.grid.channels
        self.groups = self.plan.grid.images if how.per_image else 1
        # Where a pixel counts as 1, narrow counts hold all of them, and half as much memory is hit at random.
        ones = problem.weight is None and bool((factor == 1).all())
        narrow = ones and self.plan.images * self.plan.pixels < 1 << 31
        self.whole = np.int32 if narrow else np.int64
        self.counts: list[np.ndarray[Any, Any]] = []

    def span(self) -> Tensor:
        """The largest error of each group and class."""
        if not self.how.hinge:
            return fresh(self.groups, self.channels, dtype=torch.float64).fill_(1.0)
        largest = np.zeros((self.plan.chunks, self.channels), np.float32)
        self.plan.run(largest_errors, (*self.shown, largest), self._scratch)
        return torch.from_numpy(largest).reshape(self.groups, -1, self.channels).amax(1).double()

    def histogram(self, span: Tensor) -> Tensor:
        """The weights of background and foreground in each slot: (G, C, 2, slots)."""
        self.counts = []
        self._rank(softmax_histogram if self.plan.hard_softmax else sigmoid_histogram, self._counting, span)
        total, *others = self.counts
        for counts in others:
            total += counts
        return torch.from_numpy(total).double().view(self.groups, -1, 2, self.slots)

    def gradient(self, table: Tensor, span: Tensor) -> Tensor:
        out = self.plan.output()
        charge = softmax_charge if self.plan.hard_softmax else sigmoid_charge
        self._rank(charge, self._scratch, span, table.flatten(2).float().numpy(), self.plan.out.field(out))
        return out

    def _rank(
        self, kernel: Callable[..., None], scratch: Callable[[], tuple[Any, ...]], span: Tensor, *results: Any
    ) -> None:
        scale = plain.scale_of(span, self.how.bins).float().numpy()
        slots = Slots(self.how.bins, self.how.per_image, self.factor.numpy(), scale)
        hinge = () if self.plan.hard_softmax else (self.how.hinge,)
        self.plan.run(kernel, (*self.shown, *hinge, slots, *results), scratch)

    def _scratch(self) -> tuple[Any, ...]:
        places = fresh(LANES, dtype=torch.int32)
        return fresh(2, self.channels, LANES).numpy(), fresh(LANE_ROWS, LANES).numpy(), places.numpy()

    def _counting(self) -> tuple[Any, ...]:
        """The same, and a histogram of this thread's own."""
        counts = np.zeros((self.groups, self.channels, 2 * self.slots), self.whole)  # which costs where it is hit
        self.counts.append(counts)
        return *self._scratch(), np.empty(LANES, self.whole), counts
