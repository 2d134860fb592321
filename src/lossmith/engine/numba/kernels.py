"""The loops of the CPU engine. `cpu.py` calls them; nothing else does, and importing this file imports numba.

Every kernel walks its share of each image in blocks of 256 pixels, the "lanes". A block is first copied to float32
scratch that stays in the L1 or L2 cache, whatever the dtype and layout of the tensor, and then worked on by many tiny
loops. Tiny on purpose: LLVM turns a loop over two or three arrays into vector instructions, and silently not a large
one. Their lengths are multiples of 64, so that no remainder is left over; the last block of an image is padded with
pixels of weight 0.

    rows  (C, 256)  the block itself: first logits, then exps
    lane  (…, 256)  one number per pixel; the constants below name its rows

Numbers are float32 inside a block and float64 across blocks. Each chunk of blocks adds to its own slot of `partial`, so
a result does not depend on which thread did what.

An ignored pixel has weight 0, and its logits are replaced by 0 on the way in: whatever they were, NaN included, they
cannot touch anything. Apart from that a NaN must survive: hence `a if x < a else x`, which keeps a NaN in x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from .cache import kernel

LANES = 256
GROUP = 64
SQRT_HALF = 0x3F3504F3  # its float32 bits
FOCAL, POWER, CONSERVATIVE, SIGNED = range(4)  # the order of curves.KINDS
FEW = 16  # up to this many classes, comparing each with the label is faster than jumping to the label's row

# Fast arithmetic, except for what would let the compiler assume away NaN and infinity. Division by zero is no error.
# Nothing here allocates; without _nrt=False the counting of references to views would cost as much as the arithmetic.
_ANY: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_INNER: dict[str, Any] = _ANY | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
FAST: dict[str, Any] = _INNER | {"fastmath": {"contract", "reassoc", "arcp", "nsz"}}
PASTED: dict[str, Any] = FAST | {"inline": "always"}
EXACT: dict[str, Any] = _INNER | {"fastmath": {"contract"}}  # where the order of the roundings matters
KERNEL: dict[str, Any] = _ANY | {"fastmath": FAST["fastmath"], "nogil": True}

# Constants by name: a call of np.float32 is a call to the compiler too.
ZERO, HALF, ONE, TWO, TINY = (np.float32(x) for x in (0.0, 0.5, 1.0, 2.0, 1e-30))

# Rows of `partial` and of the upstream gradients: the sums of `Stats`. Under a sigmoid a curve takes two: yes and no.
N, T, TT, FP, FN, FP2, FN2, SPREAD, SPREAD_NO, CURVES = range(10)

# Rows of `lane`. Softmax: "own" is the pixel's label, or the likeliest class if the target is soft.
WEIGHT, LABEL, PEAK, OWN, REST, SCALE, HIT, MISS, U, LOG_SUM, VALUE, INNER, PULL, PUSH, OWN_PUSH, LOW, HIGH = range(17)
# Sigmoid, and one class of a soft target: the events "yes" and "no", their surprise and their share of the weight.
LIVE, TARGET, LOGIT, YES, NO, P, Q, U_YES, U_NO, SLOPE, SLOPE_NO, LANE_ROWS = range(17, 29)


# What the kernels are given. Where it may be None, that is a type of its own: they are then compiled without the loops
# that would serve the rest, which takes a quarter less time.


class Field(NamedTuple):
    """A tensor (images, channels, pixels): flat memory and the distance from one to the next of each."""

    flat: Any
    image: int
    channel: int
    pixel: int | None  # None: they lie side by side


class Grid(NamedTuple):
    images: int
    channels: int
    pixels: int
    chunk: int  # pixels per chunk, a multiple of LANES; a chunk is part of one image
    chunks_per_image: int


class Known(NamedTuple):
    """What is known of the pixels besides their logits. An array is empty where there is nothing to say."""

    target: Field
    weight: Any  # (images × pixels,)
    sample: Any  # (images,)
    ignore: int


class Ask(NamedTuple):
    errors: bool
    squares: bool
    spread: bool
    curves: int
    shapes: Any  # (curves, 2): the kind of each `Curve`, an index into KINDS, and its number. None: all are straight


class Block(NamedTuple):
    """`size` pixels of an image from `begin`, padded to 64 · `groups` lanes."""

    image: int
    begin: int
    size: int
    groups: int


# ---------------------------------------------------------------------------------------------------- arithmetic


@njit(**EXACT)
def bits_of(x):  # type: ignore[no-untyped-def]
    return np.int64(np.float32(x).view(np.int32))


@njit(**EXACT)
def float_of(bits):  # type: ignore[no-untyped-def]
    return np.int32(bits).view(np.float32)


@njit(**EXACT)
def exp(x):  # type: ignore[no-untyped-def]
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
def log1p_near_0(g):  # type: ignore[no-untyped-def]
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
def log1p(y):  # type: ignore[no-untyped-def]
    """log(1+y) for y ≥ 0: 1+y = 2^k (1+g), where g is computed from y, so a tiny y keeps its digits."""
    k = (bits_of(ONE + y) - SQRT_HALF) >> 23
    shrink = float_of((127 - k) << 23)
    g = y * shrink + (shrink - ONE)
    return log1p_near_0(g) + np.float32(k) * np.float32(0.6931471806)


@njit(**EXACT)
def log(x):  # type: ignore[no-untyped-def]
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
def _widen(raw):  # type: ignore[no-untyped-def]
    if raw == types.float32:
        return lambda raw: raw
    if raw == types.uint16:
        return lambda raw: float_of(np.int64(raw) << 16)
    if raw == types.int16:
        return _from_float16
    return lambda raw: np.float32(raw)


@overload(narrow)
def _narrow(value, flat):  # type: ignore[no-untyped-def]
    if flat.dtype == types.float32:
        return lambda value, flat: value
    if flat.dtype == types.uint16:
        return _to_bfloat16
    return _to_float16


def _from_float16(raw):  # type: ignore[no-untyped-def]
    bits = np.uint32(np.uint16(raw))
    size = bits & 0x7FFF
    subnormal = bits_of(np.float32(size) * np.float32(2.0**-24))
    normal = (size << 13) + (112 << 23)
    finite = subnormal if size < 0x400 else normal
    return float_of((normal + (112 << 23) if size >= 0x7C00 else finite) | ((bits & 0x8000) << 16))


def _to_bfloat16(value, flat):  # type: ignore[no-untyped-def]
    bits = bits_of(value)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.uint16(0x7FC0 if (bits & 0x7FFFFFFF) > 0x7F800000 else rounded)


def _to_float16(value, flat):  # type: ignore[no-untyped-def]
    bits = bits_of(value)
    size = bits & 0x7FFFFFFF
    subnormal = bits_of(float_of(size) + HALF) - 0x3F000000  # adding a half rounds to multiples of 2⁻²⁴
    normal = (size - (112 << 23) + 0xFFF + ((size >> 13) & 1)) >> 13
    finite = subnormal if size < 0x38800000 else normal
    large = 0x7E00 if size > 0x7F800000 else 0x7C00
    return np.int16(np.uint16((large if size >= 0x47800000 else finite) | ((bits >> 16) & 0x8000)))


@njit(**FAST)
def total(x, groups):  # type: ignore[no-untyped-def]
    s = ZERO
    for i in range(GROUP * groups):
        s += x[i]
    return s


@njit(**FAST)
def dot(x, y, groups):  # type: ignore[no-untyped-def]
    s = ZERO
    for i in range(GROUP * groups):
        s += x[i] * y[i]
    return s


@njit(**FAST)
def dot_square(w, x, groups):  # type: ignore[no-untyped-def]
    s = ZERO
    for i in range(GROUP * groups):
        s += w[i] * x[i] * x[i]
    return s


@njit(**FAST)
def dot_where(w, x, groups):  # type: ignore[no-untyped-def]
    """Σ w x in which 0 · ∞ is 0."""
    s = ZERO
    for i in range(GROUP * groups):
        product = w[i] * x[i]
        s += product if w[i] != 0 else ZERO
    return s


@njit(**FAST)
def multiply(x, y, out, groups):  # type: ignore[no-untyped-def]
    for i in range(GROUP * groups):
        out[i] = x[i] * y[i]


@njit(**FAST)
def multiply_power(o, exponent, out, groups):  # type: ignore[no-untyped-def]
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


@njit(**FAST)
def bent(shapes, k):  # type: ignore[no-untyped-def]
    """Whether f(u) is not u itself."""
    if shapes is None:
        return False
    return shapes[k, 0] != FOCAL or shapes[k, 1] != 0


@njit(**FAST)
def curve(shapes, k, u, o, out, groups):  # type: ignore[no-untyped-def]
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
def curve_slope(shapes, k, u, o, p, out, groups):  # type: ignore[no-untyped-def]
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


# ---------------------------------------------------------------------------------------------------- in and out


@njit(**EXACT)
def share_of(grid, chunk):  # type: ignore[no-untyped-def]
    """Image, first pixel and end of a chunk."""
    image = chunk // grid.chunks_per_image
    start = (chunk % grid.chunks_per_image) * grid.chunk
    stop = start + grid.chunk
    return image, start, stop if stop < grid.pixels else grid.pixels


@njit(**EXACT)
def block_of(image, begin, end):  # type: ignore[no-untyped-def]
    count = LANES if end - begin > LANES else end - begin
    return Block(image, begin, count, (count + GROUP - 1) // GROUP)


@njit(**FAST)
def start_of(field, block, channel, pixel):  # type: ignore[no-untyped-def]
    """Where a block begins in the tensor's memory: slice first, since LLVM vectorises an index that counts from 0."""
    step = 1 if pixel is None else pixel
    return block.image * field.image + channel * field.channel + block.begin * step


