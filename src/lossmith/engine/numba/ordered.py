"""Errors in order: their histogram, and the gradient from a table over its slots. See `ranking.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .arithmetic import FAST, GROUP, HALF, KERNEL, LANES, ONE, TWO, ZERO
from .cache import kernel
from .pixels import (
    HIT,
    INNER,
    LABEL,
    LIVE,
    LOGIT,
    MISS,
    OWN,
    OWN_PUSH,
    PUSH,
    SCALE,
    SLOPE,
    TARGET,
    VALUE,
    WEIGHT,
    Field,
    P,
    Q,
    block_of,
    clear_ignored,
    load_weights,
    named,
    share_of,
    store,
)
from .sigmoid import chances, load_channel
from .softmax import load_chances


class Slots(NamedTuple):
    """The histogram of errors: what it counts, and how an error finds its slot."""

    bins: int
    per_image: bool
    factor: Any  # (images,): whole numbers that a pixel of weight 1 counts
    scale: Any  # (groups, channels): levels per error


@njit(**FAST)
def slot_of(e, scale, bound):
    """0 for 0 and below, 1 + the nearest level, the last for NaN."""
    x = e * scale + np.float32(1.5)
    x = x if x < bound else bound
    return np.int32(ZERO if e <= 0 else x)


@njit(**FAST)
def find_slots(slots, scale, inside, errors, places, groups):
    """The slots of foreground follow those of background. `inside` is 1 for foreground, 0 for background."""
    bound, half = np.float32(slots.bins + 2), np.float32(slots.bins + 3)
    for i in range(GROUP * groups):
        places[i] = slot_of(errors[i], scale, bound) + np.int32(half * inside[i])


@njit(**FAST)
def find_class_slots(slots, scale, lane, row, mine, places, groups):
    """The same of |r − p| of a class under a softmax."""
    bound, half = np.float32(slots.bins + 2), np.int32(slots.bins + 3)
    for i in range(GROUP * groups):
        p, miss, hit = row[i] * lane[SCALE, i], lane[MISS, i], lane[LABEL, i] == mine
        e = miss if hit else p
        places[i] = slot_of(e, scale, bound) + (half if hit else np.int32(0))


@njit(**FAST)
def count_weights(weight, factor, amounts, groups):
    """Weights as whole numbers: their sums do not depend on the order, nor on the number of threads."""
    for i in range(GROUP * groups):
        amounts[i] = weight[i] * factor


@njit(**FAST)
def add_to_slots(histogram, places, amounts, groups):
    for i in range(GROUP * groups):
        histogram[np.uint32(places[i])] += amounts[i]


@njit(**FAST)
def look_up(table, places, out, groups):
    for i in range(GROUP * groups):
        out[i] = table[np.uint32(places[i])]


@kernel(**KERNEL)
def softmax_histogram(start, stop, rows, lane, places, amounts, histogram, grid, logits, known, slots):
    grid, logits, known = named(grid, logits, known)
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        g = image if slots.per_image else 0
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_chances(known, grid, logits, block, rows[0], lane)
            count_weights(lane[WEIGHT], slots.factor[image], amounts, block.groups)
            for c in range(grid.channels):
                find_class_slots(slots, slots.scale[g, c], lane, rows[0, c], np.float32(c), places, block.groups)
                add_to_slots(histogram[g, c], places, amounts, block.groups)


@kernel(**KERNEL)
def softmax_charge(start, stop, rows, lane, places, grid, logits, known, slots, table, out):
    """∂/∂z_k = p_k (q_k − Σ p q), where q is what the table charges: for the label − that, and without cancellation."""
    grid, logits, known = named(grid, logits, known)
    out = Field(*out)
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
                mine = np.float32(c)
                find_class_slots(slots, slots.scale[g, c], lane, p[c], mine, places, block.groups)
                look_up(table[g, c], places, q[c], block.groups)
                for i in range(lanes):
                    own, charge = lane[OWN, i], q[c, i]
                    p[c, i] *= lane[SCALE, i]  # 0 for the label
                    lane[INNER, i] += p[c, i] * charge
                    lane[OWN, i] = charge if lane[LABEL, i] == mine else own
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
def channel_errors(hinge, lane, groups):
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
def largest_errors(start, stop, rows, lane, places, grid, logits, known, one_vs_rest, largest):
    """Of a hinge, per chunk and channel; at least 0, NaN left out."""
    grid, logits, known = named(grid, logits, known)
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
def sigmoid_histogram(
    start, stop, rows, lane, places, amounts, histogram, grid, logits, known, one_vs_rest, hinge, slots
):
    grid, logits, known = named(grid, logits, known)
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
def sigmoid_charge(start, stop, rows, lane, places, grid, logits, known, one_vs_rest, hinge, slots, table, out):
    grid, logits, known = named(grid, logits, known)
    out = Field(*out)
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
