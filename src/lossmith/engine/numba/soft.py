"""Sums and gradient under a softmax, for soft targets."""

from __future__ import annotations

import numpy as np
from numba import njit

from .arithmetic import FAST, GROUP, KERNEL, LANES, ONE, TWO, ZERO
from .cache import kernel
from .pixels import (
    CURVES,
    FN,
    FN2,
    FP,
    FP2,
    HIT,
    INNER,
    LABEL,
    LIVE,
    LOG_SUM,
    MISS,
    NO,
    OWN,
    OWN_PUSH,
    PEAK,
    PULL,
    SCALE,
    SLOPE,
    SPREAD,
    TARGET,
    U_YES,
    WEIGHT,
    YES,
    Ask,
    Field,
    P,
    Q,
    block_of,
    clamp,
    clear_ignored,
    drop_ignored,
    load,
    load_rows,
    load_weights,
    named,
    reset_limits,
    save_limits,
    share_of,
    store,
)
from .sigmoid import add_channel, pixel_slope, split_weight
from .softmax import exponentiate, finish_pixels, surprise


@njit(**FAST)
def load_soft(grid, logits, known, block, rows, shares, depth, lane):
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
def soft_event(lane, groups, mine, exps, share, depth):
    """P, Q, U_YES and TARGET of a class. Only the likeliest can have 1 − p near 0, and for it that is at hand."""
    for i in range(GROUP * groups):
        p, hit, miss, likeliest = exps[i] * lane[SCALE, i], lane[HIT, i], lane[MISS, i], lane[LABEL, i] == mine
        lane[P, i] = hit if likeliest else p
        lane[Q, i] = miss if likeliest else ONE - p
    for i in range(GROUP * groups):
        lane[U_YES, i] = lane[LOG_SUM, i] + depth[i]
        lane[TARGET, i] = share[i]


@kernel(**KERNEL)
def sums(start, stop, scratch, lane, grid, logits, known, ask, partial, limits):
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
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
def gradient(start, stop, scratch, lane, grid, logits, known, ask, upstream, out):
    """∂/∂z_k = p_k (q_k − Σ p q) + p_k Σ h − h_k, with q = w ∂/∂p and h = w ∂/∂u of each class.

    For the likeliest class, where this would cancel: p (q (1−p) − Σ_others p q) + p Σ_others h − h (1−p).
    """
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
    out = Field(*out)
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
def class_push(lane, groups, mine, upstream, q, h):
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
def finish_soft(lane, groups, mine, row, q, h):
    """The exps of a class to its gradient."""
    for i in range(GROUP * groups):
        inner, pull = lane[INNER, i] + lane[OWN_PUSH, i], lane[PULL, i] + lane[OWN, i]
        row[i] = row[i] * lane[SCALE, i] * (q[i] - inner + pull) - h[i]
    for i in range(GROUP * groups):
        miss = lane[MISS, i]
        likeliest, other = lane[HIT, i] * (q[i] * miss - lane[INNER, i] + lane[PULL, i]) - h[i] * miss, row[i]
        row[i] = likeliest if lane[LABEL, i] == mine else other
