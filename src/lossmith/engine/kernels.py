"""The loops of the CPU engine. `cpu.py` calls them; nothing else does, and importing this file imports numba.

Every kernel walks its share of the image in blocks of 256 pixels ("lanes"). A block is first copied to float32 scratch
that stays in the L1 or L2 cache, whatever the dtype and layout of the tensor, and then worked on by many tiny loops.
Tiny on purpose: LLVM turns a loop over two or three arrays into vector instructions, and silently not a large one.

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

LANES = 256
SQRT_HALF = 0x3F3504F3  # its float32 bits
FEW = 16  # up to this many classes, comparing each with the label is faster than jumping to the label's row

# Fast arithmetic, except for what would let the compiler assume away NaN and infinity. Division by zero is no error.
FAST: dict[str, Any] = {"fastmath": {"contract", "reassoc", "arcp", "nsz"}, "error_model": "numpy"}
EXACT: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}  # where the order of the roundings matters
KERNEL: dict[str, Any] = FAST | {"nogil": True, "cache": True}

# Rows of `partial` and of the upstream gradients: the sums of `Stats`. Under a sigmoid a curve takes two: yes and no.
N, T, TT, FP, FN, FP2, FN2, SPREAD, SPREAD_NO, CURVES = range(10)

# Rows of `lane`. Softmax: "own" is the pixel's label, or the likeliest class if the target is soft.
WEIGHT, LABEL, PEAK, OWN, REST, SCALE, HIT, MISS, U, VALUE, INNER, PULL, PUSH, OWN_PUSH = range(14)
# Sigmoid, and one class of a soft target: the events "yes" and "no", their surprise and their share of the weight.
LIVE, TARGET, LOGIT, YES, NO, P, Q, U_YES, U_NO, SLOPE, SLOPE_NO, LANE_ROWS = range(14, 26)


class Field(NamedTuple):
    """A tensor (images, channels, pixels): flat memory and the distance from one to the next of each."""

    flat: Any
    image: int
    channel: int
    pixel: int


class Grid(NamedTuple):
    """How the work is cut. A block never shares an image with another block's half: it is part of one, or several."""

    images: int
    channels: int
    pixels: int
    pieces: int  # images per block: 1 unless they are smaller than a block
    chunk: int  # pixels of an image per chunk
    chunks_per_image: int


class Pixels(NamedTuple):
    """What is known of a pixel besides its logits. The arrays are empty where there is nothing to say."""

    target: Field
    weight: Any  # (images × pixels,)
    sample: Any  # (images,)
    ignore: int


class Ask(NamedTuple):
    errors: bool
    squares: bool
    spread: bool
    gammas: Any


class Place(NamedTuple):
    """Where a block lies: `pieces` images, `length` pixels of each from `begin`; `slot` is the first's partial sum."""

    slot: int
    image: int
    pieces: int
    begin: int
    length: int


# ---------------------------------------------------------------------------------------------------- arithmetic


@njit
def bits_of(x):  # type: ignore[no-untyped-def]
    return np.int64(np.float32(x).view(np.int32))


@njit
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
    return (q * r * r + r + np.float32(1.0)) * float_of((bits_of(shifted) << 23) + 0x3F800000)


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
    return g + g * g * (q * g - np.float32(0.5))


@njit(**EXACT)
def log1p(y):  # type: ignore[no-untyped-def]
    """log(1+y) for y ≥ 0: 1+y = 2^k (1+g), where g is computed from y, so a tiny y keeps its digits."""
    k = (bits_of(np.float32(1.0) + y) - SQRT_HALF) >> 23
    shrink = float_of((127 - k) << 23)
    g = y * shrink + (shrink - np.float32(1.0))
    return log1p_near_0(g) + np.float32(k) * np.float32(0.6931471806)


@njit(**EXACT)
def log(x):  # type: ignore[no-untyped-def]
    """For 0 < x < ∞ and normal. It forgets a NaN: multiply by something that remembers."""
    bits = bits_of(x)
    k = (bits - SQRT_HALF) >> 23
    g = float_of(bits - (k << 23)) - np.float32(1.0)
    return log1p_near_0(g) + np.float32(k) * np.float32(0.6931471806)


def widen(raw: Any) -> Any:
    """A stored logit as float32. A bfloat16 comes as uint16 bits, a float16 as int16 bits: NumPy lacks the first."""


def narrow(value: Any, flat: Any) -> Any:
    """A float32 as it is stored in `flat`, rounded to nearest, ties to even."""


@overload(widen)
def _widen(raw):  # type: ignore[no-untyped-def]
    if raw == types.float32:
        return lambda raw: raw
    if raw == types.uint16:
        return lambda raw: float_of(np.int64(raw) << 16)
    return _from_float16


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
    subnormal = bits_of(float_of(size) + np.float32(0.5)) - 0x3F000000  # adding a half rounds to multiples of 2⁻²⁴
    normal = (size - (112 << 23) + 0xFFF + ((size >> 13) & 1)) >> 13
    finite = subnormal if size < 0x38800000 else normal
    large = 0x7E00 if size > 0x7F800000 else 0x7C00
    return np.int16(np.uint16((large if size >= 0x47800000 else finite) | ((bits >> 16) & 0x8000)))