@njit(**FAST)
def load_pixels(source, pixel, count, out):  # type: ignore[no-untyped-def]
    if pixel is None:
        for i in range(count):
            out[i] = widen(source[i])
    else:
        for i in range(count):
            out[i] = widen(source[i * pixel])


@njit(**FAST)
def save(values, count, target):  # type: ignore[no-untyped-def]
    for i in range(count):
        target[i] = values[i]


@njit(**FAST)
def store_pixels(values, pixel, count, target):  # type: ignore[no-untyped-def]
    if pixel is None:
        for i in range(count):
            target[i] = narrow(values[i], target)
    else:
        for i in range(count):
            target[i * pixel] = narrow(values[i], target)


@njit(**FAST)
def load(field, block, channel, out):  # type: ignore[no-untyped-def]
    """One channel of a block, as float32. What is in the padding stays there: `clear_ignored` takes care of it."""
    load_pixels(field.flat[start_of(field, block, channel, field.pixel) :], field.pixel, block.size, out)


@njit(**FAST)
def store(field, block, channel, values):  # type: ignore[no-untyped-def]
    store_pixels(values, field.pixel, block.size, field.flat[start_of(field, block, channel, field.pixel) :])


@njit(**FAST)
def load_weights(known, grid, block, weight):  # type: ignore[no-untyped-def]
    """The weight of each pixel: 1 by default, 0 throughout an ignored image and in the padding."""
    for i in range(GROUP * block.groups):
        weight[i] = ONE
    if len(known.weight) > 0:
        source = known.weight[block.image * grid.pixels + block.begin :]
        for i in range(block.size):
            weight[i] = source[i]
    there = np.int32(0 if len(known.sample) > 0 and known.sample[block.image] == 0 else block.size)
    for i in range(GROUP * block.groups):
        w = weight[i]
        weight[i] = w if np.int32(i) < there else ZERO


