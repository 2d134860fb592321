"""Values of pixels: masked, weighted, added up."""

from __future__ import annotations

from torch import Tensor

from ..tensors import wide


def cleared(z: Tensor, weight: Tensor | None) -> Tensor:
    """Logits (N, C, S) with the ignored pixels, or channels, at 0: whatever they were, NaN included, they can touch
    nothing."""
    if weight is None:
        return z
    ignored = weight == 0
    return z.masked_fill(ignored if ignored.ndim == z.ndim else ignored.unsqueeze(1), 0.0)


def times(weight: Tensor | None, x: Tensor) -> Tensor:
    """Values of pixels, (N, S) or (N, C, S), times the weights of the pixels, (N, S) or (N, C, S), if there are any."""
    return x if weight is None else x * (weight if x.ndim == weight.ndim else weight.unsqueeze(1))


def total(x: Tensor) -> Tensor:
    """Σ over the pixels of each image, (N, C)."""
    return wide(x.sum(2))