@njit(**FAST)
def total(x):  # type: ignore[no-untyped-def]
    s = np.float32(0.0)
    for i in range(len(x)):
        s += x[i]
    return s


@njit(**FAST)
def dot(x, y):  # type: ignore[no-untyped-def]
    s = np.float32(0.0)
    for i in range(len(x)):
        s += x[i] * y[i]
    return s


@njit(**FAST)
def dot3(x, y, z):  # type: ignore[no-untyped-def]
    s = np.float32(0.0)
    for i in range(len(x)):
        s += x[i] * y[i] * z[i]
    return s


@njit(**FAST)
def dot_where(w, x):  # type: ignore[no-untyped-def]
    """Σ w x in which 0 · ∞ is 0."""
    s = np.float32(0.0)
    for i in range(len(w)):
        s += w[i] * x[i] if w[i] != 0 else np.float32(0.0)
    return s


@njit(**FAST)
def curve(gamma, u, o, out):  # type: ignore[no-untyped-def]
    """f(u) = o^gamma · u, where o = 1 − p."""
    if gamma == 0:
        for i in range(LANES):
            out[i] = u[i]
    elif gamma == 1:
        for i in range(LANES):
            out[i] = o[i] * u[i]
    elif gamma == 2:
        for i in range(LANES):
            out[i] = o[i] * o[i] * u[i]
    else:
        for i in range(LANES):
            base = np.float32(1e-30) if o[i] < np.float32(1e-30) else o[i]
            out[i] = exp(gamma * log(base)) * u[i]


@njit(**FAST)
def curve_slope(gamma, u, o, p, out):  # type: ignore[no-untyped-def]
    """f'(u) = o^(gamma−1) (o + gamma p u). At u = ∞, p u is 0: hence the bound on u."""
    if gamma == 0:
        for i in range(LANES):
            out[i] = np.float32(1.0)
        return
    for i in range(LANES):
        bounded = np.float32(1e30) if u[i] > np.float32(1e30) else u[i]
        out[i] = o[i] + gamma * p[i] * bounded
    if gamma == 2:
        for i in range(LANES):
            out[i] *= o[i]
    elif gamma != 1:
        for i in range(LANES):
            base = np.float32(1e-30) if o[i] < np.float32(1e-30) else o[i]
            out[i] *= exp((gamma - np.float32(1.0)) * log(base))


# ------------------------------------------------------------------------------------------------ in and out


@njit
def place(grid, chunk):  # type: ignore[no-untyped-def]
    """The first image of a chunk, how many images it holds, and its pixels of each."""
    if grid.pieces > 1:
        image = chunk * grid.pieces
        return image, image, min(grid.pieces, grid.images - image), 0, grid.pixels
    image = chunk // grid.chunks_per_image
    start = (chunk % grid.chunks_per_image) * grid.chunk
    return chunk, image, 1, start, min(start + grid.chunk, grid.pixels)


@njit(**FAST)
def load(field, at, channel, out):  # type: ignore[no-untyped-def]
    """One channel of a block, as float32."""
    for j in range(at.pieces):
        first = (at.image + j) * field.image + channel * field.channel + at.begin * field.pixel
        target = out[j * at.length : (j + 1) * at.length]
        if field.pixel == 1:
            source = field.flat[first : first + at.length]
            for i in range(at.length):
                target[i] = widen(source[i])
        else:
            for i in range(at.length):
                target[i] = widen(field.flat[first + i * field.pixel])


@njit(**FAST)
def store(field, at, channel, values):  # type: ignore[no-untyped-def]
    for j in range(at.pieces):
        first = (at.image + j) * field.image + channel * field.channel + at.begin * field.pixel
        source = values[j * at.length : (j + 1) * at.length]
        if field.pixel == 1:
            target = field.flat[first : first + at.length]
            for i in range(at.length):
                target[i] = narrow(source[i], field.flat)
        else:
            for i in range(at.length):
                field.flat[first + i * field.pixel] = narrow(source[i], field.flat)


@njit(**FAST)
def load_weights(pixels, grid, at, weight):  # type: ignore[no-untyped-def]
    """The weight of each pixel of the block: 1 by default, 0 throughout an ignored image."""
    for j in range(at.pieces):
        target = weight[j * at.length : (j + 1) * at.length]
        if len(pixels.sample) > 0 and pixels.sample[at.image + j] == 0:
            for i in range(at.length):
                target[i] = np.float32(0.0)
        elif len(pixels.weight) > 0:
            first = (at.image + j) * grid.pixels + at.begin
            source = pixels.weight[first : first + at.length]
            for i in range(at.length):
                target[i] = source[i]
        else:
            for i in range(at.length):
                target[i] = np.float32(1.0)


