"""Sums and gradient under a softmax by walking the classes: hard labels of many classes, and shares of any number.

Images of one pixel (APART) are the pixels of one image, as in `softmax.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import times
from .curves import curve, slope
from .pixels import EVERY, LABELS, OWN, SHARES, counted
from .walk import block_of, class_of, survey


@triton.jit
def add(to, value, step, ok, APART: tl.constexpr):
    """Adds to a sum that this program alone keeps in memory; where pixels are images, each has its own.

    What one step stores the next one loads, without a barrier: right for programs of a single warp alone.
    """
    if APART:
        tl.store(to, value, mask=ok)
    else:
        total = tl.sum(value, 0)
        if step > 0:
            total += tl.load(to)
        tl.store(to, total)


@triton.jit(do_not_specialize=["P", "STEPS", "ignore"])
def sums(
    z, y, w, sample, u_out, part, zn, zc, zs, tn, tc, ts, S, P, STEPS, ignore, xs,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    ERRORS: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr, KINDS: tl.constexpr, WANT_U: tl.constexpr,
    EXACT: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """part (images · P, rows, C), rows as in `sums.rows_of`, each of B · STEPS pixels; P programs per image."""
    image = (tl.program_id(0) // P).to(tl.int64)
    chunk = (tl.program_id(0) % P).to(tl.int64)
    LABELLED: tl.constexpr = 1 + ERRORS + SQUARES + len(KINDS)
    DENSE: tl.constexpr = LABELLED + ERRORS + SQUARES + SPREAD
    ROWS: tl.constexpr = DENSE + 2 * (MODE == SHARES)
    for step in range(STEPS):
        first = (chunk * STEPS + step) * B
        i, ok, whose, here, zp, at, yp, seen, label, wt = block_of(
            z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore, C, B, MODE, HAS_W, HAS_SAMPLE, APART
        )
        own_part = part + (whose if APART else tl.program_id(0).to(tl.int64)) * (ROWS * C)
        peak, mine, own, rest, inverse, log_sum, u = survey(zp, zc, at, ok, label, C, MODE, EXACT)
        if WANT_U == OWN:
            tl.store(u_out + here + i, counted(u, wt), mask=ok)
        for c in range(C):
            to = own_part + c
            x = tl.load(zp + at, mask=ok, other=0.0).to(tl.float32)
            r, _, p, miss = class_of(
                x, yp, seen, c, label, wt, ok, ignore, peak, mine, own, rest, inverse, C, MODE, EXACT
            )
            if MODE == SHARES:
                u = log_sum + (peak - x)
            if WANT_U == EVERY:
                place = whose * C + c if APART else (image * C + c) * S + first + i
                tl.store(u_out + place, counted(log_sum + (peak - x), wt), mask=ok)
            yes = times(wt, r)
            add(to, yes, step, ok, APART)
            to += C
            if ERRORS:
                add(to, times(yes, miss), step, ok, APART)
                to += C
            if SQUARES:
                add(to, times(yes, miss * miss), step, ok, APART)
                to += C
            for k in tl.static_range(len(KINDS)):
                add(to, times(yes, curve(KINDS[k], xs[k], u, miss)), step, ok, APART)
                to += C
            if ERRORS:
                add(to, times(times(wt, 1.0 - r), p), step, ok, APART)
                to += C
            if SQUARES:
                add(to, times(times(wt, 1.0 - r), p * p), step, ok, APART)
                to += C
            if SPREAD:
                add(to, times(wt, log_sum + (peak - x)), step, ok, APART)
                to += C
            if MODE == SHARES:
                add(to, times(wt, tl.full(wt.shape, 1.0, tl.float32)), step, ok, APART)
                add(to + C, times(yes, r), step, ok, APART)
            zp += zc
            yp += tc


@triton.jit
def pulls(
    z, at, y, seen, c, place, label, wt, ok, ignore, peak, mine, own, rest, inverse, log_sum, h_own, up, up_u, xs,
    C: tl.constexpr, MODE: tl.constexpr, ERRORS: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr,
    KINDS: tl.constexpr, WANT_U: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """p of a class, and the gradients with respect to p and to u, each with the weight in it."""
    x = tl.load(z + at, mask=ok, other=0.0).to(tl.float32)
    r, _, p, miss = class_of(x, y, seen, c, label, wt, ok, ignore, peak, mine, own, rest, inverse, C, MODE, EXACT)
    u = log_sum + (peak - x)
    LABELLED: tl.constexpr = 1 + ERRORS + SQUARES + len(KINDS)
    up += c
    yes = times(wt, r)
    no = times(wt, 1.0 - r)
    q = tl.zeros(wt.shape, tl.float32)
    h = h_own * r
    if ERRORS:
        q += no * tl.load(up + LABELLED * C) - yes * tl.load(up + C)
    if SQUARES:
        of_no = tl.load(up + (LABELLED + ERRORS) * C)
        q += 2.0 * (no * p * of_no - yes * miss * tl.load(up + (1 + ERRORS) * C))
    if MODE == SHARES:
        for k in tl.static_range(len(KINDS)):
            bend = slope(KINDS[k], xs[k], u, miss, p)
            h += times(yes, bend * tl.load(up + (1 + ERRORS + SQUARES + k) * C))
    if SPREAD:
        h += wt * tl.load(up + (LABELLED + ERRORS + SQUARES) * C)
    if WANT_U == EVERY:
        h += tl.where(wt == 0.0, 0.0, tl.load(up_u + place, mask=ok, other=0.0))
    return p, q, h


@triton.jit(do_not_specialize=["P", "ignore"])
def gradient(
    z, y, w, sample, up_u, up, out, zn, zc, zs, tn, tc, ts, on, oc, os, S, P, ignore, xs,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    ERRORS: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr, KINDS: tl.constexpr, WANT_U: tl.constexpr,
    EXACT: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """From up (images, rows, C), rows as in `sums`, and up_u.

    With q_k the gradient with respect to p_k, h_k that to u_k: p_k (q_k − Σ p q + Σ h) − h_k; for the class that is
    mine the same without its cancellation, p (q (1−p) − Σ p q over the others + Σ h over the others) − h (1−p).
    """
    image = (tl.program_id(0) // P).to(tl.int64)
    first = (tl.program_id(0) % P).to(tl.int64) * B
    LABELLED: tl.constexpr = 1 + ERRORS + SQUARES + len(KINDS)
    DENSE: tl.constexpr = LABELLED + ERRORS + SQUARES + SPREAD
    i, ok, whose, here, zp, at, yp, seen, label, wt = block_of(
        z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore, C, B, MODE, HAS_W, HAS_SAMPLE, APART
    )
    up += whose * ((DENSE + 2 * (MODE == SHARES)) * C)
    peak, mine, own, rest, inverse, log_sum, u = survey(zp, zc, at, ok, label, C, MODE, EXACT)
    hit = own * inverse
    miss = rest * inverse
    h_own = tl.zeros(wt.shape, tl.float32)
    if WANT_U == OWN:
        h_own += tl.load(up_u + here + i, mask=ok, other=0.0)
    if MODE == LABELS:
        for k in tl.static_range(len(KINDS)):
            g = tl.load(up + (1 + ERRORS + SQUARES + k) * C + label)
            h_own += times(wt, g * slope(KINDS[k], xs[k], u, miss, hit))
    h_own = tl.where(wt == 0.0, 0.0, h_own)
    inner = tl.zeros(wt.shape, tl.float32)
    others = tl.zeros(wt.shape, tl.float32)
    q_mine = tl.zeros(wt.shape, tl.float32)
    h_mine = tl.zeros(wt.shape, tl.float32)
    zq = zp
    yq = yp
    for c in range(C):
        place = whose * C + c if APART else (image * C + c) * S + first + i
        p, q, h = pulls(
            zq, at, yq, seen, c, place, label, wt, ok, ignore, peak, mine, own, rest, inverse, log_sum, h_own, up, up_u,
            xs, C, MODE, ERRORS, SQUARES, SPREAD, KINDS, WANT_U, EXACT,
        )  # fmt: skip
        inner = tl.where(mine == c, inner, inner + p * q)
        others = tl.where(mine == c, others, others + h)
        q_mine = tl.where(mine == c, q, q_mine)
        h_mine = tl.where(mine == c, h, h_mine)
        zq += zc
        yq += tc
    push = others + h_mine - (inner + hit * q_mine)
    own_push = hit * (q_mine * miss - inner + others) - h_mine * miss
    out += image * on + first * os
    to = i.to(tl.int64) * os
    for c in range(C):
        place = whose * C + c if APART else (image * C + c) * S + first + i
        p, q, h = pulls(
            zp, at, yp, seen, c, place, label, wt, ok, ignore, peak, mine, own, rest, inverse, log_sum, h_own, up, up_u,
            xs, C, MODE, ERRORS, SQUARES, SPREAD, KINDS, WANT_U, EXACT,
        )  # fmt: skip
        g = tl.where(mine == c, own_push, p * (q + push) - h)
        tl.store(out + to, tl.where(wt == 0.0, 0.0, g).to(out.dtype.element_ty), mask=ok)
        out += oc
        zp += zc
        yp += tc