@njit(**FAST)
def load_labels(known, grid, block, lane):  # type: ignore[no-untyped-def]
    """Hard labels, as float32 in 0 … C−1; an ignored pixel gets weight 0 and label 0. Whether there are any such.

    A label out of range is ignored too: the caller raises when it sees the limits. So is the padding.
    """
    load(known.target, block, 0, lane[LABEL])
    drop_ignored(known.ignore, lane[LABEL], lane[WEIGHT], lane, block.groups)
    top, ignored = np.float32(grid.channels - 1), ZERO
    for i in range(GROUP * block.groups):
        weight, label = lane[WEIGHT, i], lane[LABEL, i]
        valid = (weight != 0) & (label >= 0) & (label <= top)
        lane[WEIGHT, i] = weight if valid else ZERO
        lane[LABEL, i] = label if valid else ZERO
        ignored += ZERO if valid else ONE
    return ignored > 0


@njit(**FAST)
def drop_ignored(ignore, target, weight, lane, groups):  # type: ignore[no-untyped-def]
    """Weight 0 where the target says "ignore". LOW and HIGH follow the smallest and largest valid target."""
    ignored = np.float32(ignore)
    for i in range(GROUP * groups):
        w, x, low, high = weight[i], target[i], lane[LOW, i], lane[HIGH, i]
        w = w if x != ignored else ZERO
        lane[LOW, i] = x if (w != 0) & (x < low) else low
        lane[HIGH, i] = x if (w != 0) & (x > high) else high
        weight[i] = w


@njit(**FAST)
def reset_limits(lane):  # type: ignore[no-untyped-def]
    for i in range(LANES):
        lane[LOW, i] = np.float32(np.inf)
        lane[HIGH, i] = np.float32(-np.inf)


@njit(**FAST)
def save_limits(lane, limits):  # type: ignore[no-untyped-def]
    for i in range(LANES):
        low, high = np.float64(lane[LOW, i]), np.float64(lane[HIGH, i])
        limits[0] = low if low < limits[0] else limits[0]
        limits[1] = high if high > limits[1] else limits[1]


@njit(**FAST)
def clear_ignored(weight, values, groups):  # type: ignore[no-untyped-def]
    for i in range(GROUP * groups):
        value = values[i]
        values[i] = value if weight[i] != 0 else ZERO


@njit(**FAST)
def clamp(values, groups):  # type: ignore[no-untyped-def]
    """To 0 … 1. Soft labels may leave it by a little, and the caller raises if it is more. A NaN survives."""
    for i in range(GROUP * groups):
        value = values[i]
        value = ZERO if value < 0 else value
        values[i] = ONE if value > 1 else value


@njit(**FAST)
def load_rows(logits, block, rows, lane, ignored):  # type: ignore[no-untyped-def]
    """The block's logits and, in PEAK, the largest of each pixel."""
    lanes = GROUP * block.groups
    for i in range(lanes):
        lane[PEAK, i] = np.float32(-np.inf)
    for c in range(len(rows)):
        load(logits, block, c, rows[c])
        if ignored:
            clear_ignored(lane[WEIGHT], rows[c], block.groups)
        for i in range(lanes):
            z, peak = rows[c, i], lane[PEAK, i]
            lane[PEAK, i] = z if z > peak else peak


# ---------------------------------------------------------------------------------------------------- softmax


@njit(**FAST)
def exponentiate(rows, lane, groups):  # type: ignore[no-untyped-def]
    """Logits to exps. The label's own logit moves from its row to OWN, so that REST is the sum over the other classes.

    Then 1 − p of the label is REST · SCALE: nothing is subtracted, nothing cancels.
    """
    lanes = GROUP * groups
    if len(rows) <= FEW:
        for c in range(len(rows)):
            mine = np.float32(c)
            for i in range(lanes):
                z, own, hit = rows[c, i], lane[OWN, i], lane[LABEL, i] == mine
                lane[OWN, i] = z if hit else own
                rows[c, i] = np.float32(-np.inf) if hit else z
    else:
        for i in range(lanes):
            label = np.int64(lane[LABEL, i])
            lane[OWN, i] = rows[label, i]
            rows[label, i] = np.float32(-np.inf)
    for i in range(lanes):
        lane[REST, i] = ZERO
    for c in range(len(rows)):
        for i in range(lanes):
            e = exp(rows[c, i] - lane[PEAK, i])
            rows[c, i] = e
            lane[REST, i] += e


@njit(**EXACT)
def finish_pixels(lane, groups):  # type: ignore[no-untyped-def]
    """p and 1 − p of the label, and what `surprise` needs: the sum of exps less 1, and the logit less the peak.

    The first is rest + (own − 1). Where the label is the peak, own is 1 and this is the rest, exact however small;
    elsewhere the rest is at least 1. The brackets matter.
    """
    for i in range(GROUP * groups):
        lane[OWN, i] -= lane[PEAK, i]
        lane[HIT, i] = exp(lane[OWN, i])
    for i in range(GROUP * groups):
        own, rest = lane[HIT, i], lane[REST, i]
        scale = ONE / (rest + own)
        lane[SCALE, i] = scale
        lane[HIT, i] = own * scale
        lane[MISS, i] = rest * scale
        lane[LOG_SUM, i] = rest + (own - ONE)


@njit(**EXACT)
def surprise(lane, groups):  # type: ignore[no-untyped-def]
    """u = log(sum of exps) + (peak − logit), exact at both ends."""
    for i in range(GROUP * groups):
        lane[LOG_SUM, i] = log1p(lane[LOG_SUM, i])
    for i in range(GROUP * groups):
        lane[U, i] = lane[LOG_SUM, i] - lane[OWN, i]


@njit(**FAST)
def add_by_label(values, label, groups, out):  # type: ignore[no-untyped-def]
    """out[label] += value"""
    if len(out) <= FEW:
        for c in range(len(out)):
            mine, s = np.float32(c), ZERO
            for i in range(GROUP * groups):
                value = values[i]
                s += value if label[i] == mine else ZERO
            out[c] += s
    else:
        for i in range(GROUP * groups):
            out[np.int64(label[i])] += values[i]