@njit(**FAST)
def load_labels(pixels, grid, at, weight, label, limits):  # type: ignore[no-untyped-def]
    """Hard labels, in 0 … C−1; an ignored pixel gets weight 0 and label 0. Returns the number of ignored pixels.

    A label out of range is ignored too: the caller raises when it sees `limits`.
    """
    inert = 0
    for j in range(at.pieces):
        first = (at.image + j) * pixels.target.image + at.begin
        source = pixels.target.flat[first : first + at.length]
        w = weight[j * at.length : (j + 1) * at.length]
        out = label[j * at.length : (j + 1) * at.length]
        low, high = np.int64(2**62), np.int64(-(2**62))
        for i in range(at.length):
            y = np.int64(source[i])
            valid = y != pixels.ignore and w[i] != 0
            low = min(low, y if valid else low)
            high = max(high, y if valid else high)
            w[i] = w[i] if valid else np.float32(0.0)
            out[i] = np.float32(y)
        if low < 0 or high >= grid.channels:
            for i in range(at.length):
                w[i] = w[i] if 0 <= out[i] < grid.channels else np.float32(0.0)
        for i in range(at.length):
            out[i] = out[i] if w[i] != 0 else np.float32(0.0)
            inert += w[i] == 0
        if low <= high:
            limits[0] = min(limits[0], np.float64(low))
            limits[1] = max(limits[1], np.float64(high))
    return inert


@njit(**FAST)
def load_target(pixels, at, channel, out):  # type: ignore[no-untyped-def]
    """One channel of a target with values of its own, or the labels themselves, as float32."""
    target = pixels.target
    for j in range(at.pieces):
        first = (at.image + j) * target.image + channel * target.channel + at.begin * target.pixel
        part = out[j * at.length : (j + 1) * at.length]
        if target.pixel == 1:
            source = target.flat[first : first + at.length]
            for i in range(at.length):
                part[i] = np.float32(source[i])
        else:
            for i in range(at.length):
                part[i] = np.float32(target.flat[first + i * target.pixel])


@njit(**FAST)
def drop_ignored(ignore, count, value, weight):  # type: ignore[no-untyped-def]
    """Weight 0 where the target says "ignore". Returns the number of ignored pixels."""
    ignored = np.float32(ignore)
    inert = 0
    for i in range(count):
        weight[i] = weight[i] if value[i] != ignored else np.float32(0.0)
    for i in range(count):
        inert += weight[i] == 0
    return inert


@njit(**FAST)
def clear_ignored(weight, values):  # type: ignore[no-untyped-def]
    for i in range(LANES):
        values[i] = values[i] if weight[i] != 0 else np.float32(0.0)


@njit(**FAST)
def widen_limits(count, weight, value, limits):  # type: ignore[no-untyped-def]
    """The smallest and largest valid target so far."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for i in range(count):
        low = min(low, value[i] if weight[i] != 0 else low)
        high = max(high, value[i] if weight[i] != 0 else high)
    limits[0] = min(limits[0], np.float64(low))
    limits[1] = max(limits[1], np.float64(high))


# ---------------------------------------------------------------------------------------------------- softmax


@njit(**FAST)
def load_rows(logits, grid, at, rows, lane, inert):  # type: ignore[no-untyped-def]
    """The block's logits and, in PEAK, the largest of each pixel."""
    for i in range(LANES):
        lane[PEAK, i] = np.float32(-np.inf)
    for c in range(grid.channels):
        load(logits, at, c, rows[c])
        if inert > 0:
            clear_ignored(lane[WEIGHT], rows[c])
        for i in range(LANES):
            lane[PEAK, i] = rows[c, i] if rows[c, i] > lane[PEAK, i] else lane[PEAK, i]


@njit(**FAST)
def exponentiate(rows, lane, count):  # type: ignore[no-untyped-def]
    """Logits to exps. The label's own logit moves from its row to OWN, so that REST is the sum over the other classes.

    Then 1 − p of the label is REST · SCALE: nothing is subtracted, nothing cancels.
    """
    channels = len(rows)
    if channels <= FEW:
        for c in range(channels):
            mine = np.float32(c)
            for i in range(LANES):
                lane[OWN, i] = rows[c, i] if lane[LABEL, i] == mine else lane[OWN, i]
            for i in range(LANES):
                rows[c, i] = np.float32(-np.inf) if lane[LABEL, i] == mine else rows[c, i]
    else:
        for i in range(count):
            c = int(lane[LABEL, i])
            lane[OWN, i] = rows[c, i]
            rows[c, i] = np.float32(-np.inf)
    for i in range(LANES):
        lane[REST, i] = np.float32(0.0)
    for c in range(channels):
        for i in range(LANES):
            e = exp(rows[c, i] - lane[PEAK, i])
            rows[c, i] = e
            lane[REST, i] += e


@njit(**EXACT)
def finish_pixels(lane):  # type: ignore[no-untyped-def]
    """p and 1 − p of the label, and u = log(sum of exps) + (peak − logit).

    The first part is log1p(rest + (own − 1)). Where the label is the peak, own is 1 and this is log1p(rest), exact
    however small the rest is; elsewhere the rest is at least 1. The brackets matter.
    """
    for i in range(LANES):
        below = lane[OWN, i] - lane[PEAK, i]
        own = exp(below)
        scale = np.float32(1.0) / (lane[REST, i] + own)
        lane[SCALE, i] = scale
        lane[HIT, i] = own * scale
        lane[MISS, i] = lane[REST, i] * scale
        lane[VALUE, i] = lane[REST, i] + (own - np.float32(1.0))
        lane[OWN, i] = below


