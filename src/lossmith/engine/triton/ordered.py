"""Errors in order: histograms, and the gradient by looking up what each slot costs.

Counts are whole numbers, weights included, and added by integer atomics, so the order does not matter. Nearly all
errors of a trained model are below half a level: those are not counted one by one, their number is what is missing
from the totals.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..plain.order import EXTRA
from .arithmetic import ALL
from .pixels import LABELS
from .walk import block_of, chance, class_of, survey

AROUND = tl.constexpr(EXTRA)


@triton.jit
def error_of(x, r, wt, p, q, HINGE: tl.constexpr):
    """|r − p|, or that of the margin."""
    if HINGE:
        x = tl.where(wt == 0.0, 0.0, x)
        return tl.maximum(1.0 - x * (2.0 * r - 1.0), 0.0, propagate_nan=ALL)
    else:
        return tl.abs((1.0 - r) * p - r * q)


@triton.jit
def slot_of(e, scale, hit, wt, BINS: tl.constexpr):
    """0 for errors of 0, 1 + the nearest level, the last one for NaN; those of foreground follow those of background.

    A weight that is not finite, as that of a label out of range, is NaN too.
    """
    e = tl.where(wt - wt == 0.0, e, float("nan"))
    x = e * scale + 1.5
    x = tl.where(x < BINS + 2.0, x, BINS + 2.0)
    return tl.where(e <= 0.0, 0.0, x).to(tl.int32) + tl.where(hit, BINS + AROUND, 0)


@triton.jit
def amount_of(wt, factor):
    """A weight as a whole number."""
    return tl.where(wt - wt == 0.0, wt * factor, 1.0).to(tl.int64)


@triton.jit(do_not_specialize=["P", "STEPS", "ignore", "SIZE", "COPIES"])
def histogram(
    z, y, w, sample, factor, scale, counts, totals, zn, zc, zs, tn, tc, ts, S, P, STEPS, ignore, SIZE, COPIES,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    EXACT: tl.constexpr, BINS: tl.constexpr, HINGE: tl.constexpr, PER_IMAGE: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """counts (COPIES, G, C, 2, BINS + 3): the weight in each slot, slot 1 left out; totals (G, C, 2)."""
    image = (tl.program_id(0) // P).to(tl.int64)
    chunk = (tl.program_id(0) % P).to(tl.int64)
    group = image if PER_IMAGE else image * 0
    counts += (tl.program_id(0) % COPIES).to(tl.int64) * SIZE + group * (C * 2 * (BINS + AROUND))
    totals += group * (C * 2)
    scale += group * C
    for step in range(STEPS):
        first = (chunk * STEPS + step) * B
        i, ok, whose, here, zp, at, yp, seen, label, wt = block_of(
            z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore, C, B, MODE, HAS_W, HAS_SAMPLE, APART
        )
        by = tl.load(factor + whose)
        peak, mine, own, rest, inverse, log_sum, u = survey(zp, zc, at, ok, label, C, MODE, EXACT)
        for c in range(C):
            x = tl.load(zp + at, mask=ok, other=0.0).to(tl.float32)
            r, weight, p, q = class_of(
                x, yp, seen, c, label, wt, ok, ignore, peak, mine, own, rest, inverse, C, MODE, EXACT
            )
            hit = label == c if MODE == LABELS else r >= 0.5
            e = error_of(x, r, weight, p, q, HINGE)
            slot = slot_of(e, tl.load(scale + c), hit, weight, BINS)
            amount = amount_of(weight, by)
            needed = (amount != 0) & (slot != 1) & (slot != BINS + AROUND + 1)
            tl.atomic_add(counts + (c * 2 * (BINS + AROUND) + slot), amount, mask=needed, sem="relaxed")
            tl.atomic_add(totals + 2 * c, tl.sum(tl.where(hit, 0, amount), 0), sem="relaxed")
            tl.atomic_add(totals + 2 * c + 1, tl.sum(tl.where(hit, amount, 0), 0), sem="relaxed")
            zp += zc
            yp += tc


@triton.jit(do_not_specialize=["P", "ignore"])
def largest(
    z, y, w, sample, part, zn, zc, zs, tn, tc, ts, S, P, ignore,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    APART: tl.constexpr,
):  # fmt: skip
    """part (images · P, C): the largest error of a margin; NaN is none."""
    image = (tl.program_id(0) // P).to(tl.int64)
    first = (tl.program_id(0) % P).to(tl.int64) * B
    part += tl.program_id(0).to(tl.int64) * C
    i, ok, whose, here, z, at, y, seen, label, wt = block_of(
        z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore, C, B, MODE, HAS_W, HAS_SAMPLE, APART
    )
    none = tl.zeros((B,), tl.float32)
    for c in range(C):
        x = tl.load(z + at, mask=ok, other=0.0).to(tl.float32)
        r, weight, p, q = class_of(x, y, seen, c, label, wt, ok, ignore, none, label, none, none, none, C, MODE, True)
        e = error_of(x, r, weight, p, q, True)
        tl.store(part + c, tl.max(tl.where((e == e) & (weight != 0.0), e, 0.0), 0))
        z += zc
        y += tc


@triton.jit(do_not_specialize=["P", "ignore"])
def charge(
    z, y, w, sample, factor, scale, table, out, zn, zc, zs, tn, tc, ts, on, oc, os, S, P, ignore,
    C: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    EXACT: tl.constexpr, BINS: tl.constexpr, HINGE: tl.constexpr, PER_IMAGE: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """What the table (G, C, 2, BINS + 3) charges for a unit of weight, led back to the logits.

    Under a softmax with q for |∂/∂p|: p_k (q_k − Σ p q); for the label without its cancellation.
    """
    image = (tl.program_id(0) // P).to(tl.int64)
    first = (tl.program_id(0) % P).to(tl.int64) * B
    group = image if PER_IMAGE else image * 0
    table += group * (C * 2 * (BINS + AROUND))
    scale += group * C
    i, ok, whose, here, zp, at, yp, seen, label, wt = block_of(
        z, y, w, sample, zn, zs, tn, tc, ts, S, image, first, ignore, C, B, MODE, HAS_W, HAS_SAMPLE, APART
    )
    by = tl.load(factor + whose)
    peak, mine, own, rest, inverse, log_sum, u = survey(zp, zc, at, ok, label, C, MODE, EXACT)
    inner = tl.zeros((B,), tl.float32)
    own_q = tl.zeros((B,), tl.float32)
    if MODE == LABELS:
        zq = zp
        for c in range(C):
            x = tl.load(zq + at, mask=ok, other=0.0).to(tl.float32)
            hit = label == c
            p, q = chance(x, c, peak, mine, own, rest, inverse, EXACT)
            e = tl.where(hit, q, p)
            price = tl.load(table + (c * 2 * (BINS + AROUND) + slot_of(e, tl.load(scale + c), hit, wt, BINS)))
            inner = tl.where(hit, inner, inner + p * price)
            own_q = tl.where(hit, price, own_q)
            zq += zc
    out += image * on + first * os
    to = i.to(tl.int64) * os
    for c in range(C):
        x = tl.load(zp + at, mask=ok, other=0.0).to(tl.float32)
        r, weight, p, q = class_of(
            x, yp, seen, c, label, wt, ok, ignore, peak, mine, own, rest, inverse, C, MODE, EXACT
        )
        hit = label == c if MODE == LABELS else r >= 0.5
        e = error_of(x, r, weight, p, q, HINGE)
        price = tl.load(table + (c * 2 * (BINS + AROUND) + slot_of(e, tl.load(scale + c), hit, weight, BINS)))
        if MODE == LABELS:
            g = tl.where(hit, -p * (own_q * q + inner), p * (price - (inner - own * inverse * own_q)))
        elif HINGE:
            g = tl.where(e <= 0.0, 0.0, price * (1.0 - 2.0 * r))  # NaN is not below
        else:
            g = price * p * q * tl.where((1.0 - r) * p - r * q < 0.0, -1.0, 1.0)
        g = tl.where(weight == 0.0, 0.0, g * (weight * by))
        tl.store(out + to, g.to(out.dtype.element_ty), mask=ok)
        out += oc
        zp += zc
        yp += tc