@njit(**FAST)
def pick_by_label(table, label, groups, out):  # type: ignore[no-untyped-def]
    """out = table[label]"""
    if len(table) <= FEW:
        for c in range(len(table)):
            mine, value = np.float32(c), table[c]
            for i in range(GROUP * groups):
                before = out[i]
                out[i] = value if label[i] == mine else before
    else:
        for i in range(GROUP * groups):
            out[i] = table[np.int64(label[i])]


@njit(**PASTED)
def add_softmax(ask, rows, lane, groups, out):  # type: ignore[no-untyped-def]
    """The sums of one block, into out (row, class). One loop over the rows, not four: it compiles in a third."""
    for row in range(len(out)):
        if row == T:
            for i in range(GROUP * groups):
                lane[VALUE, i] = lane[WEIGHT, i]
        elif (row == FN and ask.errors) or (row == FN2 and ask.squares):
            for i in range(GROUP * groups):
                lane[VALUE, i] = lane[WEIGHT, i] * lane[MISS, i]
            if row == FN2:
                multiply(lane[VALUE], lane[MISS], lane[VALUE], groups)
        elif row >= CURVES:
            curve(ask.shapes, row - CURVES, lane[U], lane[MISS], lane[VALUE], groups)
            multiply(lane[VALUE], lane[WEIGHT], lane[VALUE], groups)
        else:
            continue
        add_by_label(lane[VALUE], lane[LABEL], groups, out[row])
    multiply(lane[WEIGHT], lane[SCALE], lane[PUSH], groups)
    if ask.errors:
        for c in range(len(rows)):
            out[FP, c] += dot(rows[c], lane[PUSH], groups)
    if ask.squares:
        multiply(lane[PUSH], lane[SCALE], lane[PUSH], groups)
        for c in range(len(rows)):
            out[FP2, c] += dot_square(lane[PUSH], rows[c], groups)


@kernel(**KERNEL)
def softmax_sums(start, stop, rows, lane, grid, logits, known, ask, partial, limits, u):  # type: ignore[no-untyped-def]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        reset_limits(lane)
        out = partial[chunk]
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            load_weights(known, grid, block, lane[WEIGHT])
            ignored = load_labels(known, grid, block, lane)
            if ask.errors or ask.squares or ask.spread or ask.curves > 0 or len(u) > 0:  # not only counts
                load_rows(logits, block, rows, lane, ignored)
                if ask.spread:
                    for c in range(grid.channels):
                        for i in range(GROUP * groups):
                            lane[VALUE, i] = lane[PEAK, i] - rows[c, i]
                        out[SPREAD, c] += dot(lane[WEIGHT], lane[VALUE], groups)
                exponentiate(rows, lane, groups)
                finish_pixels(lane, groups)
            if ask.spread or ask.curves > 0 or len(u) > 0:
                surprise(lane, groups)
            if ask.spread:
                log_sums = dot(lane[WEIGHT], lane[LOG_SUM], groups)
                for c in range(grid.channels):
                    out[SPREAD, c] += log_sums
            add_softmax(ask, rows, lane, groups, out)
            if len(u) > 0:
                clear_ignored(lane[WEIGHT], lane[U], groups)
                there = image * grid.pixels + begin
                save(lane[U], block.size, u[there:])
        save_limits(lane, limits[chunk])


@njit(**PASTED)
def label_pull(ask, lane, groups, upstream):  # type: ignore[no-untyped-def]
    """What the label's own probability is asked for. OWN: ∂/∂(1−p) of the sums; PULL += weight · ∂/∂u of the curves."""
    any_bent = False
    for k in range(ask.curves):
        any_bent |= bent(ask.shapes, k)  # otherwise f' is 1
    if any_bent:
        surprise(lane, groups)  # reads OWN
    for i in range(GROUP * groups):
        lane[OWN, i] = ZERO
    for row in range(FN, len(upstream)):
        errors, squares = row == FN and (ask.errors or ask.squares), row == FN2 and ask.squares
        if not (errors or squares or row >= CURVES):
            continue
        pick_by_label(upstream[row], lane[LABEL], groups, lane[INNER])
        if errors:
            for i in range(GROUP * groups):
                lane[OWN, i] += lane[INNER, i]
        elif squares:
            for i in range(GROUP * groups):
                lane[OWN, i] += TWO * lane[MISS, i] * lane[INNER, i]
        else:
            if bent(ask.shapes, row - CURVES):
                curve_slope(ask.shapes, row - CURVES, lane[U], lane[MISS], lane[HIT], lane[VALUE], groups)
                multiply(lane[INNER], lane[VALUE], lane[INNER], groups)
            for i in range(GROUP * groups):
                lane[PULL, i] += lane[INNER, i] * lane[WEIGHT, i]


@njit(**PASTED)
def region_push(ask, rows, lane, groups, upstream):  # type: ignore[no-untyped-def]
    """What is left per pixel: ∂/∂logit_k = e_k (w·scale·G_k + PUSH) for k ≠ label, OWN_PUSH for the label.

    With q_k the gradient with respect to p_k: p_k (w (q_k − Σ p q) + h), and for the label the same thing without its
    cancellation, w p (q (1−p) − Σ_{k≠label} p_k q_k) − h (1−p). h is PULL.
    """
    lanes = GROUP * groups
    for i in range(lanes):
        lane[INNER, i] = ZERO
    if ask.squares:
        for c in range(len(rows)):
            g, g2 = upstream[FP, c], TWO * upstream[FP2, c]
            for i in range(lanes):
                lane[INNER, i] += rows[c, i] * (g + g2 * rows[c, i] * lane[SCALE, i])
    elif ask.errors:
        for c in range(len(rows)):
            g = upstream[FP, c]
            for i in range(lanes):
                lane[INNER, i] += g * rows[c, i]
    spread = ZERO
    for c in range(len(rows)):
        spread += upstream[SPREAD, c]
    for i in range(lanes):
        weight, hit, miss, scale = lane[WEIGHT, i], lane[HIT, i], lane[MISS, i], lane[SCALE, i]
        inner = lane[INNER, i] * scale
        pull = lane[PULL, i] + weight * spread
        lane[PUSH, i] = scale * (pull - weight * (inner - hit * lane[OWN, i]))
        lane[OWN_PUSH, i] = weight * (spread - hit * (lane[OWN, i] * miss + inner)) - pull * miss
        lane[VALUE, i] = weight * scale