@njit(**EXACT)
def surprise(lane):  # type: ignore[no-untyped-def]
    """u, from what `finish_pixels` left in VALUE and OWN; the sum of exps' logarithm stays in VALUE."""
    for i in range(LANES):
        lane[VALUE, i] = log1p(lane[VALUE, i])
    for i in range(LANES):
        lane[U, i] = lane[VALUE, i] - lane[OWN, i]


@njit(**FAST)
def add_by_label(values, label, at, channels, partial, row):  # type: ignore[no-untyped-def]
    for j in range(at.pieces):
        v = values[j * at.length : (j + 1) * at.length]
        y = label[j * at.length : (j + 1) * at.length]
        out = partial[at.slot + j, row]
        if channels <= FEW:
            for c in range(channels):
                mine = np.float32(c)
                s = np.float32(0.0)
                for i in range(at.length):
                    s += v[i] if y[i] == mine else np.float32(0.0)
                out[c] += s
        else:
            for i in range(at.length):
                out[int(y[i])] += v[i]


@njit(**FAST)
def pick_by_label(table, label, at, row, out):  # type: ignore[no-untyped-def]
    """out = table[image, row, label]"""
    channels = table.shape[2]
    for j in range(at.pieces):
        values = table[at.image + j, row]
        y = label[j * at.length : (j + 1) * at.length]
        part = out[j * at.length : (j + 1) * at.length]
        if channels <= FEW:
            for c in range(channels):
                mine, value = np.float32(c), values[c]
                for i in range(at.length):
                    part[i] = value if y[i] == mine else part[i]
        else:
            for i in range(at.length):
                part[i] = values[int(y[i])]


@njit(**KERNEL)
def softmax_sums(start, stop, grid, logits, pixels, ask, partial, limits, u):  # type: ignore[no-untyped-def]
    channels = grid.channels
    rows = np.empty((channels, LANES), np.float32)
    lane = np.empty((LANE_ROWS, LANES), np.float32)
    for chunk in range(start, stop):
        slot, image, pieces, first, last = place(grid, chunk)
        for begin in range(first, last, LANES):
            at = Place(slot, image, pieces, begin, min(LANES, last - begin))
            count = at.pieces * at.length
            load_weights(pixels, grid, at, lane[WEIGHT])
            inert = load_labels(pixels, grid, at, lane[WEIGHT], lane[LABEL], limits[chunk])
            load_rows(logits, grid, at, rows, lane, inert)
            if ask.spread:
                for c in range(channels):
                    for i in range(LANES):
                        lane[VALUE, i] = lane[PEAK, i] - rows[c, i]
                    add_products(lane[WEIGHT], lane[VALUE], at, partial, SPREAD, c)
            exponentiate(rows, lane, count)
            finish_pixels(lane)
            if ask.spread or len(ask.gammas) > 0 or len(u) > 0:
                surprise(lane)
            if ask.spread:
                for c in range(channels):
                    add_products(lane[WEIGHT], lane[VALUE], at, partial, SPREAD, c)
            if len(u) > 0:
                for j in range(pieces):
                    there = (image + j) * grid.pixels + begin
                    for i in range(at.length):
                        here = j * at.length + i
                        u[there + i] = lane[U, here] if lane[WEIGHT, here] != 0 else np.float32(0.0)
            add_by_label(lane[WEIGHT], lane[LABEL], at, channels, partial, T)
            for k in range(len(ask.gammas)):
                curve(ask.gammas[k], lane[U], lane[MISS], lane[VALUE])
                for i in range(LANES):
                    lane[VALUE, i] *= lane[WEIGHT, i]
                add_by_label(lane[VALUE], lane[LABEL], at, channels, partial, CURVES + k)
            if ask.errors:
                for i in range(LANES):
                    lane[VALUE, i] = lane[WEIGHT, i] * lane[MISS, i]
                add_by_label(lane[VALUE], lane[LABEL], at, channels, partial, FN)
                for i in range(LANES):
                    lane[VALUE, i] = lane[WEIGHT, i] * lane[SCALE, i]
                for c in range(channels):
                    add_products(rows[c], lane[VALUE], at, partial, FP, c)
            if ask.squares:
                for i in range(LANES):
                    lane[VALUE, i] = lane[WEIGHT, i] * lane[MISS, i] * lane[MISS, i]
                add_by_label(lane[VALUE], lane[LABEL], at, channels, partial, FN2)
                for i in range(LANES):
                    lane[VALUE, i] = lane[WEIGHT, i] * lane[SCALE, i] * lane[SCALE, i]
                for c in range(channels):
                    for i in range(LANES):
                        lane[INNER, i] = rows[c, i] * rows[c, i]
                    add_products(lane[INNER], lane[VALUE], at, partial, FP2, c)


@njit(**FAST)
def add_products(x, y, at, partial, row, channel):  # type: ignore[no-untyped-def]
    for j in range(at.pieces):
        a, b = j * at.length, (j + 1) * at.length
        partial[at.slot + j, row, channel] += dot(x[a:b], y[a:b])


