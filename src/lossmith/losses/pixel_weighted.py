"""Pixel losses that choose or weigh their pixels: the rare, the hardest, those at a boundary, those by their distance.

What is chosen is a constant to the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..bounds import Bounds, Count, Fraction, NonNegative, Percent, Positive, Spacing, Window
from ..engine.contract import Want
from ..engine.curves import CROSS_ENTROPY
from ..engine.tensors import can_look, indices
from ..inputs.batch import Batch
from .pixel import PixelLoss, Table


class WeightedCrossEntropyLoss(PixelLoss):
    """Weighted cross-entropy: positives weighted by how rare the model thinks they are.

    −(1/N) Σ [w r ln p + (1 − r) ln(1 − p)], w = (N − Σ p) / Σ p per image; several exclusive classes: label c costs
    w_c u with w_c = (N − Σ p_c) / Σ p_c, another function than the binary one even at C = 2. w is a constant to the
    gradient: differentiated, the loss could be lowered by predicting more of everything. It divides by N, not by Σ w.

    Args:
        weight_from: "prediction" (the paper), or "target": w = (N − Σ r) / Σ r.
        clamp: bounds of w, also of a class that is absent or fills the image.

    Range: [0, ∞): 0 when perfect, unbounded at worst.
    Limits: with weight_from="prediction" the weight follows the model, not the data: it balances nothing by itself.
    Paper: Sudre et al. 2017, arXiv 1707.03237.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.WeightedCrossEntropyLoss()(p.logit(), target).item(), 4)
    0.2704
    """

    name = "wce"
    range = (0.0, math.inf)
    paper = "Sudre et al. 2017, arXiv 1707.03237"
    without: ClassVar[dict[str, str]] = {"class_weight": "its weights are its point"}
    weight_from: Literal["prediction", "target"] = "prediction"
    clamp: Bounds = (1e-3, 1e3)

    def wants(self) -> Want:
        predicted = self.weight_from == "prediction"
        return super().wants() | Want(labels=True, errors=predicted and self.by_label)

    def curves(self, batch: Batch | None) -> Table:
        return [(CROSS_ENTROPY, 1.0 if batch is None else self._price(batch))]

    def _price(self, batch: Batch) -> Tensor:
        s = batch.sums
        if self.weight_from == "target":
            size = s.t
        elif "fp" in s.known:
            size = s.t - s.fn + s.fp
        else:
            size = batch.over_pixels(batch.field if batch.mass is None else batch.field * batch.mass)
        rest = (s.n - size).detach()
        size = size.detach()
        w = torch.where(size > 0, rest / torch.where(size > 0, size, 1.0), self.clamp[1]).clamp(*self.clamp)
        return w if batch.exclusive else torch.stack([torch.ones_like(w), w], 2)


class HardestLoss(PixelLoss):
    """Cross-entropy over some of the pixels of the batch. Their weights only say which may be chosen."""

    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def curves(self, batch: Batch | None) -> Table:
        return [(CROSS_ENTROPY, None)]

    def hardest(self, u: Tensor, valid: Tensor | None) -> Tensor:
        """Which pixels to keep, bool, from the surprise of all, among the valid ones (None: all)."""
        raise NotImplementedError

    def chosen(self, batch: Batch) -> Tensor:
        weight = batch.pixel_weight
        costs = [event.u if event.chance is None else event.u * event.chance for event in batch.events]
        u = costs[0] if len(costs) == 1 else torch.stack(costs).sum(0)
        if weight is None:
            return self.hardest(u.detach(), None).to(u)
        kept = self.hardest(u.detach(), weight > 0).to(u)
        return torch.where(weight.isnan(), torch.nan, kept)  # neither valid nor ignored: it stays visible


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
    paper = "Shrivastava et al. 2016, arXiv 1604.03540"
    thresh: Fraction = 0.7
    min_kept: Count = 100_000

    def hardest(self, u: Tensor, valid: Tensor | None) -> Tensor:
        easy = -math.log(self.thresh) if self.thresh > 0 else math.inf
        hard = ~(u <= easy)  # a NaN is kept, so that it is seen
        hard = hard if valid is None else hard & valid
        if can_look(u) and int(hard.sum()) >= self.min_kept:
            return hard  # the hardest are among them
        return hard | largest(u, valid, self.min_kept)


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
    paper = "Wu et al. 2016, arXiv 1605.06885"
    percent: Percent = 10.0

    def hardest(self, u: Tensor, valid: Tensor | None) -> Tensor:
        count = u.numel() if valid is None else valid.sum().double()
        if isinstance(count, int):
            return largest(u, None, max(1, math.floor(self.percent * count / 100)))
        return largest(u, valid, torch.floor(self.percent * count / 100).clamp(min=1))


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
    least = kth_largest(flat.numpy(), k)
    kept = flat > least
    ties = (flat == least).nonzero()[: k - int(kept.sum()), 0]
    kept[ties] = True
    kept = kept.view_as(u)
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


class BoundaryCrossEntropyLoss(PixelLoss):
    """Boundary-pixel cross-entropy: cross-entropy over the pixels beside a boundary of the target.

    Kept: pixels with a valid pixel of another label in their window. Our construction from prose: "extract the
    boundary of the ground truth, compute the pixel loss there".

    Args:
        kernel_size: the width of the window, odd; 3 takes the pixels on both sides of the edge.
        side: "both", or "inner": of the objects alone, not of the background (class 0) beside them.

    Range: [0, ∞): 0 when perfect, ln C (binary: ln 2) when uniform, unbounded at worst; 0 where there is no boundary.
    Limits: says nothing about the rest of the image: add it to another loss.
    Paper: none.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.zeros(1, 1, 6), torch.tensor([[0, 0, 0, 1, 1, 1]])
    >>> ls.BoundaryCrossEntropyLoss(reduction="none")(logits, target)
    tensor([[0.0000, 0.0000, 0.6931, 0.6931, 0.0000, 0.0000]])
    """

    name = "boundary_ce"
    spatial = True
    range = (0.0, math.inf)
    paper = "our construction"
    kernel_size: Window = 3
    side: Literal["both", "inner"] = "both"

    def curves(self, batch: Batch | None) -> Table:
        return [(CROSS_ENTROPY, None)]

    def chosen(self, batch: Batch) -> Tensor:
        labels, valid = batch.labels
        known = None if batch.measured.complete else valid
        beside = near_another(labels, known, batch.n_labels, len(batch.space), self.kernel_size // 2)
        beside, weight = beside if self.side == "both" else beside & (labels > 0), batch.pixel_weight
        return beside.to(batch.events[0].u) if weight is None else weight * beside


def near_another(labels: Tensor, valid: Tensor | None, n_labels: int, axes: int, radius: int) -> Tensor:
    """Which pixels have two different valid labels (None: all are) in the window around them, which runs along the last
    `axes` axes.

    The largest and the smallest label nearby, by shifting small integers: several times faster than a pool of floats.
    """
    small = labels.to(torch.int8 if n_labels < 128 else torch.int32)
    highest = lowest = small
    if valid is not None:
        highest, lowest = (small.masked_fill(~valid, beyond) for beyond in (-1, n_labels))
    for axis in range(labels.ndim - axes, labels.ndim):
        for _ in range(radius):
            highest = _beside(torch.maximum, highest, axis, -1)
            lowest = _beside(torch.minimum, lowest, axis, n_labels)
    return highest > lowest


def _beside(pick: Callable[[Tensor, Tensor], Tensor], x: Tensor, axis: int, beyond: int) -> Tensor:
    """What is picked among each element and its two neighbours along an axis; beyond the border is nothing."""
    if x.numel() == 0:
        return x
    border, rest = torch.full_like(x.narrow(axis, 0, 1), beyond), x.shape[axis] - 1
    before = torch.cat([border, x.narrow(axis, 0, rest)], axis)
    behind = torch.cat([x.narrow(axis, 1, rest), border], axis)
    return pick(pick(x, before), behind)


class DistanceMapPenaltyLoss(PixelLoss):
    """Distance-map penalty: cross-entropy that costs up to twice as much beside a boundary of the target.

    (1/N) Σ (1 + Φ) u. On each side of a boundary, with d the distance to the nearest pixel of another label,
    Φ = (d_max − d) / (d_max − d_min): 1 at the boundary, 0 at the deepest pixel; per image and class.

    Args:
        norm: "boundary", or "max": Φ = 1 − d / d_max.
        spacing: the size of a pixel along each axis. None: 1 each.

    In the call, `distance=` takes the maps of `ls.distance.signed_distance_map`; otherwise they are made here.

    Range: [0, ∞): 0 when perfect, unbounded at worst; between one and two times cross-entropy.
    Limits: a class that is absent or fills the image has Φ = 0. The paper leaves the normalisation open; ours is that
        of a popular repository, which then returns the unweighted loss.
    Paper: Caliva et al. 2019, arXiv 1908.03679.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.zeros(1, 1, 6), torch.tensor([[0, 0, 0, 1, 1, 1]])
    >>> ls.DistanceMapPenaltyLoss(reduction="none")(logits, target) / torch.tensor(2.0).log()
    tensor([[1.0000, 1.5000, 2.0000, 2.0000, 1.5000, 1.0000]])
    """

    name = "distance_penalty"
    spatial = True
    range = (0.0, math.inf)
    paper = "Caliva et al. 2019, arXiv 1908.03679"
    takes: ClassVar[frozenset[str]] = PixelLoss.takes | {"distance"}
    norm: Literal["boundary", "max"] = "boundary"
    spacing: Spacing | None = None

    def curves(self, batch: Batch | None) -> Table:
        return [(CROSS_ENTROPY, None)]

    def scale(self, batch: Batch, class_weight: Tensor | None) -> Tensor:
        return 1 + self.penalty(batch)

    def penalty(self, batch: Batch) -> Tensor:
        """Φ, shaped like u: a straight line in d for each side of a boundary, start + slope · d."""
        distance, (labels, valid) = batch.distance(self.spacing), batch.labels
        if batch.exclusive:
            distance = distance.gather(1, labels.unsqueeze(1)).squeeze(1)
        sides, maps = batch.n_labels, len(labels) * (1 if batch.exclusive else batch.n_classes)
        side, d = labels.reshape(maps, math.prod(batch.space)), distance.abs().reshape(maps, math.prod(batch.space))
        hidden = None if batch.measured.complete else ~valid.reshape(d.shape)
        d = d if hidden is None else d.masked_fill(hidden, 0.0)
        deepest = d.new_zeros(maps, sides).scatter_reduce(1, side, d, "amax")
        shallowest = torch.zeros_like(deepest)
        if self.norm == "boundary":
            near = d if hidden is None else d.masked_fill(hidden, math.inf)
            shallowest = torch.full_like(deepest, math.inf).scatter_reduce(1, side, near, "amin")
        depth = torch.where(deepest > 0, deepest - shallowest, 0.0)
        slope = torch.where(depth > 0, -1 / torch.where(depth > 0, depth, 1.0), 0.0)
        thin = (deepest > 0) & (depth == 0)  # one pixel thin: all of it is boundary
        start = torch.where(thin, 1.0, -slope * deepest)
        return torch.addcmul(start.gather(1, side), slope.gather(1, side), d).reshape(labels.shape)


class BorderCrossEntropyLoss(PixelLoss):
    """U-Net's border weight: cross-entropy that costs more in the narrow gaps between objects.

    (1/N) Σ (w_c + w₀ exp(−(d₁ + d₂)² / 2σ²)) u, d₁ the distance to the nearest object and d₂ to the second nearest, w_c
    the weight of the class, 1 by default. The paper sums; the mean divides by the pixels, N, or Σ w_c.

    Args:
        w0: w₀ ≥ 0, how much more the narrowest gap costs.
        sigma: σ ≥ 0.001, how wide a gap still counts, in the unit of `spacing`.
        spacing: the size of a pixel along each axis. None: 1 each.

    In the call, `gap=` takes the map of `ls.distance.gap_map`, which tells objects apart that touch; otherwise objects
    are the connected components of every class above 0 (with several channels, of each channel).

    Range: [0, ∞): 0 when perfect, unbounded at worst; between one and 1 + w₀ times cross-entropy.
    Limits: an image with fewer than two objects has the weights of its classes alone. Ignored pixels belong to no
        object. Ours is the distance to an object, which is 0 inside of it; some copies keep the weight to background.
    Paper: Ronneberger, Fischer & Brox, "U-Net", MICCAI 2015, arXiv 1505.04597, eq. 2.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.zeros(1, 1, 5), torch.tensor([[1, 0, 0, 0, 1]])
    >>> ls.BorderCrossEntropyLoss(w0=1.0, sigma=4.0, reduction="none")(logits, target) / torch.tensor(2.0).log()
    tensor([[1.6065, 1.6065, 1.6065, 1.6065, 1.6065]])
    """

    name = "border_ce"
    spatial = True
    range = (0.0, math.inf)
    paper = "Ronneberger et al. 2015, arXiv 1505.04597"
    takes: ClassVar[frozenset[str]] = PixelLoss.takes | {"gap"}
    w0: NonNegative = 10.0
    sigma: Positive = 5.0
    spacing: Spacing | None = None

    def curves(self, batch: Batch | None) -> Table:
        return [(CROSS_ENTROPY, None)]

    def scale(self, batch: Batch, class_weight: Tensor | None) -> Tensor:
        gap = batch.gap(self.spacing).to(batch.events[0].u)
        border = self.w0 * torch.exp(-0.5 * (gap / self.sigma).square())
        if class_weight is None:
            return 1 + border
        w = class_weight.to(border)  # ℓ is multiplied by it: w (1 + border / w)
        return torch.where(w > 0, 1 + border / torch.where(w > 0, w, 1.0), 0.0)
