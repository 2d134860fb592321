"""Arithmetic on float32, as functions that are pasted into the kernels, and what the compiler may do with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from .compiler import KernelCompiler

LANES = 256  # pixels in a block
GROUP = 64
SQRT_HALF = 0x3F3504F3  # its float32 bits

# Fast arithmetic, except for what would let the compiler assume away NaN and infinity. Division by zero is no error.
# Nothing here allocates; without _nrt=False the counting of references to views would cost as much as the arithmetic.
_ANY: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_INNER: dict[str, Any] = _ANY | {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "forceinline": True,
    "pipeline_class": KernelCompiler,
}
FAST: dict[str, Any] = _INNER | {"fastmath": {"contract", "reassoc", "arcp", "nsz"}}
PASTED: dict[str, Any] = FAST | {"inline": "always"}
EXACT: dict[str, Any] = _INNER | {"fastmath": {"contract"}}  # where the order of the roundings matters
KERNEL: dict[str, Any] = _ANY | {"fastmath": FAST["fastmath"], "nogil": True}

# Constants by name: a call of np.float32 is a call to the compiler too.
ZERO, HALF, ONE, TWO, TINY = (np.float32(x) for x in (0.0, 0.5, 1.0, 2.0, 1e-30))


@njit(**EXACT)
def bits_of(x):
    return np.int64(np.float32(x).view(np.int32))


@njit(**EXACT)
def float_of(bits):
    return np.int32(bits).view(np.float32)


@njit(**EXACT)
def exp(x):
    """Below 2 ulp up to x = 88; 0 below −87.6. 2^n · e^r with n whole; adding 1.5·2²³ rounds to a whole number."""
    x = np.float32(-88.0) if x < np.float32(-88.0) else x
    shifted = x * np.float32(1.44269504) + np.float32(12582912.0)
    n = shifted - np.float32(12582912.0)
    r = x - n * np.float32(0.693359375)
    r = r - n * np.float32(-2.12194440e-4)
    q = np.float32(0.001381459865)
    q = q * r + np.float32(0.00836871688)
    q = q * r + np.float32(0.04166838805)
    q = q * r + np.float32(0.1666652063)
    q = q * r + np.float32(0.4999999345)
    return (q * r * r + r + ONE) * float_of((bits_of(shifted) << 23) + 0x3F800000)


@njit(**EXACT)
def log1p_near_0(g):
    """log(1+g) for −0.3 < g < 0.42, to the last digits however small g is."""
    q = np.float32(0.08919144208)
    q = q * g + np.float32(-0.1435192666)
    q = q * g + np.float32(0.148772652)
    q = q * g + np.float32(-0.1656544303)
    q = q * g + np.float32(0.1996535663)
    q = q * g + np.float32(-0.2500175201)
    q = q * g + np.float32(0.3333385899)
    return g + g * g * (q * g - HALF)


@njit(**EXACT)
def log1p(y):
    """log(1+y) for y ≥ 0: 1+y = 2^k (1+g), where g is computed from y, so a tiny y keeps its digits."""
    k = (bits_of(ONE + y) - SQRT_HALF) >> 23
    shrink = float_of((127 - k) << 23)
    g = y * shrink + (shrink - ONE)
    return log1p_near_0(g) + np.float32(k) * np.float32(0.6931471806)


@njit(**EXACT)
def log(x):
    """For 0 < x < ∞ and normal. It forgets a NaN: multiply by something that remembers."""
    bits = bits_of(x)
    k = (bits - SQRT_HALF) >> 23
    g = float_of(bits - (k << 23)) - ONE
    return log1p_near_0(g) + np.float32(k) * np.float32(0.6931471806)


def widen(raw: Any) -> Any:
    """A stored number as float32. A bfloat16 comes as uint16 bits, a float16 as int16 bits."""


def narrow(value: Any, flat: Any) -> Any:
    """A float32 as it is stored in `flat`, rounded to nearest, ties to even."""


@overload(widen)
def _widen(raw):
    if raw == types.float32:
        return lambda raw: raw
    if raw == types.uint16:
        return lambda raw: float_of(np.int64(raw) << 16)
    if raw == types.int16:
        return _from_float16
    return lambda raw: np.float32(raw)


@overload(narrow)
def _narrow(value, flat):
    if flat.dtype == types.float32:
        return lambda value, flat: value
    if flat.dtype == types.uint16:
        return _to_bfloat16
    return _to_float16


def _from_float16(raw):
    bits = np.uint32(np.uint16(raw))
    size = bits & 0x7FFF
    subnormal = bits_of(np.float32(size) * np.float32(2.0**-24))
    normal = (size << 13) + (112 << 23)
    finite = subnormal if size < 0x400 else normal
    return float_of((normal + (112 << 23) if size >= 0x7C00 else finite) | ((bits & 0x8000) << 16))


def _to_bfloat16(value, flat):
    bits = bits_of(value)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.uint16(0x7FC0 if (bits & 0x7FFFFFFF) > 0x7F800000 else rounded)


def _to_float16(value, flat):
    bits = bits_of(value)
    size = bits & 0x7FFFFFFF
    subnormal = bits_of(float_of(size) + HALF) - 0x3F000000  # adding a half rounds to multiples of 2⁻²⁴
    normal = (size - (112 << 23) + 0xFFF + ((size >> 13) & 1)) >> 13
    finite = subnormal if size < 0x38800000 else normal
    large = 0x7E00 if size > 0x7F800000 else 0x7C00
    return np.int16(np.uint16((large if size >= 0x47800000 else finite) | ((bits >> 16) & 0x8000)))


@njit(**FAST)
def total(x, groups):
    s = ZERO
    for i in range(GROUP * groups):
        s += x[i]
    return s


@njit(**FAST)
def dot(x, y, groups):
    s = ZERO
    for i in range(GROUP * groups):
        s += x[i] * y[i]
    return s


@njit(**FAST)
def dot_square(w, x, groups):
    s = ZERO
    for i in range(GROUP * groups):
        s += w[i] * x[i] * x[i]
    return s


@njit(**FAST)
def dot_where(w, x, groups):
    """Σ w x in which 0 · ∞ is 0."""
    s = ZERO
    for i in range(GROUP * groups):
        product = w[i] * x[i]
        s += product if w[i] != 0 else ZERO
    return s


@njit(**FAST)
def multiply(x, y, out, groups):
    for i in range(GROUP * groups):
        out[i] = x[i] * y[i]


@njit(**FAST)
def multiply_power(o, exponent, out, groups):
    """out *= o^exponent, where 0 ≤ o; small whole exponents, the usual ones, by multiplication."""
    if exponent == 0 or exponent == 1 or exponent == 2 or exponent == 3:
        for _ in range(np.int64(exponent)):
            multiply(out, o, out, groups)
    else:
        for i in range(GROUP * groups):
            base = o[i]
            base = TINY if base < TINY else base
            power = exponent * log(base)
            out[i] *= exp(np.float32(88.0) if power > np.float32(88.0) else power)
