"""Made images for the examples, so that each of them is about its loss."""

from __future__ import annotations

import torch
from torch import Tensor


def discs(count: int, size: int = 32, axes: int = 2) -> tuple[Tensor, Tensor]:
    """Noisy images (count, 1, *S) of a small bright disc, with three axes a ball, and their labels (count, *S): 1 in
    it, 3 % of the pixels of 32 × 32."""
    centre = torch.randint(6, size - 6, (count, axes, *[1] * axes))
    places = torch.stack(torch.meshgrid(*[torch.arange(size)] * axes, indexing="ij"))
    labels = (((places - centre) ** 2).sum(1) < 3.2**2).long()
    return labels.unsqueeze(1) + 0.5 * torch.randn(count, 1, *labels.shape[1:]), labels
