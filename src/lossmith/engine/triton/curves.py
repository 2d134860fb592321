"""The curves of `engine/curves.py`, with their slopes."""

from __future__ import annotations

import triton
import triton.language as tl

from ..curves import KINDS, Conservative, Curve, Focal, Power, SignedConservative
from .arithmetic import ALL, TINY, power

# Kinds are constants of a kernel. The whole exponents of focal up to 3, the usual ones, are kinds of their own, 0 to 3.
WHOLE = 4
FOCAL, POWER, CONSERVATIVE, SIGNED_CONSERVATIVE = (
    tl.constexpr(WHOLE + KINDS.index(kind)) for kind in (Focal, Power, Conservative, SignedConservative)
)


def kind_of(curve: Curve) -> int:
    """What a kernel is told beside x."""
    for whole in range(WHOLE):  # one by one: compilers may know x as a symbol, which they can compare
        if type(curve) is Focal and curve.x == whole:
            return whole
    return WHOLE + KINDS.index(type(curve))


def curve_of(kind: int, x: float) -> Curve:
    """The opposite."""
    return Focal(x) if kind < WHOLE else KINDS[kind - WHOLE](x)


@triton.jit
def curve(KIND: tl.constexpr, x, u, miss):
    """f(u), where miss = 1 − p."""
    if KIND == 0:
        return u
    elif KIND == 1:
        return u * miss
    elif KIND == 2:
        return u * miss * miss
    elif KIND == 3:
        return u * miss * miss * miss
    elif KIND == FOCAL:
        return u * power(miss, x)
    elif KIND == POWER:
        return u * power(u, x - 1.0)
    else:
        v = tl.maximum(u, TINY, propagate_nan=ALL) / x
        height = tl.log(v)
        if KIND == CONSERVATIVE:
            height = tl.abs(height)
        return (1.0 - v) * (1.0 - v) * height


@triton.jit
def slope(KIND: tl.constexpr, x, u, miss, hit):
    """f'(u). Of a focal curve miss^(x−1) (miss + x p u); p u is 0 at u = ∞, hence the bound on u."""
    pu = hit * tl.minimum(u, 1e30, propagate_nan=ALL)
    if KIND == 0:
        return tl.full(u.shape, 1.0, tl.float32)
    elif KIND == 1:
        return miss + pu
    elif KIND == 2:
        return miss * (miss + 2.0 * pu)
    elif KIND == 3:
        return miss * miss * (miss + 3.0 * pu)
    elif KIND == FOCAL:
        return power(miss, x - 1.0) * (miss + x * pu)
    elif KIND == POWER:
        return tl.where((u <= TINY) & (x < 1.0), 1.0, x) * power(u, x - 1.0)
    else:
        v = tl.maximum(u, TINY, propagate_nan=ALL) / x
        height = tl.log(v)
        steep = ((1.0 - v) * (1.0 - v) / v - 2.0 * (1.0 - v) * height) / x
        if KIND == CONSERVATIVE:
            steep = tl.where(height < 0.0, -steep, steep)
        return tl.where(u < TINY, 0.0, steep)
