"""Sums and gradient of one channel at a time: a sigmoid, and what a soft target under a softmax shares with it."""

from __future__ import annotations

import numpy as np
from numba import njit

from .arithmetic import (
    FAST,
    GROUP,
    KERNEL,
    LANES,
    ONE,
    TWO,
    ZERO,
    dot,
    dot_square,
    dot_where,
    exp,
    log1p,
    multiply,
    total,
)
from .cache import kernel
from .curves import curve, curve_slope
from .pixels import (
    CURVES,
    FN,
    FN2,
    FP,
    FP2,
    LIVE,
    LOGIT,
    NO,
    PULL,
    SLOPE,
    SLOPE_NO,
    SPREAD,
    SPREAD_NO,
    TARGET,
    TT,
    U_NO,
    U_YES,
    VALUE,
    WEIGHT,
    YES,
    Ask,
    Field,
    N,
    P,
    Q,
    T,
    block_of,
    clamp,
    clear_ignored,
    drop_ignored,
    load,
    load_upstream,
    load_weights,
    named,
    reset_limits,
    save,
    save_limits,
    share_of,
    store,
)


@njit(**FAST)
def split_weight(lane, groups):
    for i in range(GROUP * groups):
        lane[YES, i] = lane[LIVE, i] * lane[TARGET, i]
        lane[NO, i] = lane[LIVE, i] * (ONE - lane[TARGET, i])


@njit(**FAST)
def add_channel(ask, lane, groups, both, out):
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
def pixel_slope(ask, lane, groups, upstream, share, u, o, p, out, spread, curves):
    """out = w · ∂/∂u of an event; the arguments name rows, of `lane` and then of `upstream`."""
    for i in range(GROUP * groups):
        lane[out, i] = lane[LIVE, i] * upstream[spread]
    for k in range(ask.curves):
        curve_slope(ask.shapes, k, lane[u], lane[o], lane[p], lane[VALUE], groups)
        multiply(lane[VALUE], lane[share], lane[VALUE], groups)
        for i in range(GROUP * groups):
            lane[out, i] += lane[VALUE, i] * upstream[curves + k]


@njit(**FAST)
def load_channel(grid, logits, known, block, channel, one_vs_rest, lane):
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
def chances(lane, groups):
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
def sigmoid_events(lane, groups):
    """P = σ(z), Q = σ(−z) and their surprises."""
    chances(lane, groups)
    for i in range(GROUP * groups):
        lane[VALUE, i] = log1p(lane[VALUE, i])
    for i in range(GROUP * groups):
        z = lane[LOGIT, i]
        lane[U_YES, i] = lane[VALUE, i] + (-z if z < 0 else ZERO)
        lane[U_NO, i] = lane[VALUE, i] + (z if z > 0 else ZERO)


@kernel(**KERNEL)
def sums(start, stop, rows, lane, grid, logits, known, one_vs_rest, ask, partial, limits, u):
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
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
def gradient(start, stop, rows, lane, grid, logits, known, one_vs_rest, ask, upstream, upstream_u, out):
    """With a = z for "no" and −z for "yes", ∂/∂a = o (h + share · (1−o) (G + 2 o G2)), where h = w ∂/∂u."""
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
    out = Field(*out)
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
def channel_gradient(lane, groups, upstream):
    """LOGIT = ∂/∂logit of a channel under a sigmoid."""
    fp, fn, fp2, fn2 = upstream[FP], upstream[FN], TWO * upstream[FP2], TWO * upstream[FN2]
    for i in range(GROUP * groups):
        no = lane[SLOPE_NO, i] + lane[PULL, i] * (ONE - lane[TARGET, i])
        lane[LOGIT, i] = lane[P, i] * (no + lane[NO, i] * lane[Q, i] * (fp + lane[P, i] * fp2))
    for i in range(GROUP * groups):
        yes = lane[SLOPE, i] + lane[PULL, i] * lane[TARGET, i]
        lane[LOGIT, i] -= lane[Q, i] * (yes + lane[YES, i] * lane[P, i] * (fn + lane[Q, i] * fn2))
