"""In and out: blocks of pixels, their weights and labels, and which of them count: the one definition in kernels."""

from __future__ import annotations

import numpy as np
from numba import njit

from .arithmetic import narrow, widen
from .layout import EXACT, FAST, GROUP, HIGH, LABEL, LANES, LOW, ONE, PEAK, WEIGHT, ZERO, Block


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
