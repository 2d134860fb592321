"""The curves of `engine/curves.py` over a block, with their slopes."""

from __future__ import annotations

import numpy as np
from numba import njit

from .arithmetic import FAST, GROUP, ONE, TINY, TWO, ZERO, log, multiply_power

FOCAL, POWER, CONSERVATIVE, SIGNED_CONSERVATIVE = range(4)  # in the order of KINDS


@njit(**FAST)
def bent(shapes, k):
    """Whether f(u) is not u itself."""
    if shapes is None:
        return False
    return shapes[k, 0] != FOCAL or shapes[k, 1] != 0


@njit(**FAST)
def curve(shapes, k, u, o, out, groups):
    """f(u) of a `Curve`, where o = 1 − p. u^x is u · max(u, 1e-30)^(x−1): linear below 1e-30, and NaN and ∞ survive."""
    if shapes is None:
        for i in range(GROUP * groups):
            out[i] = u[i]
        return
    kind, x = shapes[k, 0], shapes[k, 1]
    if kind >= CONSERVATIVE:
        for i in range(GROUP * groups):
            v = (TINY if u[i] < TINY else u[i]) / x
            away, height = ONE - v, log(v)
            out[i] = away * away * (abs(height) if kind == CONSERVATIVE else height)
    else:
        for i in range(GROUP * groups):
            out[i] = u[i]
        base = u if kind == POWER else o  # one call, not two: it is pasted in
        multiply_power(base, x - np.float32(kind == POWER), out, groups)


@njit(**FAST)
def curve_slope(shapes, k, u, o, p, out, groups):
    """f'(u). Of a focal curve o^(x−1) (o + x p u); at u = ∞, p u is 0: hence the bound on u."""
    if shapes is None:
        for i in range(GROUP * groups):
            out[i] = ONE
        return
    kind, x = shapes[k, 0], shapes[k, 1]
    if kind >= CONSERVATIVE:
        for i in range(GROUP * groups):
            v = (TINY if u[i] < TINY else u[i]) / x
            away, height = ONE - v, log(v)
            slope = (away * away / v - TWO * away * height) / x
            slope = -slope if (height < 0) & (kind == CONSERVATIVE) else slope
            out[i] = ZERO if u[i] < TINY else slope
    else:
        base = u if kind == POWER else o
        if kind == POWER:
            for i in range(GROUP * groups):
                out[i] = ONE if (u[i] <= TINY) & (x < 1) else x
        else:
            for i in range(GROUP * groups):
                bounded = u[i]
                bounded = np.float32(1e30) if bounded > np.float32(1e30) else bounded
                out[i] = ONE if x == 0 else o[i] + x * p[i] * bounded
        if bent(shapes, k):
            multiply_power(base, x - ONE, out, groups)
