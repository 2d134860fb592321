"""What every kernel does that walks the classes: too many for the registers of a thread, or with something for each.

One warp holds B pixels and reads their classes one after the other, first for the largest logit and the sum of exps,
then again for what is asked of each class: the second walk finds the logits in the cache. One class of a pixel is
"mine": its label, or where there is none the likeliest. 1 − p of this class alone can be near 0, and for it nothing is
subtracted. Channels under a sigmoid know nothing of each other: for them the first walk does nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import exp, log1p
from .pixels import LABELS, SHARES, channel_of, label_of, share_of, shares_weight, weight_of
from .sigmoid import missed

LOW = tl.constexpr(-3.4028234e38)  # below every logit but −∞, so that −∞ less it is no NaN


@triton.jit
def block_of(
    z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    APART: tl.constexpr,
):  # fmt: skip
    """B pixels of an image from `first` on.

    i, which of them exist, the image of each (one for all but where pixels are images), the place of the first among
    all pixels; where the first class lies and the pixels from there, the same of the target; label (−1 where there is
    none) and weight.
    """
    i = tl.arange(0, B)
    ok = i < tl.minimum(S - first, B).to(tl.int32)
    whose = tl.where(ok, first + i, 0) if APART else image
    here = image * S + first
    at = i.to(tl.int64) * zs
    seen = i.to(tl.int64) * ts
    z += image * zn + first * zs
    y += image * tn + first * ts
    wt = weight_of(w + here, sample, i, whose, ok, HAS_W, HAS_SAMPLE)
    label = tl.full(ok.shape, -1, tl.int32)
    if MODE == LABELS:
        label, wt = label_of(y, seen, wt, ok, ignore, C)
    elif MODE == SHARES:
        wt = shares_weight(y, tc, seen, wt, ok, ignore, C)
    return i, ok, whose, here, z, at, y, seen, label, wt


@triton.jit
def nothing_possible(rest, own, mine):
    """The sum of the exps of the others; NaN where every logit is −∞."""
    return tl.where((rest + own == 0.0) | (mine < 0), float("nan"), rest)


@triton.jit
def survey(z, zc, at, ok, label, C: tl.constexpr, MODE: tl.constexpr, EXACT: tl.constexpr):
    """The first walk: the largest logit, mine, e^(mine − largest), the sum of the exps of the others, 1 / the sum of
    all, its logarithm, and the surprise of mine."""
    peak = tl.full(label.shape, LOW, tl.float32)
    rest = tl.zeros(label.shape, tl.float32)
    depth = tl.zeros(label.shape, tl.float32)
    mine = label
    if MODE == LABELS:
        own = tl.load(z + label.to(tl.int64) * zc + at, mask=ok, other=0.0).to(tl.float32)
        peak = tl.maximum(own, peak)
        for c in range(C):
            x = tl.load(z + at, mask=ok, other=0.0).to(tl.float32)
            top = tl.maximum(x, peak)
            kept = rest * exp(peak - top, EXACT)
            rest = tl.where(label == c, kept, kept + exp(x - top, EXACT))
            peak = top
            z += zc
        depth = own - peak
    elif MODE == SHARES:
        for c in range(C):
            x = tl.load(z + at, mask=ok, other=0.0).to(tl.float32)
            higher = x > peak
            fall = exp(-tl.abs(x - peak), EXACT)  # of the lower of the two
            rest = tl.where(higher, (rest + tl.where(mine < 0, 0.0, 1.0)) * fall, rest + fall)
            mine = tl.where(higher, c, mine)
            peak = tl.where(higher, x, peak)
            z += zc
    own = exp(depth, EXACT)
    rest = nothing_possible(rest, own, mine)
    log_sum = log1p(rest + (own - 1.0))  # the brackets matter: where own is 1 this is the rest
    return peak, mine, own, rest, 1.0 / (rest + own), log_sum, log_sum - depth


@triton.jit
def chance(x, c, peak, mine, own, rest, inverse, EXACT: tl.constexpr):
    """p and 1 − p of a class."""
    p = exp(x - peak, EXACT) * inverse
    return tl.where(mine == c, own * inverse, p), tl.where(mine == c, rest * inverse, 1.0 - p)


@triton.jit
def class_of(
    x, y, at, c, label, wt, ok, ignore, peak, mine, own, rest, inverse,
    C: tl.constexpr, MODE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The target r, the weight, p and 1 − p of a class or channel; `y` is at its target, where it has one."""
    if MODE == LABELS:
        r = tl.where(label == c, 1.0, 0.0)
        p, q = chance(x, c, peak, mine, own, rest, inverse, EXACT)
    elif MODE == SHARES:
        r = share_of(y, at, wt, ok)
        p, q = chance(x, c, peak, mine, own, rest, inverse, EXACT)
    else:
        r, wt = channel_of(y, at, wt, ok, ignore, c, C, MODE)
        p, q, u = missed(tl.where(wt == 0.0, 0.0, x), EXACT)
    return r, wt, p, q