@njit(**KERNEL)
def softmax_gradient(start, stop, grid, logits, pixels, ask, upstream, upstream_u, out):  # type: ignore[no-untyped-def]
    channels = grid.channels
    rows = np.empty((channels, LANES), np.float32)
    lane = np.empty((LANE_ROWS, LANES), np.float32)
    limits = np.empty(2)
    for chunk in range(start, stop):
        slot, image, pieces, first, last = place(grid, chunk)
        for begin in range(first, last, LANES):
            at = Place(slot, image, pieces, begin, min(LANES, last - begin))
            count = at.pieces * at.length
            load_weights(pixels, grid, at, lane[WEIGHT])
            inert = load_labels(pixels, grid, at, lane[WEIGHT], lane[LABEL], limits)
            load_rows(logits, grid, at, rows, lane, inert)
            exponentiate(rows, lane, count)
            finish_pixels(lane)
            pixel_pull(ask, at, grid, upstream, upstream_u, lane)
            region_push(ask, at, upstream, rows, lane)
            for i in range(LANES):
                lane[VALUE, i] = lane[WEIGHT, i] * lane[SCALE, i]
            for c in range(channels):
                for j in range(pieces):
                    a, b = j * at.length, (j + 1) * at.length
                    row, slope, push = rows[c, a:b], lane[VALUE, a:b], lane[PUSH, a:b]
                    g = upstream[image + j, FP, c]
                    if ask.squares:
                        g2 = np.float32(2.0) * upstream[image + j, FP2, c]
                        scale = lane[SCALE, a:b]
                        for i in range(len(row)):
                            slope_here = slope[i] * (g + g2 * row[i] * scale[i])
                            row[i] = row[i] * (slope_here + push[i])
                    else:
                        for i in range(len(row)):
                            row[i] = row[i] * (slope[i] * g + push[i])
                mine = np.float32(c)
                for i in range(LANES):
                    rows[c, i] = lane[OWN_PUSH, i] if lane[LABEL, i] == mine else rows[c, i]
                if ask.spread:
                    for j in range(pieces):
                        a, b = j * at.length, (j + 1) * at.length
                        row, w, g = rows[c, a:b], lane[WEIGHT, a:b], upstream[image + j, SPREAD, c]
                        for i in range(len(row)):
                            row[i] -= w[i] * g
                store(out, at, c, rows[c])


@njit(**FAST)
def pixel_pull(ask, at, grid, upstream, upstream_u, lane):  # type: ignore[no-untyped-def]
    """PULL = weight · ∂/∂u of everything that is a function of the label's u."""
    for i in range(LANES):
        lane[PULL, i] = np.float32(0.0)
    if len(ask.gammas) > 0:
        surprise(lane)
    for k in range(len(ask.gammas)):
        curve_slope(ask.gammas[k], lane[U], lane[MISS], lane[HIT], lane[VALUE])
        pick_by_label(upstream, lane[LABEL], at, CURVES + k, lane[INNER])
        for i in range(LANES):
            lane[PULL, i] += lane[WEIGHT, i] * lane[INNER, i] * lane[VALUE, i]
    if len(upstream_u) > 0:
        for j in range(at.pieces):
            there = (at.image + j) * grid.pixels + at.begin
            for i in range(at.length):
                here = j * at.length + i
                lane[PULL, here] += upstream_u[there + i] if lane[WEIGHT, here] != 0 else np.float32(0.0)


@njit(**FAST)
def region_push(ask, at, upstream, rows, lane):  # type: ignore[no-untyped-def]
    """What is left per pixel: ∂/∂logit_k = e_k (w·scale·G_k + PUSH) for k ≠ label, OWN_PUSH for the label.

    With q_k the gradient with respect to p_k: p_k (w (q_k − Σ p q) + h), and for the label the same thing without its
    cancellation, w p (q (1−p) − Σ_{k≠label} p_k q_k) − h (1−p). h is PULL.
    """
    for i in range(LANES):
        lane[INNER, i] = np.float32(0.0)
        lane[REST, i] = np.float32(0.0)
        lane[VALUE, i] = np.float32(0.0)
        lane[OWN, i] = np.float32(0.0)
    if ask.errors or ask.squares:
        pick_by_label(upstream, lane[LABEL], at, FN, lane[REST])
    if ask.squares:
        pick_by_label(upstream, lane[LABEL], at, FN2, lane[VALUE])
        for i in range(LANES):
            lane[REST, i] += np.float32(2.0) * lane[MISS, i] * lane[VALUE, i]
    if ask.errors or ask.squares:
        for c in range(len(rows)):
            for j in range(at.pieces):
                a, b = j * at.length, (j + 1) * at.length
                row, inner, scale = rows[c, a:b], lane[INNER, a:b], lane[SCALE, a:b]
                g = upstream[at.image + j, FP, c]
                g2 = np.float32(2.0) * upstream[at.image + j, FP2, c]
                if ask.squares:
                    for i in range(len(row)):
                        inner[i] += row[i] * (g + g2 * row[i] * scale[i])
                else:
                    for i in range(len(row)):
                        inner[i] += row[i] * g
    if ask.spread:
        for j in range(at.pieces):
            part = lane[OWN, j * at.length : (j + 1) * at.length]
            g = total(upstream[at.image + j, SPREAD])
            for i in range(len(part)):
                part[i] = g
    for i in range(LANES):
        weight, hit, miss, scale = lane[WEIGHT, i], lane[HIT, i], lane[MISS, i], lane[SCALE, i]
        inner = lane[INNER, i] * scale
        q = -lane[REST, i]
        pull = lane[PULL, i] + weight * lane[OWN, i]
        lane[PUSH, i] = scale * (pull - weight * (inner + hit * q))
        lane[OWN_PUSH, i] = weight * hit * (q * miss - inner) - pull * miss + weight * lane[OWN, i]


