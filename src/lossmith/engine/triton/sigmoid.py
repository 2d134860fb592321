"""Sums and gradient under a sigmoid: binary, multilabel, one against the rest, soft. A program reads part of a channel.

u_out and up_u are (images, channels, S), of the label, or (2, images, channels, S), of no and yes, `all_logits` apart.
A certain label is one event, "no" or "yes": it is worked out once and counted on its side. A soft one is two. Images of
one pixel (APART) are the pixels of one image, as in `softmax.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import ALL, exp, joined, log1p, pieces, times
from .curves import curve, slope
from .pixels import EVERY, channel_of, counted, weight_of


@triton.jit
def missed(a, EXACT: tl.constexpr):
    """Of a label, a being z for "no" and −z for "yes": the chance that it is missed, that it is hit, the surprise.

    Each chance comes from its own exponential tail.
    """
    tail = exp(-tl.abs(a), EXACT)
    large = 1.0 / (1.0 + tail)
    small = tail * large
    u = log1p(tail) + tl.maximum(a, 0.0, propagate_nan=ALL)
    return tl.where(a >= 0.0, large, small), tl.where(a >= 0.0, small, large), u


@triton.jit(do_not_specialize=["P", "STEPS", "CHANNELS", "ignore", "all_logits"])
def sums(
    z, y, w, sample, u_out, part, zn, zc, zs, tn, tc, ts, S, P, STEPS, CHANNELS, ignore, all_logits, xs,
    B: tl.constexpr, V: tl.constexpr, MODE: tl.constexpr, SOFT: tl.constexpr, HAS_W: tl.constexpr,
    HAS_SAMPLE: tl.constexpr, ERRORS: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr, KINDS: tl.constexpr,
    WANT_U: tl.constexpr, EXACT: tl.constexpr, NEAR: tl.constexpr, T_NEAR: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """part (images · channels · P, rows), rows as in `sums.rows_of`, each of B · STEPS pixels."""
    row = tl.program_id(0) // P
    chunk = (tl.program_id(0) % P).to(tl.int64)
    image = (row // CHANNELS).to(tl.int64)
    c = row % CHANNELS
    ROWS: tl.constexpr = 3 + 2 * (ERRORS + SQUARES + len(KINDS) + SPREAD)
    ANY: tl.constexpr = ERRORS or SQUARES or SPREAD or WANT_U or len(KINDS) > 0
    total = ()
    for k in tl.static_range(ROWS):
        total = total + (tl.zeros((B // V,), tl.float32),)
    i = tl.arange(0, B)
    at = i if NEAR else i.to(tl.int64) * zs
    seen = i if T_NEAR else i.to(tl.int64) * ts
    z += image * zn + c.to(tl.int64) * zc
    y += image * tn + c.to(tl.int64) * tc
    for step in range(STEPS):
        first = (chunk * STEPS + step) * B
        ok = i < tl.minimum(S - first, B).to(tl.int32)
        pixel = first + i
        whose = tl.where(ok, pixel, 0) if APART else image
        w_all = weight_of(w + image * S + first, sample, i, whose, ok, HAS_W, HAS_SAMPLE)
        r_all, w_all = channel_of(y + first * ts, seen, w_all, ok, ignore, c, CHANNELS, MODE)
        rs = pieces(r_all, V)
        ws = pieces(w_all, V)
        if ANY:
            x_all = tl.load(z + first * zs + at, mask=ok, other=0.0).to(tl.float32)
            xs_of = pieces(tl.where(w_all == 0.0, 0.0, x_all), V)
        us = ()
        others = ()
        for v in tl.static_range(V):
            r = rs[v]
            wt = ws[v]
            values = ()
            if SOFT:
                yes = times(wt, r)
                no = times(wt, 1.0 - r)
                more = (total[0] + wt, total[1] + yes, total[2] + yes * r)
                if ANY:
                    p, q, u_no = missed(xs_of[v], EXACT)
                    q, p, u_yes = missed(-xs_of[v], EXACT)
                    if ERRORS:
                        values = values + (no * p, yes * q)
                    if SQUARES:
                        values = values + (no * p * p, yes * q * q)
                    for k in tl.static_range(len(KINDS)):
                        f_no = times(no, curve(KINDS[k], xs[k], u_no, p))
                        values = values + (f_no, times(yes, curve(KINDS[k], xs[k], u_yes, q)))
                    if SPREAD:
                        values = values + (wt * u_no, wt * u_yes)
                    us = us + (counted(u_no, wt),)
                    others = others + (counted(u_yes, wt),)
                for k in tl.static_range(ROWS - 3):
                    more = more + (total[3 + k] + values[k],)
            else:
                yes = r != 0.0
                of_yes = tl.where(yes, total[1] + wt, total[1])
                more = (total[0] + wt, of_yes, of_yes)
                if ANY:
                    miss, hit, u = missed(tl.where(yes, -xs_of[v], xs_of[v]), EXACT)
                    us = us + (counted(u, wt),)
                    if ERRORS:
                        values = values + (wt * miss,)
                    if SQUARES:
                        values = values + (wt * miss * miss,)
                    for k in tl.static_range(len(KINDS)):
                        values = values + (times(wt, curve(KINDS[k], xs[k], u, miss)),)
                for k in tl.static_range(ERRORS + SQUARES + len(KINDS)):
                    old_no = total[3 + 2 * k]
                    old_yes = total[4 + 2 * k]
                    more = more + (
                        tl.where(yes, old_no, old_no + values[k]),
                        tl.where(yes, old_yes + values[k], old_yes),
                    )
                if SPREAD:
                    hit, miss, other = missed(tl.where(yes, xs_of[v], -xs_of[v]), EXACT)
                    more = more + (
                        total[ROWS - 2] + wt * tl.where(yes, other, u),
                        total[ROWS - 1] + wt * tl.where(yes, u, other),
                    )
            total = more
        if WANT_U:
            u_at = pixel * CHANNELS + c if APART else row.to(tl.int64) * S + pixel
            tl.store(u_out + u_at, joined(us, V), mask=ok)
            if WANT_U == EVERY:
                tl.store(u_out + all_logits + u_at, joined(others, V), mask=ok)
        if APART:
            to = part + (pixel * CHANNELS + c) * ROWS
            for k in tl.static_range(ROWS):
                tl.store(to + k, total[k], mask=ok)
    if not APART:
        part += tl.program_id(0).to(tl.int64) * ROWS
        for k in tl.static_range(ROWS):
            tl.store(part + k, tl.sum(total[k], 0))


@triton.jit(do_not_specialize=["P", "CHANNELS", "ignore", "all_logits"])
def gradient(
    z, y, w, sample, up_u, up, out, zn, zc, zs, tn, tc, ts, on, oc, os, S, P, CHANNELS, ignore, all_logits, xs,
    B: tl.constexpr, MODE: tl.constexpr, SOFT: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    ERRORS: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr, KINDS: tl.constexpr, WANT_U: tl.constexpr,
    EXACT: tl.constexpr, NEAR: tl.constexpr, T_NEAR: tl.constexpr, APART: tl.constexpr,
    OUT_NEAR: tl.constexpr,
):  # fmt: skip
    """From up (images · channels, rows), rows as in `sums`, and up_u.

    With a = z for "no" and −z for "yes": o (h + share (1−o) (G + 2 o G2)), o being the chance that the label is missed.
    """
    row = tl.program_id(0) // P
    first = (tl.program_id(0) % P).to(tl.int64) * B
    image = (row // CHANNELS).to(tl.int64)
    c = row % CHANNELS
    ROWS: tl.constexpr = 3 + 2 * (ERRORS + SQUARES + len(KINDS) + SPREAD)
    SECOND: tl.constexpr = 3 + 2 * ERRORS
    CURVES: tl.constexpr = SECOND + 2 * SQUARES
    i = tl.arange(0, B)
    at = i if NEAR else i.to(tl.int64) * zs
    seen = i if T_NEAR else i.to(tl.int64) * ts
    ok = i < tl.minimum(S - first, B).to(tl.int32)
    pixel = first + i
    whose = tl.where(ok, pixel, 0) if APART else image
    up += (whose * CHANNELS + c) * ROWS
    wt = weight_of(w + image * S + first, sample, i, whose, ok, HAS_W, HAS_SAMPLE)
    r, wt = channel_of(y + image * tn + c.to(tl.int64) * tc + first * ts, seen, wt, ok, ignore, c, CHANNELS, MODE)
    x = tl.load(z + image * zn + c.to(tl.int64) * zc + first * zs + at, mask=ok, other=0.0).to(tl.float32)
    x = tl.where(wt == 0.0, 0.0, x)
    h = tl.zeros((B,), tl.float32)
    if WANT_U:
        u_at = pixel * CHANNELS + c if APART else row.to(tl.int64) * S + pixel
        h += tl.load(up_u + u_at, mask=ok, other=0.0)
        h = tl.where(wt == 0.0, 0.0, h)
    if SOFT:
        p, q, u_no = missed(x, EXACT)
        q, p, u_yes = missed(-x, EXACT)
        yes = times(wt, r)
        no = times(wt, 1.0 - r)
        h_no = tl.zeros((B,), tl.float32)
        h_yes = tl.zeros((B,), tl.float32)
        if WANT_U == EVERY:
            h_no += h
            h_yes += tl.where(wt == 0.0, 0.0, tl.load(up_u + all_logits + u_at, mask=ok, other=0.0))
        for k in tl.static_range(len(KINDS)):
            h_no += times(no, slope(KINDS[k], xs[k], u_no, p, q)) * tl.load(up + (CURVES + 2 * k))
            h_yes += times(yes, slope(KINDS[k], xs[k], u_yes, q, p)) * tl.load(up + (CURVES + 2 * k + 1))
        if SPREAD:
            h_no += wt * tl.load(up + (ROWS - 2))
            h_yes += wt * tl.load(up + (ROWS - 1))
        push = tl.zeros((B,), tl.float32)
        pull = tl.zeros((B,), tl.float32)
        if ERRORS:
            push += tl.load(up + 3)
            pull += tl.load(up + 4)
        if SQUARES:
            push += 2.0 * p * tl.load(up + SECOND)
            pull += 2.0 * q * tl.load(up + (SECOND + 1))
        g = p * (h_no + no * q * push) - q * (h_yes + yes * p * pull)
    else:
        yes = r != 0.0
        miss, hit, u = missed(tl.where(yes, -x, x), EXACT)
        for k in tl.static_range(len(KINDS)):
            of_label = tl.where(yes, tl.load(up + (CURVES + 2 * k + 1)), tl.load(up + (CURVES + 2 * k)))
            h += times(wt, of_label * slope(KINDS[k], xs[k], u, miss, hit))
        push = tl.zeros((B,), tl.float32)
        if ERRORS:
            push += tl.where(yes, tl.load(up + 4), tl.load(up + 3))
        if SQUARES:
            push += 2.0 * miss * tl.where(yes, tl.load(up + (SECOND + 1)), tl.load(up + SECOND))
        g = miss * (h + wt * hit * push)
        g = tl.where(yes, -g, g)
        if SPREAD:
            p = tl.where(yes, hit, miss)
            q = tl.where(yes, miss, hit)
            g += wt * (p * tl.load(up + (ROWS - 2)) - q * tl.load(up + (ROWS - 1)))
    to = i if OUT_NEAR else i.to(tl.int64) * os
    target = out + image * on + c.to(tl.int64) * oc + first * os
    tl.store(target + to, tl.where(wt == 0.0, 0.0, g).to(out.dtype.element_ty), mask=ok)
