"""Sums over a map: p, p − r or (p − r)², times a price for each class of each pixel."""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import times
from .pixels import LABELS, SHARES
from .walk import block_of, class_of, survey


@triton.jit
def error_of(r, p, q, ERROR: tl.constexpr):
    """p − r is (1 − r) p − r (1 − p), with a 1 − p that does not cancel."""
    if ERROR == "chance":
        return p
    else:
        e = (1.0 - r) * p - r * q
        return e * e if ERROR == "square" else e


@triton.jit(do_not_specialize=["P", "STEPS", "ignore"])
def sums(
    z, y, w, sample, price, part, zn, zc, zs, tn, tc, ts, S, P, STEPS, ignore,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    EXACT: tl.constexpr, ERROR: tl.constexpr,
):  # fmt: skip
    """part (images · P, C), each of B · STEPS pixels; price (images, C, S)."""
    image = (tl.program_id(0) // P).to(tl.int64)
    chunk = (tl.program_id(0) % P).to(tl.int64)
    part += tl.program_id(0).to(tl.int64) * C
    for step in range(STEPS):
        first = (chunk * STEPS + step) * B
        i, ok, whose, here, zp, at, yp, seen, label, wt = block_of(
            z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore, C, B, MODE, HAS_W, HAS_SAMPLE, False
        )
        cost = price + image * C * S + first
        peak, mine, own, rest, inverse, log_sum, u = survey(zp, zc, at, ok, label, C, MODE, EXACT)
        for c in range(C):
            x = tl.load(zp + at, mask=ok, other=0.0).to(tl.float32)
            r, weight, p, q = class_of(
                x, yp, seen, c, label, wt, ok, ignore, peak, mine, own, rest, inverse, C, MODE, EXACT
            )
            amount = tl.load(cost + i, mask=ok, other=0.0) * error_of(r, p, q, ERROR)  # 0 times NaN stays one
            total = tl.sum(times(weight, amount), 0)
            if step > 0:  # of this program's own, and without a barrier: it is a single warp
                total += tl.load(part + c)
            tl.store(part + c, total)
            zp += zc
            yp += tc
            cost += S


@triton.jit
def pull_of(up, cost, ok, r, p, q, ERROR: tl.constexpr):
    """The gradient with respect to p, but for the weight."""
    pull = tl.load(up) * tl.load(cost, mask=ok, other=0.0)
    if ERROR == "square":
        pull *= 2.0 * error_of(r, p, q, "residual")
    return pull


@triton.jit(do_not_specialize=["P", "ignore"])
def gradient(
    z, y, w, sample, price, up, out, zn, zc, zs, tn, tc, ts, on, oc, os, S, P, ignore,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    EXACT: tl.constexpr, ERROR: tl.constexpr,
):  # fmt: skip
    """From up (images, C). Under a softmax p_k (q_k − Σ p q), where q may be shifted by any number: less that of mine,
    nothing cancels for it."""
    image = (tl.program_id(0) // P).to(tl.int64)
    first = (tl.program_id(0) % P).to(tl.int64) * B
    up += image * C
    i, ok, whose, here, zp, at, yp, seen, label, wt = block_of(
        z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore, C, B, MODE, HAS_W, HAS_SAMPLE, False
    )
    costs = price + image * C * S + first
    peak, mine, own, rest, inverse, log_sum, u = survey(zp, zc, at, ok, label, C, MODE, EXACT)
    shift = tl.zeros((B,), tl.float32)
    inner = tl.zeros((B,), tl.float32)
    if MODE == LABELS or MODE == SHARES:
        for again in tl.static_range(2):  # first the pull on mine, then the mean of all pulls less it
            zq = zp
            yq = yp
            cost = costs
            for c in range(C):
                x = tl.load(zq + at, mask=ok, other=0.0).to(tl.float32)
                r, weight, p, q = class_of(
                    x, yq, seen, c, label, wt, ok, ignore, peak, mine, own, rest, inverse, C, MODE, EXACT
                )
                pull = pull_of(up + c, cost + i, ok, r, p, q, ERROR)
                if again:
                    inner = tl.where(mine == c, inner, inner + p * (pull - shift))
                else:
                    shift = tl.where(mine == c, pull, shift)
                zq += zc
                yq += tc
                cost += S
    out += image * on + first * os
    to = i.to(tl.int64) * os
    for c in range(C):
        x = tl.load(zp + at, mask=ok, other=0.0).to(tl.float32)
        r, weight, p, q = class_of(
            x, yp, seen, c, label, wt, ok, ignore, peak, mine, own, rest, inverse, C, MODE, EXACT
        )
        pull = pull_of(up + c, costs + i, ok, r, p, q, ERROR)
        if MODE == LABELS or MODE == SHARES:
            g = p * (tl.where(mine == c, 0.0, pull - shift) - inner)
        else:
            g = pull * p * q
        tl.store(out + to, times(weight, g).to(out.dtype.element_ty), mask=ok)
        out += oc
        zp += zc
        yp += tc
        costs += S