# ------------------------------------------------------------------------- one channel: sigmoid, soft targets


@njit(**FAST)
def split_weight(lane):  # type: ignore[no-untyped-def]
    for i in range(LANES):
        lane[YES, i] = lane[LIVE, i] * lane[TARGET, i]
        lane[NO, i] = lane[LIVE, i] * (np.float32(1.0) - lane[TARGET, i])


@njit(**FAST)
def add_channel(ask, at, lane, channel, both, partial):  # type: ignore[no-untyped-def]
    """The sums of one channel from P, Q = 1 − P, the surprises and the shares; `both` counts the event "no" as well."""
    split_weight(lane)
    curves = len(ask.gammas)
    for j in range(at.pieces):
        a, b = j * at.length, (j + 1) * at.length
        out = partial[at.slot + j]
        weight, yes, no, p, o = lane[LIVE, a:b], lane[YES, a:b], lane[NO, a:b], lane[P, a:b], lane[Q, a:b]
        out[N, channel] += total(weight)
        out[T, channel] += total(yes)
        out[TT, channel] += dot(yes, lane[TARGET, a:b])
        if ask.errors:
            out[FP, channel] += dot(no, p)
            out[FN, channel] += dot(yes, o)
        if ask.squares:
            out[FP2, channel] += dot3(no, p, p)
            out[FN2, channel] += dot3(yes, o, o)
        if ask.spread:
            out[SPREAD, channel] += dot(weight, lane[U_YES, a:b])
            if both:
                out[SPREAD_NO, channel] += dot(weight, lane[U_NO, a:b])
    for k in range(curves):
        curve(ask.gammas[k], lane[U_YES], lane[Q], lane[VALUE])
        add_curve(lane[YES], lane[VALUE], at, partial, CURVES + k, channel)
        if both:
            curve(ask.gammas[k], lane[U_NO], lane[P], lane[VALUE])
            add_curve(lane[NO], lane[VALUE], at, partial, CURVES + curves + k, channel)


@njit(**FAST)
def add_curve(share, value, at, partial, row, channel):  # type: ignore[no-untyped-def]
    for j in range(at.pieces):
        a, b = j * at.length, (j + 1) * at.length
        partial[at.slot + j, row, channel] += dot_where(share[a:b], value[a:b])


@njit(**FAST)
def curve_pull(ask, at, lane, channel, upstream, row, u, o, p, share, out):  # type: ignore[no-untyped-def]
    """out += share · Σ_curves G f'(u)"""
    for k in range(len(ask.gammas)):
        curve_slope(ask.gammas[k], lane[u], lane[o], lane[p], lane[VALUE])
        for j in range(at.pieces):
            a, b = j * at.length, (j + 1) * at.length
            g = upstream[at.image + j, row + k, channel]
            part, w, slope = lane[out, a:b], lane[share, a:b], lane[VALUE, a:b]
            for i in range(len(part)):
                part[i] += w[i] * g * slope[i]


@njit(**FAST)
def sigmoid_events(lane):  # type: ignore[no-untyped-def]
    """P = σ(z), Q = σ(−z) and their surprises, each from its own exponential tail."""
    for i in range(LANES):
        z = lane[LOGIT, i]
        tail = exp(-abs(z))
        large = np.float32(1.0) / (np.float32(1.0) + tail)
        small = tail * large
        lane[P, i] = large if z >= 0 else small
        lane[Q, i] = small if z >= 0 else large
        lane[VALUE, i] = tail
    for i in range(LANES):
        lane[VALUE, i] = log1p(lane[VALUE, i])
    for i in range(LANES):
        z = lane[LOGIT, i]
        lane[U_YES, i] = lane[VALUE, i] + (-z if z < 0 else np.float32(0.0))
        lane[U_NO, i] = lane[VALUE, i] + (z if z > 0 else np.float32(0.0))


@njit(**FAST)
def load_channel(grid, logits, pixels, at, channel, one_vs_rest, lane, limits):  # type: ignore[no-untyped-def]
    """LOGIT, TARGET and LIVE (the weight) of one channel."""
    count = at.pieces * at.length
    load(logits, at, channel, lane[LOGIT])
    load_target(pixels, at, channel, lane[TARGET])
    for i in range(LANES):
        lane[LIVE, i] = lane[WEIGHT, i]
    inert = drop_ignored(pixels.ignore, count, lane[TARGET], lane[LIVE])
    widen_limits(count, lane[LIVE], lane[TARGET], limits)
    if inert > 0:
        clear_ignored(lane[LIVE], lane[LOGIT])
        clear_ignored(lane[LIVE], lane[TARGET])
    if one_vs_rest:
        mine = np.float32(channel)
        for i in range(LANES):
            lane[TARGET, i] = np.float32(1.0) if lane[TARGET, i] == mine else np.float32(0.0)


