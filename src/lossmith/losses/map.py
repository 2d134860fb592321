"""Map losses: the prediction is weighed by the distance of each pixel to the boundary of the class.

The map depends on the labels alone. It is made inside, on the CPU, or given: `loss(logits, target, distance=map)`, with
`map` from `ls.distance.signed_distance_map`, which a Dataset can call in its workers. A class that is absent, or fills
the image, has no boundary: its map is 0. Per image and class the mean over the valid pixels; nothing is measured to an
ignored pixel.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..arithmetic import ratio
from ..bounds import NonNegative, Spacing
from ..distance import zero_ring
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .dense import ClassLoss, picked


class MapLoss(ClassLoss):
    """The mean over the pixels of something of the prediction times something of a map."""

    family = "map"
    splits = frozenset({"images", "space"})  # in space with a map that is given
    spatial = True
    takes: ClassVar[frozenset[str]] = ClassLoss.takes | {"distance"}
    without: ClassVar[dict[str, str]] = {"per_image": "a map belongs to one image"}
    spacing: Spacing | None = None
    absent: Literal["keep", "skip"] = "keep"  # type: ignore[assignment]  # instead of "smooth": it has no ε

    def sums(self, batch: Batch) -> Tensor:
        """What the pixels of each image and class add up to, (N, C)."""
        raise NotImplementedError

    def groups(self, batch: Batch) -> Any:
        return batch.grouped(True, priced=self.sums(batch))

    def class_losses(self, batch: Batch, groups: Groups, kept: list[int]) -> Tensor:
        return picked(ratio(groups.sums.priced, groups.sums.n), kept)


class BoundaryLoss(MapLoss):
    """Boundary loss: each pixel's probability times its signed distance to the boundary of the target.

    mean φ p, φ the distance to the class outside of it and −(d − h) inside, d the distance to the rest and h the
    smallest spacing: the authors' map, 0 on the inner ring and 1 on the outer. Its gradient is a constant per pixel,
    and it needs no overlap. Made to be added to a region loss, with a weight that grows (see `ls.ramp`):
    `(1 - a) * gdl + a * boundary` or `gdl + a * boundary`.

    Args:
        symmetric: −d inside instead: the inner ring has a gradient too.
        spacing: the size of a pixel along each spatial axis; distances have its unit. None: pixels.
        shifted: mean φ (p − r) instead, which is 0 when perfect and has the same gradient. With labels nothing is
            below 0.
        absent: a class that the target lacks has φ = 0; "skip" takes it out of the mean over classes.

    Range: (−∞, ∞): lowest when perfect, at Σ φ r over the number of pixels, which is at most 0; the larger the image,
        the wider.
    Limits: alone it may settle on an empty prediction; values do not compare between images; a map made inside costs
        many times the rest of the loss.
    Raises:
        ValueError: a spacing or a map that does not fit the logits.
    Paper: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, arXiv 1812.07032.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, 9.0]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.BoundaryLoss()(logits, target).item(), 4)  # φ = −1, 0, 1, 2
    0.25
    >>> distance = ls.distance.signed_distance_map(target, num_classes=1)
    >>> round(ls.BoundaryLoss(shifted=True)(logits, target, distance=distance).item(), 4)
    0.5
    """

    name = "boundary"
    range = (-math.inf, math.inf)
    source = "Kervadec et al. 2019, arXiv 1812.07032"
    symmetric: bool = False
    spacing: Spacing | None = None
    shifted: bool = False

    def sums(self, batch: Batch) -> Tensor:
        distance = batch.distance(self.spacing)
        price = distance if self.symmetric else zero_ring(distance, self.spacing)
        return batch.over_map(price, "residual" if self.shifted else "chance")


class HausdorffDTLoss(MapLoss):
    """Hausdorff loss by distance transforms: squared errors, weighed by how far they lie from the boundaries.

    mean (p − r)² (d_r^α + d_p^α), d the distance to the other side of the mask, outside and inside alike: d_r of the
    target, d_p of the prediction, which is its likeliest class (binary, multilabel: p > ½). Both are constants.

    Args:
        alpha: α ≥ 0, how much more a far error costs. 0 weighs all alike.
        one_sided: without d_p, which needs a distance transform of every prediction: the loss is many times faster.
        spacing: the size of a pixel along each spatial axis; distances have its unit. None: pixels.
        absent: a class that the target lacks has d_r = 0; "skip" takes it out of the mean over classes.

    Range: [0, ∞): 0 when perfect; unbounded with the image's size.
    Limits: errors are free where neither mask has a boundary, as when a class is absent and nowhere predicted; jumps
        where the thresholded prediction does; slow without `one_sided`.
    Raises:
        ValueError: a spacing or a map that does not fit the logits.
    Paper: Karimi & Salcudean, "Reducing the Hausdorff distance in medical image segmentation with convolutional neural
        networks", IEEE TMI 2020, arXiv 1904.10030.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, 9.0]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.HausdorffDTLoss(one_sided=True)(logits, target).item(), 4)  # one error, 2 away: 2² / 4
    0.9998
    >>> round(ls.HausdorffDTLoss()(logits, target).item(), 4)
    1.2497
    """

    name = "hausdorff"
    range = (0.0, math.inf)
    source = "Karimi & Salcudean 2019, arXiv 1904.10030"
    alpha: NonNegative = 2.0
    one_sided: bool = False
    spacing: Spacing | None = None

    def sums(self, batch: Batch) -> Tensor:
        price = self._price(batch.distance(self.spacing))
        price = price if self.one_sided else price + self._price(batch.predicted_distance(self.spacing))
        return batch.over_map(price, "square")

    def _price(self, distance: Tensor) -> Tensor:
        return distance.abs().pow_(self.alpha) if self.alpha else (distance != 0).to(distance)  # not 0⁰ = 1