@njit(**PASTED)
def class_gradient(ask, row, mine, lane, groups, upstream):  # type: ignore[no-untyped-def]
    """The exps of a class to its gradient."""
    lanes = GROUP * groups
    c = np.int64(mine)
    g = upstream[FP, c]
    if ask.squares:
        g2 = TWO * upstream[FP2, c]
        for i in range(lanes):
            row[i] *= lane[VALUE, i] * (g + g2 * row[i] * lane[SCALE, i]) + lane[PUSH, i]
    else:
        for i in range(lanes):
            row[i] *= lane[VALUE, i] * g + lane[PUSH, i]
    for i in range(lanes):
        own, other = lane[OWN_PUSH, i], row[i]
        row[i] = own if lane[LABEL, i] == mine else other
    if ask.spread:
        g = upstream[SPREAD, c]
        for i in range(lanes):
            row[i] -= lane[WEIGHT, i] * g


@kernel(**KERNEL)
def softmax_gradient(start, stop, rows, lane, grid, logits, known, ask, upstream, upstream_u, out):  # type: ignore[no-untyped-def]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            load_weights(known, grid, block, lane[WEIGHT])
            ignored = load_labels(known, grid, block, lane)
            load_rows(logits, block, rows, lane, ignored)
            exponentiate(rows, lane, groups)
            finish_pixels(lane, groups)
            load_upstream(upstream_u, image * grid.pixels + begin, block, lane[WEIGHT], lane[PULL])
            label_pull(ask, lane, groups, upstream[image])
            region_push(ask, rows, lane, groups, upstream[image])
            for c in range(grid.channels):
                class_gradient(ask, rows[c], np.float32(c), lane, groups, upstream[image])
                store(out, block, c, rows[c])


@njit(**FAST)
def load_upstream(values, there, block, weight, out):  # type: ignore[no-untyped-def]
    """The gradient with respect to u: 0 without one, and at an ignored pixel."""
    for i in range(GROUP * block.groups):
        out[i] = ZERO
    if len(values) > 0:
        source = values[there:]
        for i in range(block.size):
            out[i] = source[i]
        clear_ignored(weight, out, block.groups)


# ------------------------------------------------------------------------- one channel: sigmoid, soft targets


@njit(**FAST)
def split_weight(lane, groups):  # type: ignore[no-untyped-def]
    for i in range(GROUP * groups):
        lane[YES, i] = lane[LIVE, i] * lane[TARGET, i]
        lane[NO, i] = lane[LIVE, i] * (ONE - lane[TARGET, i])


@njit(**FAST)
def add_channel(ask, lane, groups, both, out):  # type: ignore[no-untyped-def]
    """The sums of a channel, into out (row,), from P, Q = 1 − P and the surprises. `both`: "no" counts too."""
    split_weight(lane, groups)
    out[N] += total(lane[LIVE], groups)
    out[T] += total(lane[YES], groups)
    out[TT] += dot(lane[YES], lane[TARGET], groups)
    if ask.errors:
        out[FP] += dot(lane[NO], lane[P], groups)
        out[FN] += dot(lane[YES], lane[Q], groups)
    if ask.squares:
        out[FP2] += dot_square(lane[NO], lane[P], groups)
        out[FN2] += dot_square(lane[YES], lane[Q], groups)
    if ask.spread:
        out[SPREAD] += dot(lane[LIVE], lane[U_YES], groups)
        if both:
            out[SPREAD_NO] += dot(lane[LIVE], lane[U_NO], groups)
    for k in range(ask.curves):
        curve(ask.shapes, k, lane[U_YES], lane[Q], lane[VALUE], groups)
        out[CURVES + k] += dot_where(lane[YES], lane[VALUE], groups)
        if both:
            curve(ask.shapes, k, lane[U_NO], lane[P], lane[VALUE], groups)
            out[CURVES + ask.curves + k] += dot_where(lane[NO], lane[VALUE], groups)


@njit(**FAST)
def pixel_slope(ask, lane, groups, upstream, share, u, o, p, out, spread, curves):  # type: ignore[no-untyped-def]
    """out = w · ∂/∂u of an event; the arguments name rows, of `lane` and then of `upstream`."""
    for i in range(GROUP * groups):
        lane[out, i] = lane[LIVE, i] * upstream[spread]
    for k in range(ask.curves):
        curve_slope(ask.shapes, k, lane[u], lane[o], lane[p], lane[VALUE], groups)
        multiply(lane[VALUE], lane[share], lane[VALUE], groups)
        for i in range(GROUP * groups):
            lane[out, i] += lane[VALUE, i] * upstream[curves + k]


@njit(**FAST)
def load_channel(grid, logits, known, block, channel, one_vs_rest, lane):  # type: ignore[no-untyped-def]
    """LOGIT, TARGET and LIVE (the weight) of one channel."""
    groups = block.groups
    load(logits, block, channel, lane[LOGIT])
    load(known.target, block, channel, lane[TARGET])
    for i in range(GROUP * groups):
        lane[LIVE, i] = lane[WEIGHT, i]
    drop_ignored(known.ignore, lane[TARGET], lane[LIVE], lane, groups)
    clear_ignored(lane[LIVE], lane[LOGIT], groups)
    clear_ignored(lane[LIVE], lane[TARGET], groups)
    if one_vs_rest:
        mine = np.float32(channel)
        for i in range(GROUP * groups):
            lane[TARGET, i] = np.float32(lane[TARGET, i] == mine)
    else:
        clamp(lane[TARGET], groups)


