"""Sums and gradient under a softmax, for hard labels. `soft.py` has soft targets."""

from __future__ import annotations

import numpy as np
from numba import njit

from .arithmetic import EXACT, FAST, GROUP, KERNEL, LANES, ONE, PASTED, TWO, ZERO, dot, dot_square, exp, log1p, multiply
from .cache import kernel
from .curves import bent, curve, curve_slope
from .pixels import (
    CURVES,
    FN,
    FN2,
    FP,
    FP2,
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
    REST,
    SCALE,
    SPREAD,
    VALUE,
    WEIGHT,
    Ask,
    Field,
    T,
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

FEW = 16  # up to this many classes, comparing each with the label is faster than jumping to the label's row


@njit(**FAST)
def exponentiate(rows, lane, groups):
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
def finish_pixels(lane, groups):
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


@njit(**FAST)
def load_chances(known, grid, logits, block, rows, lane):
    """rows: exps of the classes, 0 for the label; SCALE makes them p; HIT, MISS: p and 1 − p of the label."""
    load_weights(known, grid, block, lane[WEIGHT])
    ignored = load_labels(known, grid, block, lane)
    load_rows(logits, block, rows, lane, ignored)
    exponentiate(rows, lane, block.groups)
    finish_pixels(lane, block.groups)


@njit(**EXACT)
def surprise(lane, groups):
    """u = log(sum of exps) + (peak − logit), exact at both ends."""
    for i in range(GROUP * groups):
        lane[LOG_SUM, i] = log1p(lane[LOG_SUM, i])
    for i in range(GROUP * groups):
        lane[U, i] = lane[LOG_SUM, i] - lane[OWN, i]


@njit(**FAST)
def add_by_label(values, label, groups, out):
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
def pick_by_label(table, label, groups, out):
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
def add_softmax(ask, rows, lane, groups, out):
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
def sums(start, stop, rows, lane, grid, logits, known, ask, partial, limits, u):
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
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
def label_pull(ask, lane, groups, upstream):
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
def region_push(ask, rows, lane, groups, upstream):
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
def class_gradient(ask, row, mine, lane, groups, upstream):
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
def gradient(start, stop, rows, lane, grid, logits, known, ask, upstream, upstream_u, out):
    grid, logits, known = named(grid, logits, known)
    ask = Ask(*ask)
    out = Field(*out)
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            load_chances(known, grid, logits, block, rows, lane)
            load_upstream(upstream_u, image * grid.pixels + begin, block, lane[WEIGHT], lane[PULL])
            label_pull(ask, lane, groups, upstream[image])
            region_push(ask, rows, lane, groups, upstream[image])
            for c in range(grid.channels):
                class_gradient(ask, rows[c], np.float32(c), lane, groups, upstream[image])
                store(out, block, c, rows[c])
