"""Sums that cross images, all of them: the one place that a process group will have to reach.

What belongs to one image stays there; whatever is added up or divided over the images of a batch goes through
an `Images`. The order statistics that look at single pixels of all images (OHEM, top-k, the exact Lovász extension) are
the exception: they take `Images` for its weights, and sort for themselves.
"""

from __future__ import annotations

from torch import Tensor

from ..arithmetic import ratio


class Images:
    """The images of a call and their weights.

    sample  a weight for each image, (N,); 0 ignores it. None: all weigh 1
    """

    def __init__(self, sample: Tensor | None = None) -> None:
        self.sample = sample

    def weighed(self, values: Tensor) -> Tensor:
        """Values of images, (N, …), times the weights of the images."""
        if self.sample is None:
            return values
        return values * self.sample.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))

    def pooled(self, values: Tensor) -> Tensor:
        """Σ over the images of values (N, …), as one group (1, …)."""
        return values.sum(0, keepdim=True)

    def total(self, values: Tensor) -> Tensor:
        """Σ over everything, a scalar."""
        return values.sum()

    def mean(self, amount: Tensor, weight: Tensor | float) -> Tensor:
        """Σ amount / Σ weight; a number is a sum already. Where nothing is valid, 0 / 0, it is 0 with a graph."""
        total = self.total(amount)
        if isinstance(weight, Tensor):
            return ratio(total, self.total(weight))
        return total / float(weight) if weight else total  # torch converts an integer, forward and backward