@njit(**FAST)
def chances(lane, groups):  # type: ignore[no-untyped-def]
    """P = σ(z), Q = σ(−z), each from its own exponential tail, which is left in VALUE."""
    for i in range(GROUP * groups):
        z = lane[LOGIT, i]
        tail = exp(-abs(z))
        large = ONE / (ONE + tail)
        small = tail * large
        lane[P, i] = large if z >= 0 else small
        lane[Q, i] = small if z >= 0 else large
        lane[VALUE, i] = tail


@njit(**FAST)
def sigmoid_events(lane, groups):  # type: ignore[no-untyped-def]
    """P = σ(z), Q = σ(−z) and their surprises."""
    chances(lane, groups)
    for i in range(GROUP * groups):
        lane[VALUE, i] = log1p(lane[VALUE, i])
    for i in range(GROUP * groups):
        z = lane[LOGIT, i]
        lane[U_YES, i] = lane[VALUE, i] + (-z if z < 0 else ZERO)
        lane[U_NO, i] = lane[VALUE, i] + (z if z > 0 else ZERO)


@kernel(**KERNEL)
def sigmoid_sums(start, stop, rows, lane, grid, logits, known, one_vs_rest, ask, partial, limits, u):  # type: ignore[no-untyped-def]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        reset_limits(lane)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            load_weights(known, grid, block, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, known, block, c, one_vs_rest, lane)
                if ask.errors or ask.squares or ask.spread or ask.curves > 0 or len(u) > 0:  # not only counts
                    sigmoid_events(lane, groups)
                add_channel(ask, lane, groups, True, partial[chunk, :, c])
                if len(u) > 0:
                    for i in range(GROUP * groups):
                        yes, no = lane[U_YES, i], lane[U_NO, i]
                        lane[VALUE, i] = yes if lane[TARGET, i] != 0 else no
                    clear_ignored(lane[LIVE], lane[VALUE], groups)
                    there = (image * grid.channels + c) * grid.pixels + begin
                    save(lane[VALUE], block.size, u[there:])
        save_limits(lane, limits[chunk])


@kernel(**KERNEL)
def sigmoid_gradient(  # type: ignore[no-untyped-def]
    start, stop, rows, lane, grid, logits, known, one_vs_rest, ask, upstream, upstream_u, out
):
    """With a = z for "no" and −z for "yes", ∂/∂a = o (h + share · (1−o) (G + 2 o G2)), where h = w ∂/∂u."""
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            load_weights(known, grid, block, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, known, block, c, one_vs_rest, lane)
                sigmoid_events(lane, groups)
                split_weight(lane, groups)
                g = upstream[image, :, c]
                curves = CURVES + ask.curves
                pixel_slope(ask, lane, groups, g, YES, U_YES, Q, P, SLOPE, SPREAD, CURVES)
                pixel_slope(ask, lane, groups, g, NO, U_NO, P, Q, SLOPE_NO, SPREAD_NO, curves)
                there = (image * grid.channels + c) * grid.pixels + begin
                load_upstream(upstream_u, there, block, lane[LIVE], lane[PULL])
                channel_gradient(lane, groups, g)
                store(out, block, c, lane[LOGIT])


@njit(**FAST)
def channel_gradient(lane, groups, upstream):  # type: ignore[no-untyped-def]
    """LOGIT = ∂/∂logit of a channel under a sigmoid."""
    fp, fn, fp2, fn2 = upstream[FP], upstream[FN], TWO * upstream[FP2], TWO * upstream[FN2]
    for i in range(GROUP * groups):
        no = lane[SLOPE_NO, i] + lane[PULL, i] * (ONE - lane[TARGET, i])
        lane[LOGIT, i] = lane[P, i] * (no + lane[NO, i] * lane[Q, i] * (fp + lane[P, i] * fp2))
    for i in range(GROUP * groups):
        yes = lane[SLOPE, i] + lane[PULL, i] * lane[TARGET, i]
        lane[LOGIT, i] -= lane[Q, i] * (yes + lane[YES, i] * lane[P, i] * (fn + lane[Q, i] * fn2))


# ------------------------------------------------------------------------------------- softmax, soft targets


@njit(**FAST)
def load_soft(grid, logits, known, block, rows, shares, depth, lane):  # type: ignore[no-untyped-def]
    """rows: exps without the likeliest class, which is LABEL; shares: the target; depth: peak − logit."""
    groups = block.groups
    load_weights(known, grid, block, lane[WEIGHT])
    for c in range(len(rows)):
        load(known.target, block, c, shares[c])
        drop_ignored(known.ignore, shares[c], lane[WEIGHT], lane, groups)
    for c in range(len(rows)):
        clear_ignored(lane[WEIGHT], shares[c], groups)
        clamp(shares[c], groups)
    load_rows(logits, block, rows, lane, True)
    for i in range(GROUP * groups):
        lane[LABEL, i] = ZERO
        lane[LIVE, i] = lane[WEIGHT, i]
    for c in range(len(rows)):
        mine = np.float32(c)
        for i in range(GROUP * groups):
            depth[c, i] = lane[PEAK, i] - rows[c, i]
        for i in range(GROUP * groups):
            before = lane[LABEL, i]
            lane[LABEL, i] = mine if rows[c, i] == lane[PEAK, i] else before
    exponentiate(rows, lane, groups)
    finish_pixels(lane, groups)
    surprise(lane, groups)


@njit(**FAST)
def soft_event(lane, groups, mine, exps, share, depth):  # type: ignore[no-untyped-def]
    """P, Q, U_YES and TARGET of a class. Only the likeliest can have 1 − p near 0, and for it that is at hand."""
    for i in range(GROUP * groups):
        p, hit, miss, likeliest = exps[i] * lane[SCALE, i], lane[HIT, i], lane[MISS, i], lane[LABEL, i] == mine
        lane[P, i] = hit if likeliest else p
        lane[Q, i] = miss if likeliest else ONE - p
    for i in range(GROUP * groups):
        lane[U_YES, i] = lane[LOG_SUM, i] + depth[i]
        lane[TARGET, i] = share[i]