@njit(**KERNEL)
def sigmoid_sums(start, stop, grid, logits, pixels, one_vs_rest, ask, partial, limits, u):  # type: ignore[no-untyped-def]
    lane = np.empty((LANE_ROWS, LANES), np.float32)
    for chunk in range(start, stop):
        slot, image, pieces, first, last = place(grid, chunk)
        for begin in range(first, last, LANES):
            at = Place(slot, image, pieces, begin, min(LANES, last - begin))
            load_weights(pixels, grid, at, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, pixels, at, c, one_vs_rest, lane, limits[chunk])
                sigmoid_events(lane)
                add_channel(ask, at, lane, c, True, partial)
                if len(u) > 0:
                    for i in range(LANES):
                        event = lane[U_YES, i] if lane[TARGET, i] != 0 else lane[U_NO, i]
                        lane[VALUE, i] = event if lane[LIVE, i] != 0 else np.float32(0.0)
                    for j in range(pieces):
                        there = ((image + j) * grid.channels + c) * grid.pixels + begin
                        u[there : there + at.length] = lane[VALUE, j * at.length : (j + 1) * at.length]


@njit(**KERNEL)
def sigmoid_gradient(  # type: ignore[no-untyped-def]
    start, stop, grid, logits, pixels, one_vs_rest, ask, upstream, upstream_u, out
):
    """With a = z for "no" and −z for "yes", ∂/∂a = o ((1−o)(G + 2 o G2) share + share · Σ G f'(u) + w G_spread)."""
    lane = np.empty((LANE_ROWS, LANES), np.float32)
    limits = np.empty(2)
    curves = len(ask.gammas)
    for chunk in range(start, stop):
        slot, image, pieces, first, last = place(grid, chunk)
        for begin in range(first, last, LANES):
            at = Place(slot, image, pieces, begin, min(LANES, last - begin))
            load_weights(pixels, grid, at, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, pixels, at, c, one_vs_rest, lane, limits)
                sigmoid_events(lane)
                split_weight(lane)
                for j in range(pieces):
                    a, b = j * at.length, (j + 1) * at.length
                    g = upstream[image + j, :, c]
                    event_slope(lane[YES, a:b], lane[LIVE, a:b], lane[P, a:b], lane[Q, a:b],
                                g[FN], g[FN2], g[SPREAD], lane[SLOPE, a:b])  # fmt: skip
                    event_slope(lane[NO, a:b], lane[LIVE, a:b], lane[Q, a:b], lane[P, a:b],
                                g[FP], g[FP2], g[SPREAD_NO], lane[SLOPE_NO, a:b])  # fmt: skip
                curve_pull(ask, at, lane, c, upstream, CURVES, U_YES, Q, P, YES, SLOPE)
                curve_pull(ask, at, lane, c, upstream, CURVES + curves, U_NO, P, Q, NO, SLOPE_NO)
                if len(upstream_u) > 0:
                    for j in range(pieces):
                        there = ((image + j) * grid.channels + c) * grid.pixels + begin
                        lane[VALUE, j * at.length : (j + 1) * at.length] = upstream_u[there : there + at.length]
                    clear_ignored(lane[LIVE], lane[VALUE])
                    for i in range(LANES):
                        lane[SLOPE, i] += lane[VALUE, i] * lane[TARGET, i]
                        lane[SLOPE_NO, i] += lane[VALUE, i] * (np.float32(1.0) - lane[TARGET, i])
                for i in range(LANES):
                    lane[VALUE, i] = lane[P, i] * lane[SLOPE_NO, i] - lane[Q, i] * lane[SLOPE, i]
                store(out, at, c, lane[VALUE])


