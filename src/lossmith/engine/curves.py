"""Curves: the formulas of a pixel, f(u) of the surprise u = −ln p at its label, with their slopes.

One class each, and the only list of them. Kernels know a curve by its place in `KINDS` and its one number x, so that
every engine takes the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..arithmetic import power


@dataclass(frozen=True)
class Curve:
    """f(u) with one number x."""

    x: float

    @property
    def straight(self) -> bool:
        """Whether it is u itself."""
        return False

    def __call__(self, u: Tensor) -> Tensor:
        raise NotImplementedError

    def slope(self, u: Tensor) -> Tensor:
        """f'(u), written so that an exponent below 1 divides nothing by 0."""
        raise NotImplementedError


class Focal(Curve):
    """(1−p)^x u; cross-entropy with x = 0."""

    @property
    def straight(self) -> bool:
        return self.x == 0

    def __call__(self, u: Tensor) -> Tensor:
        return u if self.straight else power(-torch.expm1(-u), self.x) * u

    def slope(self, u: Tensor) -> Tensor:
        miss, p = -torch.expm1(-u), torch.exp(-u)
        share = torch.where(miss == 0, 1.0, u.clamp(max=1e30) / torch.where(miss == 0, 1.0, miss))  # p u → 0 at u = ∞
        return power(miss, self.x) * (1 + self.x * p * share)


class Power(Curve):
    """u^x; below 1 linear up to u = 1e-30, as in `power`."""

    def __call__(self, u: Tensor) -> Tensor:
        return power(u, self.x)

    def slope(self, u: Tensor) -> Tensor:
        near = torch.where(u <= 1e-30, u.new_ones(()), self.x) if self.x < 1 else self.x
        return near * u.clamp(min=1e-30) ** (self.x - 1)


class SignedConservative(Curve):
    """(1 − v)² ln v with v = u / x; u counts as 1e-30 at least."""

    def __call__(self, u: Tensor) -> Tensor:
        v = u.clamp(min=1e-30) / self.x
        return (1 - v).square() * v.log()

    def slope(self, u: Tensor) -> Tensor:
        v = u.clamp(min=1e-30) / self.x
        return torch.where(u < 1e-30, 0.0, ((1 - v).square() / v - 2 * (1 - v) * v.log()) / self.x)


class Conservative(SignedConservative):
    """(1 − v)² |ln v|."""

    def __call__(self, u: Tensor) -> Tensor:
        return super().__call__(u).abs()

    def slope(self, u: Tensor) -> Tensor:
        slope = super().slope(u)
        return torch.where(u < self.x, -slope, slope)


KINDS: tuple[type[Curve], ...] = (Focal, Power, Conservative, SignedConservative)
CROSS_ENTROPY = Focal(0.0)
