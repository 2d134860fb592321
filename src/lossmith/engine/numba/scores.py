"""Sums and gradient under a softmax where an image is a single pixel: logits (N, C) and hard labels.

The formulas are those of `softmax.py`. There a block is part of one image, and 63 of its lanes would be padding; here
every lane is an image, so that the sums are not summed, and the upstream gradients differ from lane to lane. The table
of sums is as large as the logits for each of its rows: it begins with the row, and has those alone that are wanted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from .arithmetic import EXACT, FAST, GROUP, KERNEL, LANES, PASTED, TWO, ZERO, multiply
from .cache import kernel
from .curves import curve, curve_slope
from .pixels import (
    HIT,
    INNER,
    LABEL,
    LOG_SUM,
    MISS,
    OWN,
    OWN_PUSH,
    PEAK,
    PULL,
    PUSH,
    SCALE,
    SLOPE,
    VALUE,
    WEIGHT,
    Ask,
    Field,
    U,
    block_of,
    clear_ignored,
    load_labels,
    load_rows,
    load_upstream,
    load_weights,
    named,
    reset_limits,
    save,
    save_limits,
    share_of,
    store,
)
from .softmax import exponentiate, finish_pixels, load_chances, surprise


class Rows(NamedTuple):
    """Where the table has which sum: those that are wanted, one after the other, and then T."""

    fp: int
    fn: int
    fp2: int
    fn2: int
    spread: int
    curves: int
    t: int


@njit(**EXACT)
def rows_of(ask):
    fp2 = 2 if ask.errors else 0
    spread = fp2 + (2 if ask.squares else 0)
    curves = spread + (1 if ask.spread else 0)
    return Rows(0, 1, fp2, fp2 + 1, spread, curves, curves + ask.curves)


@njit(**FAST)
def add_each(values, block, row, c, table):
    for i in range(block.size):
        table[row, block.begin + i, c] += values[i]


@njit(**FAST)
def add_each_by_label(values, label, block, row, table):
    for i in range(block.size):
        table[row, block.begin + i, np.int64(label[i])] += values[i]


@njit(**FAST)
def load_each(table, block, row, c, out):
    """A row of the upstream gradients for a class, 0 in the padding."""
    for i in range(GROUP * block.groups):
        out[i] = ZERO
    for i in range(block.size):
        out[i] = table[row, block.begin + i, c]


@njit(**FAST)
def load_each_by_label(table, label, block, row, out):
    for i in range(GROUP * block.groups):
        out[i] = ZERO
    for i in range(block.size):
        out[i] = table[row, block.begin + i, np.int64(label[i])]


@njit(**PASTED)
def add_scores(ask, at, rows, lane, block, table):
    groups = block.groups
    for row in range(table.shape[0]):
        if row == at.t:
            for i in range(GROUP * groups):
                lane[VALUE, i] = lane[WEIGHT, i]
        elif (row == at.fn and ask.errors) or (row == at.fn2 and ask.squares):
            multiply(lane[WEIGHT], lane[MISS], lane[VALUE], groups)
            if row == at.fn2:
                multiply(lane[VALUE], lane[MISS], lane[VALUE], groups)
        elif row >= at.curves:
            curve(ask.shapes, row - at.curves, lane[U], lane[MISS], lane[VALUE], groups)
            multiply(lane[VALUE], lane[WEIGHT], lane[VALUE], groups)
        else:
            continue
        add_each_by_label(lane[VALUE], lane[LABEL], block, row, table)
    multiply(lane[WEIGHT], lane[SCALE], lane[PUSH], groups)
    if ask.errors:
        for c in range(len(rows)):
            multiply(rows[c], lane[PUSH], lane[VALUE], groups)
            add_each(lane[VALUE], block, at.fp, c, table)
    if ask.squares:
        multiply(lane[PUSH], lane[SCALE], lane[PUSH], groups)
        for c in range(len(rows)):
            multiply(rows[c], rows[c], lane[VALUE], groups)
            multiply(lane[VALUE], lane[PUSH], lane[VALUE], groups)
            add_each(lane[VALUE], block, at.fp2, c, table)


@kernel(**KERNEL)
def sums(start, stop, rows, lane, grid, logits, known, ask, table, limits, u):
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
    at = rows_of(ask)
    for chunk in range(start, stop):
        _, first, end = share_of(grid, chunk)
        reset_limits(lane)
        for begin in range(first, end, LANES):
            block = block_of(0, begin, end)
            groups = block.groups
            load_weights(known, grid, block, lane[WEIGHT])
            ignored = load_labels(known, grid, block, lane)
            load_rows(logits, block, rows, lane, ignored)
            if ask.spread:
                for c in range(grid.channels):
                    for i in range(GROUP * groups):
                        lane[VALUE, i] = (lane[PEAK, i] - rows[c, i]) * lane[WEIGHT, i]
                    add_each(lane[VALUE], block, at.spread, c, table)
            exponentiate(rows, lane, groups)
            finish_pixels(lane, groups)
            surprise(lane, groups)
            if ask.spread:
                multiply(lane[LOG_SUM], lane[WEIGHT], lane[VALUE], groups)
                for c in range(grid.channels):
                    add_each(lane[VALUE], block, at.spread, c, table)
            add_scores(ask, at, rows, lane, block, table)
            if len(u) > 0:
                clear_ignored(lane[WEIGHT], lane[U], groups)
                save(lane[U], block.size, u[begin:])
        save_limits(lane, limits[chunk])


@kernel(**KERNEL)
def gradient(start, stop, rows, lane, grid, logits, known, ask, upstream, upstream_u, out):
    """`label_pull`, `region_push` and `class_gradient` of `softmax.py`; SLOPE is what is there one number, `spread`."""
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
    at = rows_of(ask)
    out = Field(*out)
    for chunk in range(start, stop):
        _, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(0, begin, end)
            groups = block.groups
            lanes = GROUP * groups
            load_chances(known, grid, logits, block, rows, lane)
            load_upstream(upstream_u, begin, block, lane[WEIGHT], lane[PULL])
            surprise(lane, groups)  # reads OWN
            for i in range(lanes):
                lane[OWN, i] = ZERO
                lane[INNER, i] = ZERO
                lane[SLOPE, i] = ZERO
            if ask.errors:
                load_each_by_label(upstream, lane[LABEL], block, at.fn, lane[OWN])
            if ask.squares:
                load_each_by_label(upstream, lane[LABEL], block, at.fn2, lane[VALUE])
                for i in range(lanes):
                    lane[OWN, i] += TWO * lane[MISS, i] * lane[VALUE, i]
            for k in range(ask.curves):
                load_each_by_label(upstream, lane[LABEL], block, at.curves + k, lane[PUSH])
                curve_slope(ask.shapes, k, lane[U], lane[MISS], lane[HIT], lane[VALUE], groups)
                multiply(lane[PUSH], lane[VALUE], lane[PUSH], groups)
                for i in range(lanes):
                    lane[PULL, i] += lane[PUSH, i] * lane[WEIGHT, i]
            for c in range(grid.channels):
                load_push(ask, at, rows[c], lane, block, c, upstream)
                for i in range(lanes):
                    lane[INNER, i] += rows[c, i] * lane[PUSH, i]
            if ask.spread:
                for i in range(block.size):
                    spread = ZERO
                    for c in range(grid.channels):
                        spread += upstream[at.spread, begin + i, c]
                    lane[SLOPE, i] = spread
            for i in range(lanes):
                weight, hit, miss, scale = lane[WEIGHT, i], lane[HIT, i], lane[MISS, i], lane[SCALE, i]
                inner, spread = lane[INNER, i] * scale, lane[SLOPE, i]
                pull = lane[PULL, i] + weight * spread
                lane[INNER, i] = scale * (pull - weight * (inner - hit * lane[OWN, i]))
                lane[OWN_PUSH, i] = weight * (spread - hit * (lane[OWN, i] * miss + inner)) - pull * miss
            for c in range(grid.channels):
                mine = np.float32(c)
                load_push(ask, at, rows[c], lane, block, c, upstream)
                for i in range(lanes):
                    other = rows[c, i] * (lane[WEIGHT, i] * lane[SCALE, i] * lane[PUSH, i] + lane[INNER, i])
                    own = lane[OWN_PUSH, i]
                    rows[c, i] = own if lane[LABEL, i] == mine else other
                if ask.spread:
                    load_each(upstream, block, at.spread, c, lane[VALUE])
                    for i in range(lanes):
                        rows[c, i] -= lane[WEIGHT, i] * lane[VALUE, i]
                store(out, block, c, rows[c])


@njit(**FAST)
def load_push(ask, at, row, lane, block, c, upstream):
    """PUSH = ∂/∂p of a class that is not the label."""
    if ask.errors:
        load_each(upstream, block, at.fp, c, lane[PUSH])
    else:
        for i in range(GROUP * block.groups):
            lane[PUSH, i] = ZERO
    if ask.squares:
        load_each(upstream, block, at.fp2, c, lane[VALUE])
        for i in range(GROUP * block.groups):
            lane[PUSH, i] += TWO * lane[VALUE, i] * row[i] * lane[SCALE, i]