@njit(**FAST)
def event_slope(share, weight, p, o, g, g2, spread, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = share[i] * p[i] * (g + np.float32(2.0) * o[i] * g2)
    for i in range(len(out)):
        out[i] += weight[i] * spread


# ------------------------------------------------------------------------------------- softmax, soft targets


@njit(**FAST)
def load_soft(grid, logits, pixels, at, rows, shares, depth, lane, limits):  # type: ignore[no-untyped-def]
    """rows: exps without the likeliest class (LABEL), shares: the target, depth: peak − logit."""
    count = at.pieces * at.length
    inert = 0
    for c in range(grid.channels):
        load_target(pixels, at, c, shares[c])
        inert = drop_ignored(pixels.ignore, count, shares[c], lane[WEIGHT])
    for c in range(grid.channels):
        widen_limits(count, lane[WEIGHT], shares[c], limits)
        if inert > 0:
            clear_ignored(lane[WEIGHT], shares[c])
    load_rows(logits, grid, at, rows, lane, inert)
    for i in range(LANES):
        lane[LABEL, i] = np.float32(0.0)
        lane[LIVE, i] = lane[WEIGHT, i]
    for c in range(grid.channels):
        mine = np.float32(c)
        for i in range(LANES):
            depth[c, i] = lane[PEAK, i] - rows[c, i]
        for i in range(LANES):
            lane[LABEL, i] = mine if rows[c, i] == lane[PEAK, i] else lane[LABEL, i]
    exponentiate(rows, lane, count)
    finish_pixels(lane)
    surprise(lane)  # leaves the logarithm of the sum of exps in VALUE


@njit(**FAST)
def soft_event(lane, channel, exps, depth):  # type: ignore[no-untyped-def]
    """P, Q and U_YES of one class. Only the likeliest class can have 1 − p near 0, and for it the rest is at hand."""
    mine = np.float32(channel)
    for i in range(LANES):
        p = exps[i] * lane[SCALE, i]
        lane[P, i] = lane[HIT, i] if lane[LABEL, i] == mine else p
        lane[Q, i] = lane[MISS, i] if lane[LABEL, i] == mine else np.float32(1.0) - p
    for i in range(LANES):
        lane[U_YES, i] = lane[U, i] + depth[i]


@njit(**KERNEL)
def soft_sums(start, stop, grid, logits, pixels, ask, partial, limits):  # type: ignore[no-untyped-def]
    rows = np.empty((grid.channels, LANES), np.float32)
    shares = np.empty((grid.channels, LANES), np.float32)
    depth = np.empty((grid.channels, LANES), np.float32)
    lane = np.empty((LANE_ROWS, LANES), np.float32)
    for chunk in range(start, stop):
        slot, image, pieces, first, last = place(grid, chunk)
        for begin in range(first, last, LANES):
            at = Place(slot, image, pieces, begin, min(LANES, last - begin))
            load_weights(pixels, grid, at, lane[WEIGHT])
            load_soft(grid, logits, pixels, at, rows, shares, depth, lane, limits[chunk])
            for c in range(grid.channels):
                soft_event(lane, c, rows[c], depth[c])
                for i in range(LANES):
                    lane[TARGET, i] = shares[c, i]
                add_channel(ask, at, lane, c, False, partial)


@njit(**KERNEL)
def soft_gradient(start, stop, grid, logits, pixels, ask, upstream, out):  # type: ignore[no-untyped-def]
    """∂/∂z_k = p_k (q_k − Σ p q) + p_k Σ h − h_k, with q = w ∂/∂p and h = w ∂/∂u of each class.

    For the likeliest class, where this would cancel: p (q (1−p) − Σ_others p q) + p Σ_others h − h (1−p).
    """
    rows = np.empty((grid.channels, LANES), np.float32)
    shares = np.empty((grid.channels, LANES), np.float32)
    depth = np.empty((grid.channels, LANES), np.float32)
    lane = np.empty((LANE_ROWS, LANES), np.float32)
    limits = np.empty(2)
    for chunk in range(start, stop):
        slot, image, pieces, first, last = place(grid, chunk)
        for begin in range(first, last, LANES):
            at = Place(slot, image, pieces, begin, min(LANES, last - begin))
            load_weights(pixels, grid, at, lane[WEIGHT])
            load_soft(grid, logits, pixels, at, rows, shares, depth, lane, limits)
            for i in range(LANES):
                lane[INNER, i] = np.float32(0.0)
                lane[PULL, i] = np.float32(0.0)
            for c in range(grid.channels):
                soft_event(lane, c, rows[c], depth[c])
                for i in range(LANES):
                    lane[TARGET, i] = shares[c, i]
                split_weight(lane)
                push, pull = shares[c], depth[c]  # both have been read: q and h take their place
                for j in range(pieces):
                    a, b = j * at.length, (j + 1) * at.length
                    g = upstream[image + j, :, c]
                    class_push(lane[YES, a:b], lane[NO, a:b], lane[P, a:b], lane[Q, a:b],
                               g[FP], g[FP2], g[FN], g[FN2], push[a:b])  # fmt: skip
                    lane[SLOPE, a:b] = g[SPREAD] * lane[LIVE, a:b]
                curve_pull(ask, at, lane, c, upstream, CURVES, U_YES, Q, P, YES, SLOPE)
                mine = np.float32(c)
                for i in range(LANES):
                    pull[i] = lane[SLOPE, i]
                for i in range(LANES):
                    own = lane[LABEL, i] == mine
                    pushed = lane[P, i] * push[i]
                    lane[INNER, i] += np.float32(0.0) if own else pushed
                    lane[PULL, i] += np.float32(0.0) if own else pull[i]
                    lane[OWN_PUSH, i] = pushed if own else lane[OWN_PUSH, i]
                    lane[OWN, i] = pull[i] if own else lane[OWN, i]
            for c in range(grid.channels):
                finish_soft(lane, np.float32(c), rows[c], shares[c], depth[c])
                store(out, at, c, rows[c])


@njit(**FAST)
def class_push(yes, no, p, o, fp, fp2, fn, fn2, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = no[i] * (fp + np.float32(2.0) * p[i] * fp2)
    for i in range(len(out)):
        out[i] -= yes[i] * (fn + np.float32(2.0) * o[i] * fn2)


@njit(**FAST)
def finish_soft(lane, mine, row, push, pull):  # type: ignore[no-untyped-def]
    """The gradient of one class. INNER and PULL are sums over all but the likeliest, OWN_PUSH and OWN are its own."""
    for i in range(LANES):
        p = row[i] * lane[SCALE, i]
        row[i] = p * (push[i] - (lane[INNER, i] + lane[OWN_PUSH, i]) + (lane[PULL, i] + lane[OWN, i])) - pull[i]
    for i in range(LANES):
        hit, miss = lane[HIT, i], lane[MISS, i]
        likeliest = hit * (push[i] * miss - lane[INNER, i] + lane[PULL, i]) - pull[i] * miss
        row[i] = likeliest if lane[LABEL, i] == mine else row[i]
