"""Pixel losses over the hardest pixels of the batch. What is chosen is a constant to the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..bounds import Count, Fraction, Percent
from ..engine.curves import CROSS_ENTROPY
from ..engine.images import Across, Each, Everything, Gathered, Images
from ..engine.tensors import can_look, indices
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .pixel import PixelLoss, Table


class HardestLoss(PixelLoss):
    """Cross-entropy over some of the pixels of the batch. Their weights only say which may be chosen."""

    splits = frozenset({"images", "space"})
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def curves(self, groups: Groups | None) -> Table:
        return [(CROSS_ENTROPY, None)]

    def hard(self, u: Tensor) -> Tensor | None:
        """Which pixels are kept in any case, bool, from the surprise of all."""
        return None

    def at_least(self, count: Callable[[], int | Tensor]) -> int | Tensor:
        """How many are kept at least, the hardest, if so many are valid, of which there are `count()`."""
        raise NotImplementedError

    def chosen(self, batch: Batch) -> Tensor:
        weight, u = batch.pixel_weight, _cost(batch)
        return _seen(weight, self._hardest(u, None if weight is None else weight > 0).to(u))

    def _hardest(self, u: Tensor, valid: Tensor | None) -> Tensor:
        hard = self.hard(u)
        if hard is not None:
            hard = hard if valid is None else hard & valid
        k = self.at_least(lambda: u.numel() if valid is None else valid.sum().double())
        if hard is None:
            return largest(u, valid, k)
        if can_look(u) and int(hard.sum()) >= k:
            return hard  # the hardest are among them
        return hard | largest(u, valid, k)

    def value(self, batch: Batch) -> Any:
        return super().value(batch) if batch.images.split is None else self._over_all(batch)

    def _over_all(self, batch: Batch) -> Across[Tensor]:
        """Where others hold pixels too: asks how many there are and how many of them are hard, which may be all that is
        to know; then for the hardest of everyone."""
        weight, u = batch.pixel_weight, _cost(batch)
        valid = torch.ones_like(u, dtype=torch.bool) if weight is None else weight > 0
        hard = self.hard(u)
        hard = torch.zeros_like(valid) if hard is None else hard & valid
        prices = batch.label_price(self.class_weight, "class_weight")

        def over(kept: Tensor) -> tuple[Tensor, Tensor]:
            amount, share = self.pixels(batch, batch, prices, _seen(weight, kept.to(u)))
            assert isinstance(share, Tensor)
            return amount, share

        amount, share = over(hard)
        broken = torch.zeros_like(valid) if weight is None else weight.isnan()
        counts = torch.stack([valid.sum(), hard.sum(), broken.sum()])

        def then(total: Tensor, weighed: Tensor, denominator: Tensor, told: Tensor) -> Any:
            of_each, n_hard = told[:, 0].long().tolist(), int(told[:, 1].sum())
            k, by = int(self.at_least(lambda: sum(of_each))), None if batch.denominator is None else denominator
            if n_hard >= k:
                return amount if self.reduction == "none" else self.reduce(Images(), total, weighed, by)
            mine = largest(u, valid, k)
            parts = dict(zip(("amount", "share"), over(valid), strict=True))
            if prices is not None:
                parts["cost"] = u  # else it is the amount
            if batch.images.split == "space":
                parts["image"] = _map_of(u, len(batch.space))
            rows = torch.stack([x.flatten().to(batch.dtype)[mine.flatten()] for x in parts.values()])

            def chosen(found: Gathered) -> Tensor:
                known = dict(zip(parts, found.values, strict=True))
                amounts, shares = known["amount"], known["share"]
                keys = known.get("cost", amounts).detach()
                order = indices(len(keys), keys)
                if "image" in known:  # equals are chosen by their place in the whole images
                    order = known["image"].argsort(stable=True)
                kept = torch.empty_like(keys, dtype=torch.bool)
                kept[order] = largest(keys[order], None, k)
                if self.reduction == "none":
                    return over(torch.zeros_like(valid).masked_scatter(mine, kept[found.own]))[0]
                total, weighed = (torch.where(kept, x, 0.0).sum() for x in (amounts, shares))
                if told[:, 2].any():
                    total, weighed = (x * torch.nan for x in (total, weighed))
                value: Tensor = self.reduce(Images(), total, weighed, by)
                return value

            return Across((Everything(rows, [min(k, n) for n in of_each]),), chosen)

        by: Any = 0.0 if batch.denominator is None else batch.denominator
        return Across((amount.sum(), share.sum(), by, Each(counts)), then)


def _cost(batch: Batch) -> Tensor:
    """What pixels are ranked by: how surprising their labels are."""
    costs = [event.u if event.chance is None else event.u * event.chance for event in batch.events]
    return (costs[0] if len(costs) == 1 else torch.stack(costs).sum(0)).detach()


def _seen(weight: Tensor | None, kept: Tensor) -> Tensor:
    """What is neither valid nor ignored stays visible."""
    return kept if weight is None else torch.where(weight.isnan(), torch.nan, kept)


def _map_of(u: Tensor, axes: int) -> Tensor:
    """The number of the image, or of the channel of an image, that each pixel is of."""
    lead = u.shape[: u.ndim - axes]
    return indices(lead.numel(), u).reshape(*lead, *[1] * axes).expand(u.shape)


class OhemCrossEntropyLoss(HardestLoss):
    """Online hard example mining: cross-entropy over the pixels that the model does not yet get right.

    Kept: pixels with p_t < thresh, and in any case the `min_kept` hardest of the batch (ties by position). The mean is
    over what is kept. `class_weight` does not enter the ranking.

    Args:
        thresh: in [0, 1]; 0 keeps the hardest alone, 1 all.
        min_kept: a number of pixels of the whole batch.

    Range: [0, ∞): 0 when perfect, unbounded at worst; never below the cross-entropy of the same pixels.
    Limits: label noise is hard, too, and is kept. Some implementations lose a pixel when fewer than `min_kept` are
        there, or give NaN when many are equally hard; this one does not.
    Paper: Shrivastava et al., CVPR 2016, arXiv 1604.03540 (of regions); Wu et al. 2016, arXiv 1605.06885 (of pixels).

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.3, 0.05, 0.8]]]), torch.ones(1, 5, dtype=torch.long)
    >>> round(ls.OhemCrossEntropyLoss(thresh=0.7, min_kept=1)(p.logit(), target).item(), 4)  # three are kept
    1.5702
    """

    name = "ohem"
    splits = frozenset({"images", "space"})
    source = "Shrivastava et al. 2016, arXiv 1604.03540"
    thresh: Fraction = 0.7
    min_kept: Count = 100_000

    def hard(self, u: Tensor) -> Tensor:
        easy = -math.log(self.thresh) if self.thresh > 0 else math.inf
        return ~(u <= easy)  # a NaN is kept, so that it is seen

    def at_least(self, count: Callable[[], int | Tensor]) -> int:
        return self.min_kept


class TopKCrossEntropyLoss(HardestLoss):
    """Top-k: cross-entropy over the hardest percent of the pixels of the batch, at least one (ties by position).

    Args:
        percent: of the valid pixels, in [0, 100], rounded down.

    Range: [0, ∞): 0 when perfect, unbounded at worst; never below cross-entropy.
    Limits: as OHEM.
    Paper: Wu et al. 2016, arXiv 1605.06885; nnU-Net: Isensee et al. 2018, arXiv 1809.10486.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.3, 0.05, 0.8]]]), torch.ones(1, 5, dtype=torch.long)
    >>> round(ls.TopKCrossEntropyLoss(percent=40)(p.logit(), target).item(), 4)
    2.0999
    """

    name = "topk"
    source = "Wu et al. 2016, arXiv 1605.06885"
    percent: Percent = 10.0

    def at_least(self, count: Callable[[], int | Tensor]) -> int | Tensor:
        valid = count()
        if isinstance(valid, int):
            return max(1, math.floor(self.percent * valid / 100))
        return torch.floor(self.percent * valid / 100).clamp(min=1)


def largest(u: Tensor, valid: Tensor | None, k: int | Tensor) -> Tensor:
    """The k largest of the valid elements (None: all), bool; the first of equals. A NaN is larger than all.

    On a CPU in linear time, by selection; elsewhere by sorting, since k must not be looked at there.
    """
    flat = torch.nan_to_num(u, nan=math.inf, posinf=math.inf).flatten()
    flat = flat if valid is None else torch.where(valid.flatten(), flat, -1.0)
    if not can_look(u):
        order = flat.argsort(descending=True, stable=True)
        rank = torch.empty_like(order).scatter(0, order, indices(len(flat), flat))
        kept = (rank < k).view_as(u)
        return kept if valid is None else kept & valid
    k = min(int(k), len(flat))
    if k == 0:
        return torch.zeros_like(u, dtype=torch.bool)
    values = flat.numpy()
    least = kth_largest(values, k)
    hardest = values > least
    ties = np.flatnonzero(values == least)[: k - int(np.count_nonzero(hardest))]
    hardest[ties] = True
    kept = torch.from_numpy(hardest).view_as(u)
    return kept if valid is None else kept & valid


def kth_largest(values: np.ndarray[Any, Any], k: int) -> float:
    """By selection among those that can be it: a sample says between which two values to look."""
    sample = np.sort(values[:: max(1, len(values) >> 12)])
    at, slack = len(sample) * (1 - k / len(values)), 4 * math.sqrt(len(sample))
    low, high = (sample[int(min(max(x, 0), len(sample) - 1))] for x in (at - slack, at + slack))
    above = int(np.count_nonzero(values > high))
    between = values[(values >= low) & (values <= high)]
    if not above < k <= above + len(between):
        between, above = values, 0
    place = len(between) - (k - above)
    return float(np.partition(between, place)[place])
