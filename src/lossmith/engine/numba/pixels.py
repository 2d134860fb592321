"""Pixels on their way between tensors and the scratch of a kernel: blocks, weights, labels, and what is ignored."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .arithmetic import EXACT, FAST, GROUP, LANES, ONE, ZERO, narrow, widen

# Rows of `partial` and of the upstream gradients: the sums of `Stats`. Under a sigmoid a curve takes two: yes and no.
N, T, TT, FP, FN, FP2, FN2, SPREAD, SPREAD_NO, CURVES = range(10)

# Rows of `lane`. Softmax: "own" is the pixel's label, or the likeliest class if the target is soft.
WEIGHT, LABEL, PEAK, OWN, REST, SCALE, HIT, MISS, U, LOG_SUM, VALUE, INNER, PULL, PUSH, OWN_PUSH, LOW, HIGH = range(17)
# Sigmoid, and one class of a soft target: the events "yes" and "no", their surprise and their share of the weight.
LIVE, TARGET, LOGIT, YES, NO, P, Q, U_YES, U_NO, SLOPE, SLOPE_NO, LANE_ROWS = range(17, 29)

# What the kernels are given, as plain tuples, which Numba recognises in a tenth of the time that it takes for named
# ones; they are named inside. Where it may be None, that is a type of its own: they are then compiled without the loops
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
    shapes: Any  # (curves, 2): the kind of each `Curve`, a number from `curves.py`, and its x. None: all are straight


class Block(NamedTuple):
    """`size` pixels of an image from `begin`, padded to 64 · `groups` lanes."""

    image: int
    begin: int
    size: int
    groups: int


@njit(**EXACT)
def named(grid, logits, known):
    return Grid(*grid), Field(*logits), Known(Field(*known[0]), known[1], known[2], known[3])


@njit(**EXACT)
def share_of(grid, chunk):
    """Image, first pixel and end of a chunk."""
    image = chunk // grid.chunks_per_image
    start = (chunk % grid.chunks_per_image) * grid.chunk
    stop = start + grid.chunk
    return image, start, stop if stop < grid.pixels else grid.pixels


@njit(**EXACT)
def block_of(image, begin, end):
    count = LANES if end - begin > LANES else end - begin
    return Block(image, begin, count, (count + GROUP - 1) // GROUP)


@njit(**FAST)
def start_of(field, block, channel, pixel):
    """Where a block begins in the tensor's memory: slice first, since LLVM vectorises an index that counts from 0."""
    step = 1 if pixel is None else pixel
    return block.image * field.image + channel * field.channel + block.begin * step


@njit(**FAST)
def load_pixels(source, pixel, count, out):
    if pixel is None:
        for i in range(count):
            out[i] = widen(source[i])
    else:
        for i in range(count):
            out[i] = widen(source[i * pixel])


@njit(**FAST)
def save(values, count, target):
    for i in range(count):
        target[i] = values[i]


@njit(**FAST)
def store_pixels(values, pixel, count, target):
    if pixel is None:
        for i in range(count):
            target[i] = narrow(values[i], target)
    else:
        for i in range(count):
            target[i * pixel] = narrow(values[i], target)


@njit(**FAST)
def load(field, block, channel, out):
    """One channel of a block, as float32. What is in the padding stays there: `clear_ignored` takes care of it."""
    load_pixels(field.flat[start_of(field, block, channel, field.pixel) :], field.pixel, block.size, out)


@njit(**FAST)
def store(field, block, channel, values):
    store_pixels(values, field.pixel, block.size, field.flat[start_of(field, block, channel, field.pixel) :])


@njit(**FAST)
def load_weights(known, grid, block, weight):
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
def load_labels(known, grid, block, lane):
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
def drop_ignored(ignore, target, weight, lane, groups):
    """Weight 0 where the target says "ignore". LOW and HIGH follow the smallest and largest valid target."""
    ignored = np.float32(ignore)
    for i in range(GROUP * groups):
        w, x, low, high = weight[i], target[i], lane[LOW, i], lane[HIGH, i]
        w = w if x != ignored else ZERO
        lane[LOW, i] = x if (w != 0) & (x < low) else low
        lane[HIGH, i] = x if (w != 0) & (x > high) else high
        weight[i] = w


@njit(**FAST)
def reset_limits(lane):
    for i in range(LANES):
        lane[LOW, i] = np.float32(np.inf)
        lane[HIGH, i] = np.float32(-np.inf)


@njit(**FAST)
def save_limits(lane, limits):
    limits[0], limits[1] = np.inf, -np.inf
    for i in range(LANES):
        low, high = np.float64(lane[LOW, i]), np.float64(lane[HIGH, i])
        limits[0] = low if low < limits[0] else limits[0]
        limits[1] = high if high > limits[1] else limits[1]


@njit(**FAST)
def clear_ignored(weight, values, groups):
    for i in range(GROUP * groups):
        value = values[i]
        values[i] = value if weight[i] != 0 else ZERO


@njit(**FAST)
def clamp(values, groups):
    """To 0 … 1. Soft labels may leave it by a little, and the caller raises if it is more. A NaN survives."""
    for i in range(GROUP * groups):
        value = values[i]
        value = ZERO if value < 0 else value
        values[i] = ONE if value > 1 else value


@njit(**FAST)
def load_rows(logits, block, rows, lane, ignored):
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


@njit(**FAST)
def load_upstream(values, there, block, weight, out):
    """The gradient with respect to u: 0 without one, and at an ignored pixel."""
    for i in range(GROUP * block.groups):
        out[i] = ZERO
    if len(values) > 0:
        source = values[there:]
        for i in range(block.size):
            out[i] = source[i]
        clear_ignored(weight, out, block.groups)
