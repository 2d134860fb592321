"""Field losses: they look at the probabilities of neighbouring pixels, under one axis-aligned window or difference.

Windows and differences see valid pixels only, so that ignoring a margin is the same as cropping it away. Non-adjacency
alone looks at every pixel: it is unsupervised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..adjacency import forbidden_pairs
from ..arithmetic import power, ratio
from ..bounds import ClassPairs, NonNegative, Window
from ..engine.contract import Want
from ..engine.tensors import product
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .dense import ClassLoss, Dense, picked


class ActiveContourLoss(ClassLoss):
    """Active contour loss: the length of the predicted contour, plus the area that is wrong.

    mean √(Σ_axes (∂p)² + ε) + λ · mean (μ p (1 − r) + (1 − p) r) per class. ∂ are forward differences; the first mean
    is over the pixels that have a valid neighbour ahead along every axis (but for axes of a single pixel), the second
    over all valid pixels. The paper sums; means keep λ independent of the image's size.

    Args:
        region_weight: λ ≥ 0, of the wrong area against the length.
        inside_weight: μ ≥ 0, of false positives against false negatives.
        eps: ε ≥ 0. A flat prediction costs √ε.
        absent: "skip" takes a class that the target lacks out of the mean over classes.

    Range: [0, 1 + √D] for D spatial axes, up to √ε; a checkerboard of the wrong labels is the highest. Perfect is the
        length of the target's contour per pixel, not 0, and may lie above a flat prediction.
    Limits: wants a model that has been trained with another loss; with a small λ the shortest contour, none, wins.
    Paper: Chen et al., "Learning active contour models for medical image segmentation", CVPR 2019.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, 9.0]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.ActiveContourLoss()(logits, target).item(), 4)  # 2 of 3 differences, 1 of 4 pixels
    0.9166
    """

    name = "active_contour"
    halo = "a pixel beyond the cut along each axis"
    family = "field"
    spatial = True
    splits = frozenset({"images"})
    range = (0.0, 1.0 + math.sqrt(3.0) + 1e-8)
    source = "Chen et al. 2019, CVPR"
    without: ClassVar[dict[str, str]] = {"per_image": "a contour belongs to one image"}
    region_weight: NonNegative = 1.0
    inside_weight: NonNegative = 1.0
    eps: NonNegative = 1e-8
    absent: Literal["keep", "skip"] = "keep"  # type: ignore[assignment]  # instead of "smooth": it has no ε

    def wants(self) -> Want:
        return Want(errors=True)

    def class_losses(self, batch: Batch, groups: Groups, kept: list[int]) -> Tensor:
        s = batch.sums
        region = ratio(self.inside_weight * s.fp + s.fn, s.n)
        return picked(self._length(batch) + self.region_weight * region, kept)

    def _length(self, batch: Batch) -> Tensor:
        p, mass = batch.field, batch.mass
        axes = [axis for axis, size in enumerate(p.shape) if axis > 1 and size > 1]
        here = _corner(p, axes)
        slope = torch.stack([(_corner(p, axes, ahead) - here).square() for ahead in axes] or [torch.zeros_like(p)])
        length = power(slope.sum(0) + self.eps, 0.5)
        if mass is None:
            return ratio(batch.over_pixels(length), batch.over_pixels(torch.ones_like(length)))
        weight = _corner(mass, axes)
        for ahead in axes:
            weight = weight * (_corner(mass, axes, ahead) != 0)
        return ratio(batch.over_pixels(length * weight), batch.over_pixels(weight.expand_as(length)))


def _corner(x: Tensor, axes: list[int], ahead: int | None = None) -> Tensor:
    """The pixels that have a neighbour ahead along each of the axes; or that neighbour, along one of them."""
    for axis in axes:
        x = x.narrow(axis, int(axis == ahead), x.shape[axis] - 1)
    return x


class BoundaryF1Loss(ClassLoss):
    """Boundary F1 loss: one minus the F1 score of soft boundaries that may be a few pixels apart.

    1 − 2 P R / (P + R) per class, with P = Σ p^b r^e / Σ p^b and R = Σ r^b p^e / Σ r^b. The boundary of y is the inner
    ring y^b = max_θ0(1 − y) − (1 − y), max_θ being the largest in a window of θ pixels; y^e = max_θ(y^b) lies near it.

    Args:
        theta0: θ0, the window that makes the ring: 3 for a ring of one pixel, 5 for two.
        theta: θ, the window in which boundaries match: (θ − 1)/2 pixels along each axis. At most the smallest gap
            between two objects of a class.

    Range: [0, 1]: 0 when perfect, 1 when no boundary lies near another.
    Limits: sees boundaries only, so that an object and its complement look much alike: add a region loss. A class
        without a boundary in the target of an image leaves the mean. Weights of pixels count as 0 or not 0.
    Paper: Bokhovkin & Burnaev, "Boundary loss for remote sensing imagery semantic segmentation", ISNN 2019, arXiv
        1905.07852.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.BoundaryF1Loss(theta=1)(logits, target).item(), 4)  # the boundary is a pixel off
    1.0
    >>> round(ls.BoundaryF1Loss(theta=3)(logits, target).item(), 4)  # which is near enough
    0.0001
    """

    name = "boundary_f1"
    halo = "the pixels beyond the cut, (theta0 + theta) / 2 − 1 of them"
    family = "field"
    spatial = True
    splits = frozenset({"images"})
    range = (0.0, 1.0)
    source = "Bokhovkin & Burnaev 2019, arXiv 1905.07852"
    without: ClassVar[dict[str, str]] = {
        "per_image": "a boundary belongs to one image",
        "absent": "a class without a boundary in the target always leaves the mean",
    }
    theta0: Window = 3
    theta: Window = 5

    def class_losses(self, batch: Batch, groups: Groups, kept: list[int]) -> tuple[Tensor, Tensor]:
        masks, valid = (x[:, kept] for x in batch.masks)
        p, r = self._ring(1 - batch.field[:, kept], valid), self._ring((~masks).to(batch.field), valid)
        precision = ratio(batch.over_pixels(p * largest_near(r, self.theta)), batch.over_pixels(p))
        recall = ratio(batch.over_pixels(r * largest_near(p, self.theta)), batch.over_pixels(r))
        losses = 1 - ratio(2 * precision * recall, precision + recall)
        return losses + 0 * batch.sums.n[:, kept], batch.over_pixels(r) != 0  # a NaN among the weights stays visible

    def _ring(self, rest: Tensor, valid: Tensor) -> Tensor:
        """The boundary of y from 1 − y, 0 where ignored."""
        near = largest_near(rest.masked_fill(~valid, -torch.inf), self.theta0)
        return (near - rest).masked_fill(~valid, 0.0)


def largest_near(x: Tensor, window: int) -> Tensor:
    """The largest value in the window around each pixel of (N, C, *S); what lies beyond the border is no pixel."""
    return _along_axes(x, lambda lines: F.max_pool2d(lines, (window, 1), 1, (window // 2, 0)))


def _along_axes(x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """A pool over a box of any dimension, one axis after the other; `pool` runs along the second last axis."""
    if x.numel() == 0:
        return x
    for axis in range(2, x.ndim):
        before, size, after = math.prod(x.shape[1:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
        x = pool(x.reshape(len(x), before, size, after)).view(x.shape)
    return x


class NonAdjacencyLoss(Dense):
    """Non-adjacency loss: how much probability lies on pairs of classes side by side that never touch in anatomy.

    Σ_ij B_ij a_ij / Σ_ij B_ij, a_ij = mean_x φ_i(x) · box(φ_j)(x): the probability of class i at a pixel times the mean
    probability of class j in a window around it, zeros beyond the image. With one channel φ = (1 − p, p). It reads no
    labels: call `loss(logits)`; in a sum, an image without labels has a target filled with `ignore_index`, which the
    other terms skip.

    Args:
        forbidden: B ≥ 0, (C, C), above 0 for pairs that must not touch; binary (2, 2). See `from_labels`.
        window: pixels along each axis, odd.
        include_center: whether the pixel itself is part of its window: forbidden pairs then also pay where the model
            cannot decide between the two.

    Range: [0, 1]: 0 when no forbidden pair is near another, for perfect labels or not; 0 too if nothing is forbidden.
    Limits: alone it is content with any one class everywhere. Ignored pixels and pixels of weight 0 count; weights of
        images weigh the mean over images.
    Raises:
        ValueError: a call without `forbidden`, or with another number of classes.
    Paper: Ganaye et al., "Semi-supervised learning for segmentation under semantic constraint", MICCAI 2018; "Removing
        segmentation inconsistencies with semi-supervised non-adjacency constraint", Medical Image Analysis 58 (2019).

    >>> import torch, lossmith as ls
    >>> loss = ls.NonAdjacencyLoss.from_labels([torch.tensor([[0, 0, 1, 1, 2, 2]])], num_classes=3)
    >>> loss.settings()["forbidden"]  # 0 and 2 never touch
    [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    >>> labels = torch.tensor([[0, 2, 2, 1]])
    >>> logits = 99.0 * torch.nn.functional.one_hot(labels).mT.float()
    >>> round(loss(logits).item(), 4)  # of 4 windows of 3, one has a 2 beside its 0, and one a 0 beside its 2
    0.0833
    """

    name = "nonadjacency"
    halo = "the pixels beyond the cut, (window − 1) / 2 of them"
    family = "field"
    spatial = True
    splits = frozenset({"images"})
    counts: ClassVar[frozenset[str]] = frozenset({"forbidden"})
    range = (0.0, 1.0)
    source = "Ganaye et al. 2018, MICCAI"
    target = "none"
    sees_ignored = True
    takes: ClassVar[frozenset[str]] = Dense.takes
    without: ClassVar[dict[str, str]] = {"class_weight": "the entries of `forbidden` are its weights"}
    forbidden: ClassPairs | None = None
    window: Window = 3
    include_center: bool = True

    @classmethod
    def from_labels(
        cls, data: Iterable[Any], num_classes: int, window: int = 3, ignore_index: int = -100, **settings: Any
    ) -> Self:
        """The loss that forbids every pair of classes which never lie in one window of the given labels.

        A class may always touch itself. A class that never occurs is not part of any forbidden pair: the labels say
        nothing of it.

        Args:
            data: labels of one image each, (*S) with any number of axes, arrays or tensors of integers or bool; or
                (image, labels, ...) pairs, such as a Dataset. Read one after the other.
            num_classes: C; for one channel 1 or 2.
            window: pixels along each axis, odd; of the loss too.
            ignore_index: the label of pixels that do not count; of the loss too.
            settings: more settings of the loss.

        Raises:
            TypeError: labels that are not integers.
            ValueError: a label out of range; no labels at all.
        """
        forbidden = forbidden_pairs(data, num_classes, window, ignore_index)
        return cls(forbidden=torch.from_numpy(forbidden), window=window, ignore_index=ignore_index, **settings)

    def value(self, batch: Batch) -> Any:
        p = batch.whole_field
        p = torch.cat([1 - p, p], 1) if batch.task == "binary" else p
        forbidden = self._matrix(batch, p.shape[1]).to(p)
        pixels, taps = math.prod(batch.space), self.window ** len(batch.space) - (not self.include_center)
        near = _along_axes(p, lambda lines: F.avg_pool2d(lines, (self.window, 1), 1, (self.window // 2, 0)))
        if not self.include_center:
            near = (near * (taps + 1) - p) / max(taps, 1)
        adjacent = product(p.reshape(*p.shape[:2], pixels), near.reshape(*p.shape[:2], pixels).mT) / max(pixels, 1)
        losses = ratio((adjacent * forbidden).sum((1, 2)).to(batch.dtype), forbidden.sum())
        images = batch.images.weighed(torch.ones_like(losses))
        if self.reduction == "none":
            return losses * (images != 0)
        return self.reduce(batch.images, losses * images, images)

    def _matrix(self, batch: Batch, n_labels: int) -> Tensor:
        if self.forbidden is None:
            raise ValueError(
                f"{batch.who}: no forbidden pairs of classes are given; NonAdjacencyLoss.from_labels(labels, "
                f"num_classes={n_labels}) learns them from label maps, forbidden=[[...], ...] sets them"
            )
        if len(self.forbidden) != n_labels:
            raise ValueError(
                f"{batch.who}: forbidden is {tuple(self.forbidden.shape)}, but there are {n_labels} classes: "
                f"it must be {(n_labels, n_labels)}"
            )
        return self.forbidden
