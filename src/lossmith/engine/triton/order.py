"""Errors in order: the kernels make the histogram and apply the table, `plain/order.py` is between.

Where errors are sorted, on request or because they are fewer than the levels, that is torch's sort, on the device, and
with it the rest: so are errors of soft targets under a softmax, whose class is chosen.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ..contract import Counted, Levels, Order, Ranking
from ..images import Images
from ..kernels import charged, gradient_of, strange
from ..plain import order as plain
from ..problem import Problem, Task
from .call import WALKED, Call, like
from .launch import launch
from .operators import PROBLEM
from .ordered import charge, histogram, largest

BITS = 62  # of a count
COUNTERS = 1 << 21  # of all copies of the histograms together, so that they stay in the cache
MOST_COPIES = 16


def refuses(question: Order | Levels) -> str | None:
    """Why the kernels cannot put errors in order; None if they can."""
    return strange(question)


def ranked(question: Order) -> tuple[Tensor, Tensor]:
    """The losses and the weight of the foreground, per group and class (G, C)."""
    problem, how = question.problem, question.ranking
    if plain.sorts(question) or (problem.exclusive and not problem.hard):
        return plain.ranked(question)
    told = problem.task, problem.ignore_index, how.bins, how.per_image, how.hinge
    losses, foreground, *_ = _ranked(problem.logits, problem.target, problem.weight, problem.sample, *told)
    return losses, foreground.detach()


def on_levels(question: Levels) -> Counted:
    """Errors counted on levels; of no pixels, or of soft targets under a softmax, by torch."""
    problem = question.problem
    if not problem.logits.numel() or (problem.exclusive and not problem.hard):
        return plain.OnLevels(question)
    return OnLevels(question)


class OnLevels:
    """`Counted`, by the kernels."""

    def __init__(self, question: Levels) -> None:
        self.question, problem, self.how = question, question.problem, question.ranking
        z, w, sample = problem.logits.detach(), problem.weight, problem.sample
        self.call = Call(z, problem.target, w, sample, problem.task, problem.ignore_index)
        self.groups = len(problem.logits) if self.how.per_image else 1
        self.factor, self.exponent = _factor(z, w, sample, self.how.per_image)
        self.span = _span(self.call, self.how, self.groups, z)

    def histogram(self, span: Tensor) -> Tensor:
        counted = _histogram(self.call, self.how, self.groups, span, self.factor)
        return torch.ldexp(counted.double(), -self.exponent)

    def charged(self, span: Tensor, table: Tensor) -> Tensor:
        problem, how, factor = self.question.problem, self.how, self.factor
        task, ignore, prices = problem.task, problem.ignore_index, torch.ldexp(table, -self.exponent)

        def by_kernels(upstream: Tensor, z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None) -> Tensor:
            charge = prices * upstream[:, :, None, None]
            return _backward(z, y, w, sample, span, factor, charge, task, ignore, how.bins, how.per_image, how.hinge)

        return charged(self.question, span, table, by_kernels)


def _factor(z: Tensor, w: Tensor | None, sample: Tensor | None, per_image: bool) -> tuple[Tensor, Tensor]:
    """What a pixel of weight 1 counts, per image: 1, or as much as the counts hold, the weight of the image times 2 to
    some exponent; and that exponent. Weights that are not finite are told from others by the kernels."""
    factor = z.new_ones(len(z), dtype=torch.float32)
    if sample is not None and not per_image:
        factor = sample.detach().float().nan_to_num(0.0, 0.0, 0.0)
    elif w is None:
        return factor, factor.new_zeros((), dtype=torch.int32)
    largest_weight = factor.amax()
    if w is not None:
        largest_weight = largest_weight * w.detach().float().nan_to_num(0.0, 0.0, 0.0).amax()
    _, exponent = torch.frexp(largest_weight)
    pixels = z.shape[2:].numel() * len(z)
    exponent = (BITS - pixels.bit_length() - exponent).clamp(max=126)
    return torch.ldexp(factor, exponent), exponent


def _shown(call: Call, how: Ranking, span: Tensor, factor: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    scale = plain.scale_of(span, how.bins).float().contiguous()
    told = {"C": call.classes, "B": WALKED, "MODE": call.mode, "BINS": how.bins, "HINGE": how.hinge}
    return (*call.tensors, factor, scale), {
        **told, **call.flags, "PER_IMAGE": how.per_image, "APART": call.apart, "num_warps": 1
    }  # fmt: skip


def _span(call: Call, how: Ranking, groups: int, z: Tensor) -> Tensor:
    """The largest error of each group and class."""
    if not how.hinge:
        return z.new_ones(groups, call.classes, dtype=torch.float64)
    programs = -(-call.pixels // WALKED)
    part = z.new_zeros(call.images * programs, call.classes, dtype=torch.float32)
    flags = {name: call.flags[name] for name in ("HAS_W", "HAS_SAMPLE")}
    launch(
        largest, call.images * programs, *call.tensors, part, *call.strides, call.pixels, programs, call.ignore,
        C=call.classes, B=WALKED, MODE=call.mode, APART=call.apart, num_warps=1, **flags,
    )  # fmt: skip
    return part.view(groups, max(1, call.images * programs // max(1, groups)), call.classes).amax(1).double()


def _forward(
    z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, task: str, ignore: int, bins: int, per_image: bool,
    hinge: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    how = Ranking(bins, False, per_image, hinge)
    call = Call(z, y, w, sample, task, ignore)
    groups = len(z) if per_image else 1
    (factor, _), span = _factor(z, w, sample, per_image), _span(call, how, groups, z)
    counted = _histogram(call, how, groups, span, factor)
    losses, table = plain.weigh(counted, span)
    return losses, counted[:, :, 1].sum(2).double(), span, factor, table


def _histogram(call: Call, how: Ranking, groups: int, span: Tensor, factor: Tensor) -> Tensor:
    """What the pixels of background and foreground count in each slot, whole numbers, (G, C, 2, slots)."""
    slots = how.bins + plain.EXTRA
    size = groups * call.classes * 2 * slots
    copies = max(1, min(MOST_COPIES, COUNTERS // max(size, 1)))
    counts = span.new_zeros(copies, size, dtype=torch.int64)
    totals = span.new_zeros(groups, call.classes, 2, dtype=torch.int64)
    programs, steps = call.shared(WALKED)
    shown, told = _shown(call, how, span, factor)
    launch(
        histogram, call.images * programs, *shown, counts, totals, *call.strides, call.pixels, programs, steps,
        call.ignore, size, copies, **told,
    )  # fmt: skip
    counted = counts.sum(0).view(groups, call.classes, 2, slots)
    counted[..., 1] += totals - counted.sum(3)
    return counted


def _backward(
    z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, span: Tensor, factor: Tensor, table: Tensor,
    task: str, ignore: int, bins: int, per_image: bool, hinge: bool,
) -> Tensor:  # fmt: skip
    how = Ranking(bins, False, per_image, hinge)
    call = Call(z, y, w, sample, task, ignore)
    out, *strides = call.output(z)
    programs = -(-call.pixels // WALKED)
    shown, told = _shown(call, how, span, factor)
    launch(
        charge, call.images * programs, *shown, table.float().contiguous(), out, *call.strides, *strides, call.pixels,
        programs, call.ignore, **told,
    )  # fmt: skip
    return out


SETTINGS = "str task, int ignore, int bins, bool per_image, bool hinge"
_ranked = torch.library.custom_op(
    "lossmith::ranked",
    _forward,
    mutates_args=(),
    schema=f"({PROBLEM}, {SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_charged = torch.library.custom_op(
    "lossmith::charged",
    _backward,
    mutates_args=(),
    schema=f"({PROBLEM}, Tensor span, Tensor factor, Tensor table, {SETTINGS}) -> Tensor",
)


@_ranked.register_fake
def _(z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, *settings: Any) -> tuple[Tensor, ...]:
    _, _, bins, per_image, _ = settings
    table = z.new_empty(len(z) if per_image else 1, z.shape[1], 2, bins + plain.EXTRA, dtype=torch.float64)
    losses, foreground, span = (torch.empty_like(table[:, :, 0, 0]) for _ in range(3))
    return losses, foreground, span, z.new_empty(len(z), dtype=torch.float32), table


@_charged.register_fake
def _(z: Tensor, *rest: Any) -> Tensor:
    return like(z)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4], *output[2:])
    ctx.settings = inputs[4:]
    ctx.set_materialize_grads(False)


def _back(ctx: Any, up: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    *problem, span, factor, table = ctx.saved_tensors
    nothing = (None,) * (3 + len(ctx.settings))
    if up is None:
        return None, *nothing

    def by_kernels() -> Tensor:
        return cast(Tensor, _charged(*problem, span, factor, table * up[:, :, None, None], *ctx.settings))

    def by_plain(further: bool) -> Tensor:
        return _by_torch(problem, up, further, *ctx.settings)

    return gradient_of(by_kernels, by_plain, problem[0], up), *nothing


_ranked.register_autograd(_back, setup_context=_keep)


def _by_torch(
    tensors: list[Tensor], up: Tensor, further: bool, task: Task, ignore: int, bins: int, per_image: bool, hinge: bool
) -> Tensor:
    z, y, w, sample = tensors
    question = Order(Problem(z, y, w, sample, task, ignore), Ranking(bins, False, per_image, hinge), Images(sample))
    losses, _ = plain.ranked(question)
    return torch.autograd.grad(losses, z, up, create_graph=further)[0]
