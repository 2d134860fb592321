"""Errors in order: the Lovász extension of the Jaccard loss, in ordinary torch and for every engine.

A set S of mispredicted pixels costs Δ(S) = |S| / |foreground ∪ S|. With the errors from the largest on and S_i the
first i of them, the loss is Σ e_i g_i, g_i = Δ(S_i) − Δ(S_{i−1}); a pixel of weight w counts w times. The g are known
once the order is, so a gradient sees them as constants.

Sorting takes time n log n and memory. Errors rounded to `bins` + 1 levels need no sorting: the weights of foreground
and background on each level decide everything. The rounding moves no error, and therefore not the loss, by more than
half a bin. Such a histogram is what an engine makes; `jaccard`, the same for a level and for a single pixel, is the
mathematics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract import Counted, Levels, Order
from ..images import Across, Each, Everything, Gathered, Own
from ..tensors import can_look, flat, floating, indices, likeliest, wide, widest
from .several import missed_by_every_class

# Of the slots of a histogram, 0 takes the errors that are 0 or below, 1 + k takes level k, the last one takes NaN.
EXTRA = 3
TINY = 1e-30  # of a hinge: errors below it are as good as none


def sorts(question: Order) -> bool:
    """Whether the errors are sorted: on request, and where a histogram would be larger than what it sums up."""
    logits, ranking = question.problem.logits, question.ranking
    group = logits.shape[2:].numel() * (1 if ranking.per_image else len(logits))
    return ranking.exact or group <= ranking.bins


def jaccard(foreground: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """What a unit of foreground and one of background is charged for its error, for entries from the largest error on.

    An entry is a pixel, or the pixels that share a level: f and b, their weights, after F and B before them. Of n, all
    foreground, it adds Δ(F+f, B+b) − Δ(F, B) = f · ½ (1/(n+B) + 1/(n+B+b)) + b · (n−F−f/2) / ((n+B) (n+B+b)): the mean
    of the orders "foreground first" and "background first". Without foreground the largest error pays all.
    """
    total, ahead, found = (
        wide(x) for x in (foreground.sum(-1, keepdim=True), _before(background), _before(foreground))
    )
    foreground, background = wide(foreground), wide(background)  # whole numbers are added up as such
    union = torch.where(total == 0, 1.0, total) + ahead
    after = union + background
    product = union * after
    of_foreground = (union + after) / (2 * product)
    of_background = (total - (found + foreground / 2)) / product
    if not can_look(total) or bool((total == 0).any()):
        alone = (ahead == 0) / torch.where(background == 0, 1.0, background)
        of_background = torch.where(total == 0, alone, of_background)
    return of_foreground, of_background


def weigh(histogram: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
    """The losses (G, C), and what a unit of weight is charged in each slot, from the histogram (G, C, 2, slots).

    Of the two, 0 is background and 1 foreground; the weights may be whole numbers. `span` is the largest error, (G, C):
    the last level.
    """
    background, foreground = histogram.flip(-1).unbind(2)
    of_foreground, of_background = jaccard(foreground, background)
    bins = histogram.shape[-1] - EXTRA
    level = torch.arange(bins, -1, -1, dtype=span.dtype, device=histogram.device) / bins
    share = (foreground * of_foreground + background * of_background)[..., 1:-1]
    broken = histogram[..., -1].sum(2) != 0
    losses = torch.where(broken, torch.nan, span * (share * level).sum(-1))
    table = torch.stack([of_background, of_foreground], 2).flip(-1)
    return losses, F.pad(F.pad(table[..., 1:-1], (1, 0)), (0, 1), value=torch.nan)  # an error of 0 has no gradient


def scale_of(span: Tensor, bins: int) -> Tensor:
    """Levels per error."""
    return torch.where(span > TINY, bins / torch.where(span > TINY, span, 1.0), 0.0)


def ranked(question: Order) -> tuple[Tensor, Tensor]:
    """The losses and the weight of the foreground, per group and class (G, C)."""
    if sorts(question):
        return by_sorting(*_grouped(question))
    counted = OnLevels(question)
    histogram = counted.histogram(counted.span)
    losses, table = weigh(histogram, counted.span)
    value = counted.charged(counted.span, table)
    return losses + (value - value.detach()), histogram[:, :, 1].sum(2)


def by_sorting(errors: Tensor, inside: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same, of grouped errors."""
    foreground, known = torch.where(inside, weight, 0.0), errors.detach()
    order = known.argsort(dim=-1, descending=True, stable=True)
    parts = [x.gather(-1, order) for x in (foreground, weight - foreground)]
    charge = sum(part * price for part, price in zip(parts, jaccard(*parts), strict=True))
    charge = torch.zeros_like(weight).scatter(-1, order, charge).masked_fill(known.isnan(), torch.nan)
    return (charge * errors).sum(-1), foreground.sum(-1)


