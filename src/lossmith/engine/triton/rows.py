"""Hard labels of many classes that lie side by side, a classifier's (N, C) above all: one program, one pixel.

Only what is a function of u is made here, and no sums per class. Strides are multiples of EVEN, and given without it:
a row of 1000 classes begins where 16 bytes can be loaded at once, which the compiler sees if it is told so.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import exp, log1p, times
from .curves import curve, slope
from .pixels import counted, label_of, weight_of
from .walk import LOW, nothing_possible


@triton.jit
def pixel_of(
    z, y, w, sample, zn, zs, S, ignore, C: tl.constexpr, B: tl.constexpr, EVEN: tl.constexpr,
    HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """A pixel of this program, as vectors of one: label, weight, and the largest logit and what follows from it."""
    pixel = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    image = pixel // S
    ok = pixel >= 0
    wt = weight_of(w, sample, pixel, image, ok, HAS_W, HAS_SAMPLE)
    label, wt = label_of(y, pixel, wt, ok, ignore, C)
    at = (image * zn + pixel % S * zs) * EVEN
    own = tl.load(z + at + label).to(tl.float32)
    peak = tl.maximum(own, LOW)
    rest = tl.zeros((1,), tl.float32)
    k = tl.arange(0, B)
    for c in range(0, C, B):
        x = tl.load(z + at + c + k, mask=c + k < C, other=float("-inf")).to(tl.float32)
        top = tl.maximum(peak, tl.max(x, 0))
        e = tl.where(c + k == label, 0.0, exp(x - top, EXACT))
        rest = rest * exp(peak - top, EXACT) + tl.sum(e, 0)
        peak = top
    own = own - peak
    hit = exp(own, EXACT)
    rest = nothing_possible(rest, hit, label)
    inverse = 1.0 / (rest + hit)
    return pixel, image, label, wt, at, peak, log1p(rest + (hit - 1.0)) - own, hit * inverse, rest * inverse, inverse


@triton.jit(do_not_specialize=["ignore"])
def sums(
    z, y, w, sample, u_out, part, zn, zs, S, ignore, xs,
    C: tl.constexpr, B: tl.constexpr, EVEN: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    KINDS: tl.constexpr, WANT_U: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """part (pixels, rows): t and the curves, of each pixel."""
    pixel, image, label, wt, at, peak, u, hit, miss, inverse = pixel_of(
        z, y, w, sample, zn, zs, S, ignore, C, B, EVEN, HAS_W, HAS_SAMPLE, EXACT
    )
    to = part + pixel * (1 + len(KINDS))
    tl.store(to, wt)
    for k in tl.static_range(len(KINDS)):
        tl.store(to + (k + 1), times(wt, curve(KINDS[k], xs[k], u, miss)))
    if WANT_U:
        tl.store(u_out + pixel, counted(u, wt))


@triton.jit(do_not_specialize=["ignore"])
def gradient(
    z, y, w, sample, up_u, up, out, zn, zs, on, os, S, ignore, xs,
    C: tl.constexpr, B: tl.constexpr, EVEN: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    KINDS: tl.constexpr, WANT_U: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """h p, and −h (1 − p) for the label. up is (images, rows)."""
    pixel, image, label, wt, at, peak, u, hit, miss, inverse = pixel_of(
        z, y, w, sample, zn, zs, S, ignore, C, B, EVEN, HAS_W, HAS_SAMPLE, EXACT
    )
    h = tl.zeros((1,), tl.float32)
    if WANT_U:
        h += tl.load(up_u + pixel)
    for k in tl.static_range(len(KINDS)):
        bent = slope(KINDS[k], xs[k], u, miss, hit)
        h += times(wt, tl.load(up + image * (1 + len(KINDS)) + (k + 1)) * bent)
    to = out + (image * on + pixel % S * os) * EVEN
    k = tl.arange(0, B)
    for c in range(0, C, B):
        x = tl.load(z + at + c + k, mask=c + k < C, other=0.0).to(tl.float32)
        p = exp(x - peak, EXACT) * inverse
        g = tl.where(wt == 0.0, 0.0, tl.where(c + k == label, -h * miss, h * p))
        tl.store(to + c + k, g.to(out.dtype.element_ty), mask=c + k < C)
