"""Arithmetic that every kernel shares. Plain Triton only, no device libraries, so that the interpreter runs it too."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
TINY = tl.constexpr(1e-30)
ALL = tl.constexpr(tl.PropagateNan.ALL)  # a NaN stays one


@triton.jit
def log1p(y):
    """log(1+y) for y >= 0, to the last digits however small y is: 1+y = 2^k (1+g), where g is computed from y."""
    k = ((1.0 + y).to(tl.int32, bitcast=True) - 0x3F3504F3) >> 23
    shrink = ((127 - k) << 23).to(tl.float32, bitcast=True)
    g = y * shrink + (shrink - 1.0)
    q = g * 0.08919144208 - 0.1435192666
    q = q * g + 0.148772652
    q = q * g - 0.1656544303
    q = q * g + 0.1996535663
    q = q * g - 0.2500175201
    q = q * g + 0.3333385899
    return g + g * g * (q * g - 0.5) + k.to(tl.float32) * 0.6931471806


@triton.jit
def exp(x, EXACT: tl.constexpr):
    """e^x for x <= 0. The hardware's 2^t loses |t| half-ulps by the rounding of t = x log2(e); EXACT puts them back."""
    if EXACT:
        x = tl.maximum(x, -104.0, propagate_nan=ALL)
        t = x * LOG2E
        lost = tl.fma(x, 1.92596298909109e-08, tl.fma(x, LOG2E, -t))
        e = tl.exp2(t)
        return tl.fma(e * 0.6931471805599453, lost, e)
    else:
        return tl.exp2(x * LOG2E)


@triton.jit
def power(base, x):
    """base^x for base >= 0, which counts as 1e-30 at least."""
    return tl.exp2(tl.minimum(x * tl.log2(tl.maximum(base, TINY, propagate_nan=ALL)), 127.0, propagate_nan=ALL))


@triton.jit
def clamp(x):
    """To 0 … 1; a NaN survives."""
    return tl.minimum(tl.maximum(x, 0.0, propagate_nan=ALL), 1.0, propagate_nan=ALL)


@triton.jit
def times(share, x):
    """share x, and 0 where the share is 0, whatever x is there: an ignored pixel, an impossible label."""
    return tl.where(share == 0.0, 0.0, share * x)


# ---- vectors of pixels -----------------------------------------------------------------------------------------------


@triton.jit
def halves(x):
    return tl.split(tl.reshape(x, (x.shape[0] // 2, 2)))


@triton.jit
def pieces(x, V: tl.constexpr):
    """Of every V neighbours the first, the second, …: V vectors, whose elements one thread holds anyway.

    Loads stay V wide, while what is carried through a loop is as short as a piece: a V-th of the registers.
    """
    if V == 1:
        return (x,)
    elif V == 2:
        a, b = halves(x)
        return (a, b)
    else:
        a, b = halves(x)
        a0, a1 = halves(a)
        b0, b1 = halves(b)
        return (a0, b0, a1, b1)


@triton.jit
def joined(x, V: tl.constexpr):
    """The opposite of `pieces`."""
    if V == 1:
        return x[0]
    elif V == 2:
        return tl.reshape(tl.join(x[0], x[1]), (2 * x[0].shape[0],))
    else:
        a = tl.reshape(tl.join(x[0], x[2]), (2 * x[0].shape[0],))
        b = tl.reshape(tl.join(x[1], x[3]), (2 * x[0].shape[0],))
        return tl.reshape(tl.join(a, b), (4 * x[0].shape[0],))


@triton.jit
def columns(x, K: tl.constexpr):
    """(B, K), K a power of two, as K vectors: how few classes that lie side by side reach one thread each pixel."""
    if K == 1:
        return (tl.reshape(x, (x.shape[0],)),)
    else:
        a, b = tl.split(tl.permute(tl.reshape(x, (x.shape[0], 2, K // 2)), (0, 2, 1)))
        return columns(a, K // 2) + columns(b, K // 2)


@triton.jit
def tabled(x, FIRST: tl.constexpr, K: tl.constexpr):
    """The opposite: K of a tuple of vectors as (B, K)."""
    if K == 1:
        return tl.reshape(x[FIRST], (x[FIRST].shape[0], 1))
    else:
        a = tabled(x, FIRST, K // 2)
        b = tabled(x, FIRST + K // 2, K // 2)
        return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), (a.shape[0], K))