class OnLevels:
    """`Counted`, in torch."""

    def __init__(self, question: Order | Levels) -> None:
        self.bins = question.ranking.bins
        self._slot: Tensor | None = None
        self.errors, self.inside, self.weight = _grouped(question)
        if not question.ranking.hinge:
            shape, device = self.errors.shape[:-1], self.errors.device
            self.span = torch.ones(shape, dtype=widest(device), device=device)
        else:  # of no errors at all there is no largest
            valid = self.errors.detach().nan_to_num(0.0).masked_fill(self.weight == 0, 0.0)
            self.span = wide(F.pad(valid, (0, 1)).amax(-1))

    def histogram(self, span: Tensor) -> Tensor:
        slot, (*groups, _) = self._slots(span), self.errors.shape
        counts = torch.zeros(*groups, 2 * (self.bins + EXTRA), dtype=self.weight.dtype, device=slot.device)
        return counts.scatter_add(-1, slot, self.weight).view(*groups, 2, self.bins + EXTRA)

    def charged(self, span: Tensor, table: Tensor) -> Tensor:
        charge = self.weight * table.flatten(2).gather(-1, self._slots(span))
        return (charge.detach() * self.errors).sum(-1)  # what follows from weights is in the histogram

    def _slots(self, span: Tensor) -> Tensor:
        """Of every error, with those of foreground behind those of background; of one span."""
        if self._slot is not None:
            return self._slot
        known = self.errors.detach()
        slot = known * scale_of(span.to(known), self.bins).unsqueeze(-1) + 1.5
        slot = torch.where(slot < self.bins + 2, slot, self.bins + 2).masked_fill(known <= 0, 0.0)  # NaN is not below
        self._slot = slot.long() + (self.bins + EXTRA) * self.inside
        return self._slot


def ranked_across(question: Order, counted: Callable[[], Counted]) -> Across[tuple[Tensor, Tensor]]:
    """The same where others hold a part of the groups: asks how many pixels there are and how large the largest error
    is, and then for the histogram, or where errors are sorted for all of them."""
    ranking, logits = question.ranking, question.problem.logits
    pixels = logits.shape[2:].numel() * (1 if ranking.per_image else len(logits))
    told = torch.full((1,), float(pixels), dtype=widest(logits.device), device=logits.device)
    here = None if ranking.exact else counted()
    if here is not None:
        told = torch.cat([told, here.span.flatten()])

    def then(told: Tensor) -> Any:
        counts = told[:, 0].long().tolist()
        if here is None or sum(counts) <= ranking.bins:
            errors, inside, weight = _grouped(question)
            rows = torch.stack([wide(errors), weight, inside.to(weight)])
            return Across((Everything(rows, counts),), sort)

        largest = told[:, 1:].amax(0).view_as(here.span)

        def weighed(histogram: Tensor) -> Any:
            losses, table = weigh(histogram, largest)
            foreground, value = histogram[:, :, 1].sum(2), here.charged(largest, table)
            return Across((Own(value),), lambda own: (losses + (own - own.detach()), foreground))

        return Across((here.histogram(largest),), weighed)

    def sort(found: Gathered) -> tuple[Tensor, Tensor]:
        errors, weight, inside = found.values
        return by_sorting(errors, inside.detach() > 0, weight)

    return Across((Each(told),), then)


def _grouped(question: Order | Levels) -> tuple[Tensor, Tensor, Tensor]:
    """The errors of each group and class, whether each is of foreground, and the weights, all (G, C, n)."""
    per_image = question.ranking.per_image
    errors, inside, weight = _errors(question)
    weight = weight if per_image else question.images.weighed(weight)
    weight = wide(weight.expand(errors.shape))
    if per_image:
        return errors, inside, weight
    errors, inside, weight = (x.transpose(0, 1).flatten(1).unsqueeze(0) for x in (errors, inside, weight))
    return errors, inside, weight


def _errors(question: Order | Levels) -> tuple[Tensor, Tensor, Tensor]:
    """The errors of the classes, |r − p| or max(0, 1 − z (2r − 1)), whether each is of foreground, and the weights.

    All (N, C, S), the weights perhaps (N, 1, S).
    """
    problem, axes = question.problem, question.problem.logits.ndim - 2
    z, target = flat(floating(problem.logits), axes), flat(problem.labels.target, axes)
    if problem.exclusive:
        classes = indices(z.shape[1], z, 1)
        inside = (target.unsqueeze(1) if problem.hard else likeliest(target)) == classes
    else:
        inside = target >= 0.5
    share = inside.to(z) if problem.hard else target.to(z.dtype)
    weight = problem.labels.weight
    weight = torch.ones_like(z[:, :1]) if weight is None else flat(weight, axes)
    weight = weight if weight.ndim == z.ndim else weight.unsqueeze(1)
    z = z.masked_fill(weight == 0, 0.0)
    if question.ranking.hinge:
        return (1 - z * (2 * share - 1)).relu(), inside, weight
    if problem.exclusive:
        p = z.softmax(1)
        miss = missed_by_every_class(p)
    else:
        p, miss = z.sigmoid(), (-z).sigmoid()
    return ((1 - share) * p - share * miss).abs(), inside, weight


def _before(x: Tensor) -> Tensor:
    """The sum of what comes before each entry."""
    return F.pad(x.cumsum(-1)[..., :-1], (1, 0))
