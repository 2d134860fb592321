"""The operations that formulas share, exact where they would divide by 0."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-37  # as good as 0: the inverse of anything smaller overflows float32, which gradients arrive in


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b for b >= 0, and a where b is 0, so that 0 / 0 is 0. A NaN passes the guard and stays."""
    return a / torch.where(b < TINY, 1.0, b)


def power(x: Tensor, exponent: float, floor: float = 1e-30) -> Tensor:
    """x ** exponent for x >= 0; with an exponent below 1 linear up to `floor`, so that the slope at 0 is finite."""
    if exponent == 0 or exponent >= 1:
        return x**exponent
    return torch.where(x <= floor, x * floor ** (exponent - 1), x.clamp(min=floor) ** exponent)


def over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 (without a gradient) where b is 0. A NaN passes the guard and stays."""
    nothing = b.abs() < TINY
    return torch.where(nothing, 0.0, a / torch.where(nothing, 1.0, b))