@kernel(**KERNEL)
def soft_sums(start, stop, scratch, lane, grid, logits, known, ask, partial, limits):  # type: ignore[no-untyped-def]
    rows, shares, depth = scratch[0], scratch[1], scratch[2]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        reset_limits(lane)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_soft(grid, logits, known, block, rows, shares, depth, lane)
            for c in range(grid.channels):
                soft_event(lane, block.groups, np.float32(c), rows[c], shares[c], depth[c])
                add_channel(ask, lane, block.groups, False, partial[chunk, :, c])
        save_limits(lane, limits[chunk])


@kernel(**KERNEL)
def soft_gradient(start, stop, scratch, lane, grid, logits, known, ask, upstream, out):  # type: ignore[no-untyped-def]
    """∂/∂z_k = p_k (q_k − Σ p q) + p_k Σ h − h_k, with q = w ∂/∂p and h = w ∂/∂u of each class.

    For the likeliest class, where this would cancel: p (q (1−p) − Σ_others p q) + p Σ_others h − h (1−p).
    """
    rows, shares, depth = scratch[0], scratch[1], scratch[2]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            load_soft(grid, logits, known, block, rows, shares, depth, lane)
            for i in range(GROUP * groups):
                lane[INNER, i] = ZERO
                lane[PULL, i] = ZERO
            q, h = shares, depth  # each is overwritten as soon as it has been read
            for c in range(grid.channels):
                g = upstream[image, :, c]
                soft_event(lane, groups, np.float32(c), rows[c], shares[c], depth[c])
                split_weight(lane, groups)
                pixel_slope(ask, lane, groups, g, YES, U_YES, Q, P, SLOPE, SPREAD, CURVES)
                class_push(lane, groups, np.float32(c), g, q[c], h[c])
            for c in range(grid.channels):
                finish_soft(lane, groups, np.float32(c), rows[c], q[c], h[c])
                store(out, block, c, rows[c])


@njit(**FAST)
def class_push(lane, groups, mine, upstream, q, h):  # type: ignore[no-untyped-def]
    """q and h of a class; INNER and PULL are the sums of p q and h over all but the likeliest, OWN_PUSH and OWN its."""
    fp, fn, fp2, fn2 = upstream[FP], upstream[FN], TWO * upstream[FP2], TWO * upstream[FN2]
    for i in range(GROUP * groups):
        q[i] = lane[NO, i] * (fp + lane[P, i] * fp2) - lane[YES, i] * (fn + lane[Q, i] * fn2)
        h[i] = lane[SLOPE, i]
    for i in range(GROUP * groups):
        likeliest, pushed, pulled = lane[LABEL, i] == mine, lane[P, i] * q[i], h[i]
        own_push, own_pull = lane[OWN_PUSH, i], lane[OWN, i]
        lane[INNER, i] += ZERO if likeliest else pushed
        lane[PULL, i] += ZERO if likeliest else pulled
        lane[OWN_PUSH, i] = pushed if likeliest else own_push
        lane[OWN, i] = pulled if likeliest else own_pull


@njit(**FAST)
def finish_soft(lane, groups, mine, row, q, h):  # type: ignore[no-untyped-def]
    """The exps of a class to its gradient."""
    for i in range(GROUP * groups):
        inner, pull = lane[INNER, i] + lane[OWN_PUSH, i], lane[PULL, i] + lane[OWN, i]
        row[i] = row[i] * lane[SCALE, i] * (q[i] - inner + pull) - h[i]
    for i in range(GROUP * groups):
        miss = lane[MISS, i]
        likeliest, other = lane[HIT, i] * (q[i] * miss - lane[INNER, i] + lane[PULL, i]) - h[i] * miss, row[i]
        row[i] = likeliest if lane[LABEL, i] == mine else other


# ---------------------------------------------------------------------------------- errors in order: see ranking.py


class Slots(NamedTuple):
    """The histogram of errors: what it counts, and how an error finds its slot."""

    bins: int
    per_image: bool
    factor: Any  # (images,): whole numbers that a pixel of weight 1 counts
    scale: Any  # (groups, channels): levels per error


@njit(**FAST)
def find_slots(slots, scale, inside, errors, places, groups):  # type: ignore[no-untyped-def]
    """Slot 0 for 0 and below, 1 + the nearest level, the last for NaN; those of foreground follow those of background.

    `inside` is 1 for foreground, 0 for background.
    """
    bound, half = np.float32(slots.bins + 2), np.float32(slots.bins + 3)
    for i in range(GROUP * groups):
        e = errors[i]
        x = e * scale + np.float32(1.5)
        x = x if x < bound else bound
        places[i] = np.int32(ZERO if e <= 0 else x) + np.int32(half * inside[i])


@njit(**FAST)
def count_weights(weight, factor, amounts, groups):  # type: ignore[no-untyped-def]
    """Weights as whole numbers: their sums do not depend on the order, nor on the number of threads."""
    for i in range(GROUP * groups):
        amounts[i] = np.int64(weight[i] * factor)


@njit(**FAST)
def add_to_slots(histogram, places, amounts, groups):  # type: ignore[no-untyped-def]
    for i in range(GROUP * groups):
        histogram[np.uint32(places[i])] += amounts[i]


@njit(**FAST)
def look_up(table, places, out, groups):  # type: ignore[no-untyped-def]
    for i in range(GROUP * groups):
        out[i] = table[np.uint32(places[i])]


@njit(**FAST)
def load_chances(known, grid, logits, block, rows, lane):  # type: ignore[no-untyped-def]
    """rows: exps of the classes, 0 for the label; SCALE makes them p; HIT, MISS: p and 1 − p of the label."""
    load_weights(known, grid, block, lane[WEIGHT])
    ignored = load_labels(known, grid, block, lane)
    load_rows(logits, block, rows, lane, ignored)
    exponentiate(rows, lane, block.groups)
    finish_pixels(lane, block.groups)


