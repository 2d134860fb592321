"""Pixel losses that choose or weigh their pixels: the rare, those at a boundary, those by their distance.

What is chosen is a constant to the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..bounds import Bounds, NonNegative, Positive, Spacing, Window
from ..engine.contract import Want
from ..engine.curves import CROSS_ENTROPY
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .pixel import PixelLoss, Table
from .pixel_hardest import OhemCrossEntropyLoss, TopKCrossEntropyLoss  # noqa: F401  # pickled as classes of this module


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
    source = "Sudre et al. 2017, arXiv 1707.03237"
    without: ClassVar[dict[str, str]] = {"class_weight": "its weights are its point"}
    priced_by = "image"
    splits = frozenset({"images", "space"})
    weight_from: Literal["prediction", "target"] = "prediction"
    clamp: Bounds = (1e-3, 1e3)

    def wants(self) -> Want:
        predicted = self.weight_from == "prediction"
        return super().wants() | Want(labels=True, errors=predicted and self.by_label)

    def sizes(self, batch: Batch) -> dict[str, Tensor]:
        if self.weight_from == "target" or self.by_label:
            return {}
        mass = batch.mass
        return {"size": batch.over_pixels(batch.field if mass is None else batch.field * mass)}

    def curves(self, groups: Groups | None) -> Table:
        return [(CROSS_ENTROPY, 1.0 if groups is None else self._price(groups))]

    def _price(self, groups: Groups) -> Tensor:
        s = groups.sums
        size = s.t
        if self.weight_from == "prediction":
            size = (s.t - s.fn + s.fp if self.by_label else s.size).detach()
        rest = s.n - size
        w = torch.where(size > 0, rest / torch.where(size > 0, size, 1.0), self.clamp[1]).clamp(*self.clamp)
        return w if groups.exclusive else torch.stack([torch.ones_like(w), w], 2)


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
    splits = frozenset({"images"})
    halo = "the labels of the pixels beyond the cut, (kernel_size − 1) / 2 of them, which must not be counted twice"
    range = (0.0, math.inf)
    source = "our construction"
    kernel_size: Window = 3
    side: Literal["both", "inner"] = "both"

    def curves(self, groups: Groups | None) -> Table:
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
    splits = frozenset({"images"})
    halo = "the deepest pixel of each whole class"
    range = (0.0, math.inf)
    source = "Caliva et al. 2019, arXiv 1908.03679"
    takes: ClassVar[frozenset[str]] = PixelLoss.takes | {"distance"}
    norm: Literal["boundary", "max"] = "boundary"
    spacing: Spacing | None = None

    def curves(self, groups: Groups | None) -> Table:
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
    splits = frozenset({"images", "space"})  # in space with a map that is given
    range = (0.0, math.inf)
    source = "Ronneberger et al. 2015, arXiv 1505.04597"
    takes: ClassVar[frozenset[str]] = PixelLoss.takes | {"gap"}
    w0: NonNegative = 10.0
    sigma: Positive = 5.0
    spacing: Spacing | None = None

    def curves(self, groups: Groups | None) -> Table:
        return [(CROSS_ENTROPY, None)]

    def scale(self, batch: Batch, class_weight: Tensor | None) -> Tensor:
        gap = batch.gap(self.spacing).to(batch.events[0].u)
        border = self.w0 * torch.exp(-0.5 * (gap / self.sigma).square())
        if class_weight is None:
            return 1 + border
        w = class_weight.to(border)  # ℓ is multiplied by it: w (1 + border / w)
        return torch.where(w > 0, 1 + border / torch.where(w > 0, w, 1.0), 0.0)
