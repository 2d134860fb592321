"""The loops of the CPU engine. `sums.py`, `order.py` and `overlap.py` call them; nothing else does, and importing this
folder imports numba.

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

from .layout import (
    CURVES,
    FN,
    FN2,
    FP,
    FP2,
    LANE_ROWS,
    LANES,
    SPREAD,
    SPREAD_NO,
    TT,
    Ask,
    Field,
    Grid,
    Known,
    N,
    Slots,
    T,
)
from .order import largest_errors, sigmoid_charge, sigmoid_histogram, softmax_charge, softmax_histogram
from .sigmoid import sigmoid_gradient, sigmoid_sums
from .soft import soft_gradient, soft_sums
from .softmax import softmax_gradient, softmax_sums

__all__ = [
    "CURVES",
    "FN",
    "FN2",
    "FP",
    "FP2",
    "LANES",
    "LANE_ROWS",
    "SPREAD",
    "SPREAD_NO",
    "TT",
    "Ask",
    "Field",
    "Grid",
    "Known",
    "N",
    "Slots",
    "T",
    "largest_errors",
    "sigmoid_charge",
    "sigmoid_gradient",
    "sigmoid_histogram",
    "sigmoid_sums",
    "soft_gradient",
    "soft_sums",
    "softmax_charge",
    "softmax_gradient",
    "softmax_histogram",
    "softmax_sums",
]
