"""Sums and gradient under a softmax, for hard labels of few classes: a thread holds all classes of its pixels.

A class is a vector of B pixels: no class axis, so nothing is padded to a power of two, nothing is exchanged between
threads, and sums over the classes are plain additions. Sums over the pixels stay in registers, one vector of B / V per
row and class, for STEPS blocks; they are added up over the threads once, at the end.

Images of one pixel (APART) are the pixels of one image here: their sums are not added up, but stored as they are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import columns, exp, joined, log1p, pieces, tabled, times
from .curves import curve, slope
from .pixels import counted, label_of, weight_of

FEW = 32  # classes: with more, registers do not suffice


@triton.jit
def offsets(i, stride, C: tl.constexpr, NEAR: tl.constexpr, TIGHT: tl.constexpr):
    """Of pixels. TIGHT: the stride is C, said as a constant, so that the compiler knows what is aligned."""
    if NEAR:
        return i
    elif TIGHT:
        return i * C
    else:
        return i.to(tl.int64) * stride


@triton.jit
def classes_of(z, zc, at, ok, C: tl.constexpr, V: tl.constexpr, ACROSS: tl.constexpr):
    """The logits as a tuple of C tuples of V vectors.

    ACROSS: 0, or the power of two from C on if the classes of a pixel lie side by side.
    """
    planes = ()
    if ACROSS:
        c = tl.arange(0, ACROSS)[None, :]
        table = tl.load(z + (at[:, None] + c), mask=ok[:, None] & (c < C), other=0.0).to(tl.float32)
        vectors = columns(table, ACROSS)
        for k in tl.static_range(C):
            planes = planes + (pieces(vectors[k], V),)
    else:
        for k in tl.static_range(C):
            planes = planes + (pieces(tl.load(z + at, mask=ok, other=0.0).to(tl.float32), V),)
            z += zc
    return planes


@triton.jit
def exps_of(planes, v: tl.constexpr, label, C: tl.constexpr, EXACT: tl.constexpr):
    """e^(z − peak) per class; that of the label; the sum of the others; the label's depth z − peak; the peak.

    1 − p of the label is then rest / (rest + own): nothing is subtracted, nothing cancels.
    """
    peak = planes[0][v]
    for c in tl.static_range(1, C):
        peak = tl.maximum(peak, planes[c][v])
    depth = tl.zeros(label.shape, tl.float32)
    rest = tl.zeros(label.shape, tl.float32)
    e = ()
    for c in tl.static_range(C):
        d = planes[c][v] - peak
        one = exp(d, EXACT)
        depth = tl.where(label == c, d, depth)
        rest = tl.where(label == c, rest, rest + one)  # so written, it becomes a predicated addition
        e = e + (one,)
    return e, exp(depth, EXACT), rest, depth, peak


@triton.jit(do_not_specialize=["P", "STEPS", "ignore"])
def sums(
    z, y, w, sample, u_out, part, zn, zc, zs, S, P, STEPS, ignore, xs,
    C: tl.constexpr, B: tl.constexpr, V: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    ERRORS: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr, KINDS: tl.constexpr, WANT_U: tl.constexpr,
    EXACT: tl.constexpr, NEAR: tl.constexpr, ACROSS: tl.constexpr, TIGHT: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """part (images · P, rows, C), rows as in `sums.rows_of`, each of B · STEPS pixels; P programs per image."""
    image = (tl.program_id(0) // P).to(tl.int64)
    chunk = (tl.program_id(0) % P).to(tl.int64)
    LABELLED: tl.constexpr = 1 + ERRORS + SQUARES + len(KINDS)
    ROWS: tl.constexpr = LABELLED + ERRORS + SQUARES + SPREAD
    U: tl.constexpr = SPREAD or WANT_U or len(KINDS) > 0
    ANY: tl.constexpr = ERRORS or SQUARES or U
    total = ()
    for r in tl.static_range(ROWS * C):
        total = total + (tl.zeros((B // V,), tl.float32),)
    i = tl.arange(0, B)
    at = offsets(i, zs, C, NEAR, TIGHT)
    z += image * zn
    for step in range(STEPS):
        first = (chunk * STEPS + step) * B
        ok = i < tl.minimum(S - first, B).to(tl.int32)
        here = image * S + first
        whose = tl.where(ok, first + i, 0) if APART else image
        wt_all = weight_of(w + here, sample, i, whose, ok, HAS_W, HAS_SAMPLE)
        label_all, wt_all = label_of(y + here, i, wt_all, ok, ignore, C)
        labels = pieces(label_all, V)
        wts = pieces(wt_all, V)
        if ANY:
            planes = classes_of(z + first * zs, zc, at, ok, C, V, ACROSS)
        us = ()
        for v in tl.static_range(V):
            label = labels[v]
            wt = wts[v]
            values = (wt,)
            if ANY:
                e, own, rest, depth, peak = exps_of(planes, v, label, C, EXACT)
                inverse = 1.0 / (rest + own)
                miss = rest * inverse
                scale = wt * inverse
                if ERRORS:
                    values = values + (times(wt, miss),)
                if SQUARES:
                    values = values + (times(wt, miss * miss),)
                if U:
                    log_sum = log1p(rest + (own - 1.0))  # the brackets matter: where own is 1 this is the rest
                    u = log_sum - depth
                    us = us + (u,)
                    for k in tl.static_range(len(KINDS)):
                        values = values + (times(wt, curve(KINDS[k], xs[k], u, miss)),)
            more = ()
            for c in tl.static_range(C):
                for r in tl.static_range(LABELLED):
                    old = total[c * ROWS + r]
                    more = more + (tl.where(label == c, old + values[r], old),)
                skip = (label == c) | (wt == 0.0)  # an ignored pixel may hold a NaN
                if ERRORS:
                    old = total[c * ROWS + LABELLED]
                    more = more + (tl.where(skip, old, old + e[c] * scale),)
                if SQUARES:
                    old = total[c * ROWS + LABELLED + ERRORS]
                    p = e[c] * inverse
                    more = more + (tl.where(skip, old, old + p * p * wt),)
                if SPREAD:
                    old = total[c * ROWS + LABELLED + ERRORS + SQUARES]
                    more = more + (tl.where(wt == 0.0, old, old + wt * (log_sum + (peak - planes[c][v]))),)
            total = more
        if WANT_U:
            tl.store(u_out + here + i, counted(joined(us, V), wt_all), mask=ok)
        if APART:
            to = part + (first + i) * (ROWS * C)
            for c in tl.static_range(C):
                for r in tl.static_range(ROWS):
                    tl.store(to + (r * C + c), total[c * ROWS + r], mask=ok)
    if not APART:
        part += tl.program_id(0).to(tl.int64) * (ROWS * C)
        for c in tl.static_range(C):
            for r in tl.static_range(ROWS):
                tl.store(part + r * C + c, tl.sum(total[c * ROWS + r], 0))


@triton.jit(do_not_specialize=["P", "ignore"])
def gradient(
    z, y, w, sample, up_u, up, out, zn, zc, zs, on, oc, os, S, P, ignore, xs,
    C: tl.constexpr, B: tl.constexpr, V: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    ERRORS: tl.constexpr, SQUARES: tl.constexpr, SPREAD: tl.constexpr, KINDS: tl.constexpr, WANT_U: tl.constexpr,
    EXACT: tl.constexpr, NEAR: tl.constexpr, ACROSS: tl.constexpr, TIGHT: tl.constexpr, APART: tl.constexpr,
    OUT_NEAR: tl.constexpr, OUT_ACROSS: tl.constexpr,
):  # fmt: skip
    """From up (images, rows, C), rows as in `sums`, and up_u.

    With q_k the gradient with respect to p_k, h that to u: p_k (w (q_k − Σ p q) + h) for k other than the label; for
    the label the same without its cancellation, w p (q (1−p) − Σ p q over the others) − h (1−p).
    """
    image = (tl.program_id(0) // P).to(tl.int64)
    first = (tl.program_id(0) % P).to(tl.int64) * B
    LABELLED: tl.constexpr = 1 + ERRORS + SQUARES + len(KINDS)
    ROWS: tl.constexpr = LABELLED + ERRORS + SQUARES + SPREAD
    i = tl.arange(0, B)
    at = offsets(i, zs, C, NEAR, TIGHT)
    ok = i < tl.minimum(S - first, B).to(tl.int32)
    here = image * S + first
    whose = tl.where(ok, first + i, 0) if APART else image
    up += whose * (ROWS * C)
    wt_all = weight_of(w + here, sample, i, whose, ok, HAS_W, HAS_SAMPLE)
    label_all, wt_all = label_of(y + here, i, wt_all, ok, ignore, C)
    labels = pieces(label_all, V)
    wts = pieces(wt_all, V)
    planes = classes_of(z + image * zn + first * zs, zc, at, ok, C, V, ACROSS)
    if WANT_U:
        hs = pieces(tl.where(wt_all == 0.0, 0.0, tl.load(up_u + here + i, mask=ok, other=0.0)), V)
    spread = 0.0
    if SPREAD:
        for c in tl.static_range(C):
            spread += tl.load(up + ((ROWS - 1) * C + c))
    grads = ()
    for v in tl.static_range(V):
        label = labels[v]
        wt = wts[v]
        e, own, rest, depth, peak = exps_of(planes, v, label, C, EXACT)
        inverse = 1.0 / (rest + own)
        hit = own * inverse
        miss = rest * inverse
        h = tl.zeros(label.shape, tl.float32)
        if WANT_U:
            h = hs[v]
        u = log1p(rest + (own - 1.0)) - depth  # compilers drop it where no slope needs it
        for k in tl.static_range(len(KINDS)):
            g = tl.load(up + ((1 + ERRORS + SQUARES + k) * C + label))
            h += times(wt, g * slope(KINDS[k], xs[k], u, miss, hit))
        own_q = tl.zeros(label.shape, tl.float32)
        inner = tl.zeros(label.shape, tl.float32)
        if ERRORS:
            own_q += tl.load(up + (C + label))
            for c in tl.static_range(C):
                inner = tl.where(label == c, inner, inner + tl.load(up + (LABELLED * C + c)) * e[c])
        if SQUARES:
            own_q += 2.0 * miss * tl.load(up + ((1 + ERRORS) * C + label))
            for c in tl.static_range(C):
                g = 2.0 * tl.load(up + ((LABELLED + ERRORS) * C + c))
                inner = tl.where(label == c, inner, inner + g * e[c] * (e[c] * inverse))
        inner *= inverse
        h += wt * spread
        push = inverse * (h - wt * (inner - hit * own_q))
        own_push = -times(wt, hit * (own_q * miss + inner)) - tl.where(wt == 0.0, 0.0, h * miss)
        scale = wt * inverse
        for c in tl.static_range(C):
            factor = push
            if ERRORS:
                factor += scale * tl.load(up + (LABELLED * C + c))
            if SQUARES:
                factor += scale * 2.0 * tl.load(up + ((LABELLED + ERRORS) * C + c)) * (e[c] * inverse)
            g = tl.where((label == c) | (wt == 0.0), own_push, e[c] * factor)
            if SPREAD:
                g += wt * (tl.where(label == c, spread, 0.0) - tl.load(up + ((ROWS - 1) * C + c)))
            grads = grads + (g,)
    out += image * on + first * os
    to = offsets(i, os, C, OUT_NEAR, TIGHT)
    whole = ()
    for c in tl.static_range(C):
        g = ()
        for v in tl.static_range(V):
            g = g + (grads[v * C + c],)
        if OUT_ACROSS:
            whole = whole + (joined(g, V),)
        else:
            tl.store(out + to, joined(g, V).to(out.dtype.element_ty), mask=ok)
            out += oc
    if OUT_ACROSS:
        for c in tl.static_range(C, OUT_ACROSS):
            whole = whole + (tl.zeros((B,), tl.float32),)
        c = tl.arange(0, OUT_ACROSS)[None, :]
        table = tabled(whole, 0, OUT_ACROSS).to(out.dtype.element_ty)
        tl.store(out + (to[:, None] + c), table, mask=ok[:, None] & (c < C))