@njit(**FAST)
def class_errors(lane, row, mine, groups):  # type: ignore[no-untyped-def]
    """VALUE = |r − p| and TARGET = r of a class under a softmax."""
    for i in range(GROUP * groups):
        p, miss, hit = row[i] * lane[SCALE, i], lane[MISS, i], lane[LABEL, i] == mine
        lane[VALUE, i] = miss if hit else p
        lane[TARGET, i] = ONE if hit else ZERO


@kernel(**KERNEL)
def softmax_histogram(start, stop, rows, lane, places, amounts, histogram, grid, logits, known, slots):  # type: ignore[no-untyped-def]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        g = image if slots.per_image else 0
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_chances(known, grid, logits, block, rows[0], lane)
            count_weights(lane[WEIGHT], slots.factor[image], amounts, block.groups)
            for c in range(grid.channels):
                class_errors(lane, rows[0, c], np.float32(c), block.groups)
                find_slots(slots, slots.scale[g, c], lane[TARGET], lane[VALUE], places, block.groups)
                add_to_slots(histogram[g, c], places, amounts, block.groups)


@kernel(**KERNEL)
def softmax_charge(start, stop, rows, lane, places, amounts, histogram, grid, logits, known, slots, table, out):  # type: ignore[no-untyped-def]
    """∂/∂z_k = p_k (q_k − Σ p q), where q is what the table charges: for the label − that, and without cancellation."""
    p, q = rows[0], rows[1]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        g = image if slots.per_image else 0
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            lanes = GROUP * block.groups
            load_chances(known, grid, logits, block, p, lane)
            for i in range(lanes):
                lane[INNER, i] = ZERO
                lane[OWN, i] = ZERO
                lane[WEIGHT, i] *= slots.factor[image]
            for c in range(grid.channels):
                class_errors(lane, p[c], np.float32(c), block.groups)
                find_slots(slots, slots.scale[g, c], lane[TARGET], lane[VALUE], places, block.groups)
                look_up(table[g, c], places, q[c], block.groups)
                for i in range(lanes):
                    p[c, i] *= lane[SCALE, i]  # 0 for the label
                    lane[INNER, i] += p[c, i] * q[c, i]
                for i in range(lanes):
                    lane[OWN, i] += lane[TARGET, i] * q[c, i]
            for i in range(lanes):
                own, weight = lane[OWN, i], lane[WEIGHT, i]
                lane[PUSH, i] = lane[INNER, i] - lane[HIT, i] * own
                lane[OWN_PUSH, i] = -weight * lane[HIT, i] * (own * lane[MISS, i] + lane[INNER, i])
            for c in range(grid.channels):
                mine = np.float32(c)
                for i in range(lanes):
                    own, other = lane[OWN_PUSH, i], p[c, i] * lane[WEIGHT, i] * (q[c, i] - lane[PUSH, i])
                    q[c, i] = own if lane[LABEL, i] == mine else other
                store(out, block, c, q[c])


@njit(**FAST)
def channel_errors(hinge, lane, groups):  # type: ignore[no-untyped-def]
    """VALUE = |r − p| or 1 − z (2r − 1), SLOPE = its derivative by the logit, TARGET = 1 from r = ½ on."""
    if hinge:
        for i in range(GROUP * groups):
            side = TWO * lane[TARGET, i] - ONE
            lane[VALUE, i] = ONE - lane[LOGIT, i] * side
            lane[SLOPE, i] = -side
    else:
        chances(lane, groups)
        for i in range(GROUP * groups):
            r = lane[TARGET, i]
            difference = (ONE - r) * lane[P, i] - r * lane[Q, i]
            slope = lane[P, i] * lane[Q, i]
            lane[VALUE, i] = abs(difference)
            lane[SLOPE, i] = slope if difference > 0 else -slope
    for i in range(GROUP * groups):
        lane[TARGET, i] = ONE if lane[TARGET, i] >= HALF else ZERO


@kernel(**KERNEL)
def largest_errors(  # type: ignore[no-untyped-def]
    start, stop, rows, lane, places, amounts, histogram, grid, logits, known, one_vs_rest, largest
):
    """Of a hinge, per chunk and channel; at least 0, NaN left out."""
    top = rows[0]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        top[:] = ZERO
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_weights(known, grid, block, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, known, block, c, one_vs_rest, lane)
                channel_errors(True, lane, block.groups)
                clear_ignored(lane[LIVE], lane[VALUE], block.groups)
                for i in range(GROUP * block.groups):
                    before, e = top[c, i], lane[VALUE, i]
                    top[c, i] = e if e > before else before
        for c in range(grid.channels):
            for i in range(LANES):
                largest[chunk, c] = max(largest[chunk, c], top[c, i])


@kernel(**KERNEL)
def sigmoid_histogram(  # type: ignore[no-untyped-def]
    start, stop, rows, lane, places, amounts, histogram, grid, logits, known, one_vs_rest, hinge, slots
):
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        g = image if slots.per_image else 0
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_weights(known, grid, block, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, known, block, c, one_vs_rest, lane)
                channel_errors(hinge, lane, block.groups)
                count_weights(lane[LIVE], slots.factor[image], amounts, block.groups)
                find_slots(slots, slots.scale[g, c], lane[TARGET], lane[VALUE], places, block.groups)
                add_to_slots(histogram[g, c], places, amounts, block.groups)


@kernel(**KERNEL)
def sigmoid_charge(  # type: ignore[no-untyped-def]
    start, stop, rows, lane, places, amounts, histogram, grid, logits, known, one_vs_rest, hinge, slots, table, out
):
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        g = image if slots.per_image else 0
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_weights(known, grid, block, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, known, block, c, one_vs_rest, lane)
                channel_errors(hinge, lane, block.groups)
                find_slots(slots, slots.scale[g, c], lane[TARGET], lane[VALUE], places, block.groups)
                look_up(table[g, c], places, lane[VALUE], block.groups)
                for i in range(GROUP * block.groups):
                    lane[LOGIT, i] = lane[VALUE, i] * lane[SLOPE, i] * (lane[LIVE, i] * slots.factor[image])
                store(out, block, c, lane[LOGIT])
