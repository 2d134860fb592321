"""Sums over a map: p, p − r or (p − r)², times a price for each class of each pixel. See `maps.py`.

The gradient with respect to p is q = w · price · (1, or 2 (p − r)). Under a softmax ∂/∂z_k = p_k (q_k − Σ p q), where q
may be shifted by any number: less that of the label (of the likeliest class of a soft target) nothing cancels for it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .arithmetic import FAST, GROUP, KERNEL, LANES, ONE, TWO, ZERO, dot, dot_square
from .cache import kernel
from .pixels import (
    HIT,
    INNER,
    LABEL,
    LIVE,
    LOGIT,
    MISS,
    OWN,
    PULL,
    PUSH,
    SCALE,
    TARGET,
    VALUE,
    WEIGHT,
    Field,
    P,
    Q,
    block_of,
    load_weights,
    named,
    share_of,
    start_of,
    store,
)
from .sigmoid import chances, load_channel
from .soft import load_soft
from .softmax import load_chances

CHANCE, RESIDUAL, SQUARE = range(3)  # the errors, in the order of `contract.Error`


@njit(**FAST)
def load_prices(price, block, channel, weight, out):
    """The price of each pixel times its weight: 0 where that is 0, whatever the map holds there."""
    source = price.flat[start_of(price, block, channel, price.pixel) :]
    for i in range(block.size):
        w = weight[i]
        x = w * source[i]
        out[i] = x if w != 0 else ZERO
    for i in range(block.size, GROUP * block.groups):
        out[i] = ZERO


@njit(**FAST)
def add_errors(error, lane, groups):
    """Σ price · error"""
    if error == SQUARE:
        return dot_square(lane[PULL], lane[VALUE], groups)
    return dot(lane[PULL], lane[VALUE], groups)


@njit(**FAST)
def pulls(error, upstream, lane, groups, q):
    """q, the gradient with respect to p."""
    if error == SQUARE:
        for i in range(GROUP * groups):
            q[i] = TWO * upstream * lane[PULL, i] * lane[VALUE, i]
    else:
        for i in range(GROUP * groups):
            q[i] = upstream * lane[PULL, i]


@njit(**FAST)
def load_classes(grid, logits, known, soft, block, scratch, lane):
    """Exps of the classes in scratch[0], 0 for the label; of a soft target the shares in scratch[1] and the likeliest
    class for a label."""
    if soft is None:
        load_chances(known, grid, logits, block, scratch[0], lane)
    else:
        load_soft(grid, logits, known, block, scratch[0], scratch[1], scratch[2], lane)


@njit(**FAST)
def class_errors(error, soft, mine, exps, share, lane, groups):
    """VALUE = p, or p − r of a class as (1 − r) p − r (1 − p), which does not cancel: of the label − (1 − p)."""
    if soft is None or error == CHANCE:
        own, sign = (HIT, ONE) if error == CHANCE else (MISS, -ONE)
        for i in range(GROUP * groups):
            label, other = sign * lane[own, i], exps[i] * lane[SCALE, i]
            lane[VALUE, i] = label if lane[LABEL, i] == mine else other
    else:
        for i in range(GROUP * groups):
            p, hit, miss, likeliest = exps[i] * lane[SCALE, i], lane[HIT, i], lane[MISS, i], lane[LABEL, i] == mine
            r, q = share[i], miss if likeliest else ONE - p
            p = hit if likeliest else p
            lane[VALUE, i] = (ONE - r) * p - r * q


@kernel(**KERNEL)
def softmax_sums(start, stop, scratch, lane, grid, logits, known, soft, price, error, partial):
    grid, logits, known = named(grid, logits, known)
    price = Field(*price)
    rows, shares = scratch[0], scratch[1]
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_classes(grid, logits, known, soft, block, scratch, lane)
            for c in range(grid.channels):
                load_prices(price, block, c, lane[WEIGHT], lane[PULL])
                class_errors(error, soft, np.float32(c), rows[c], shares[c], lane, block.groups)
                partial[chunk, c] += add_errors(error, lane, block.groups)


@kernel(**KERNEL)
def softmax_gradient(start, stop, scratch, lane, grid, logits, known, soft, price, error, upstream, out):
    grid, logits, known = named(grid, logits, known)
    price, out = Field(*price), Field(*out)
    rows, shares = scratch[0], scratch[1]
    q = shares  # each share is overwritten as soon as it has been read
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            lanes = GROUP * groups
            load_classes(grid, logits, known, soft, block, scratch, lane)
            for i in range(lanes):
                lane[OWN, i] = ZERO
                lane[INNER, i] = ZERO
            for c in range(grid.channels):
                mine = np.float32(c)
                load_prices(price, block, c, lane[WEIGHT], lane[PULL])
                if error == SQUARE:
                    class_errors(error, soft, mine, rows[c], shares[c], lane, groups)
                pulls(error, upstream[image, c], lane, groups, q[c])
                for i in range(lanes):
                    own, pull = lane[OWN, i], q[c, i]
                    lane[OWN, i] = pull if lane[LABEL, i] == mine else own
            for c in range(grid.channels):
                for i in range(lanes):
                    pull = q[c, i] - lane[OWN, i]
                    q[c, i] = pull
                    lane[INNER, i] += rows[c, i] * pull  # 0 for the label
            for i in range(lanes):
                lane[INNER, i] *= lane[SCALE, i]
                lane[PUSH, i] = -lane[HIT, i] * lane[INNER, i]
            for c in range(grid.channels):
                mine = np.float32(c)
                for i in range(lanes):
                    label, other = lane[PUSH, i], rows[c, i] * lane[SCALE, i] * (q[c, i] - lane[INNER, i])
                    rows[c, i] = label if lane[LABEL, i] == mine else other
                store(out, block, c, rows[c])


@njit(**FAST)
def channel_errors(error, lane, groups):
    """VALUE = p, or p − r, of a channel."""
    if error == CHANCE:
        for i in range(GROUP * groups):
            lane[VALUE, i] = lane[P, i]
    else:
        for i in range(GROUP * groups):
            r = lane[TARGET, i]
            lane[VALUE, i] = (ONE - r) * lane[P, i] - r * lane[Q, i]


@kernel(**KERNEL)
def sigmoid_sums(start, stop, lane, grid, logits, known, one_vs_rest, price, error, partial):
    grid, logits, known = named(grid, logits, known)
    price = Field(*price)
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            load_weights(known, grid, block, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, known, block, c, one_vs_rest, lane)
                load_prices(price, block, c, lane[LIVE], lane[PULL])
                chances(lane, block.groups)
                channel_errors(error, lane, block.groups)
                partial[chunk, c] += add_errors(error, lane, block.groups)


@kernel(**KERNEL)
def sigmoid_gradient(start, stop, lane, grid, logits, known, one_vs_rest, price, error, upstream, out):
    grid, logits, known = named(grid, logits, known)
    price, out = Field(*price), Field(*out)
    for chunk in range(start, stop):
        image, first, end = share_of(grid, chunk)
        for begin in range(first, end, LANES):
            block = block_of(image, begin, end)
            groups = block.groups
            load_weights(known, grid, block, lane[WEIGHT])
            for c in range(grid.channels):
                load_channel(grid, logits, known, block, c, one_vs_rest, lane)
                load_prices(price, block, c, lane[LIVE], lane[PULL])
                chances(lane, groups)
                if error == SQUARE:
                    channel_errors(error, lane, groups)
                pulls(error, upstream[image, c], lane, groups, lane[LOGIT])
                for i in range(GROUP * groups):
                    lane[LOGIT, i] *= lane[P, i] * lane[Q, i]
                store(out, block, c, lane[LOGIT])
