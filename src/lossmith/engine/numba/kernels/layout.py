"""What the kernels are given and work with: rows of numbers, how tensors lie in memory, what is asked for.

Where something may be None, that is a type of its own: kernels are then compiled without the loops that would serve the
rest, which takes a quarter less time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

LANES = 256
GROUP = 64
SQRT_HALF = 0x3F3504F3  # its float32 bits
FOCAL, POWER, CONSERVATIVE, SIGNED = range(4)  # the order of curves.KINDS
FEW = 16  # up to this many classes, comparing each with the label is faster than jumping to the label's row

# Fast arithmetic, except for what would let the compiler assume away NaN and infinity. Division by zero is no error.
# Nothing here allocates; without _nrt=False the counting of references to views would cost as much as the arithmetic.
_ANY: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_INNER: dict[str, Any] = _ANY | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
FAST: dict[str, Any] = _INNER | {"fastmath": {"contract", "reassoc", "arcp", "nsz"}}
PASTED: dict[str, Any] = FAST | {"inline": "always"}
EXACT: dict[str, Any] = _INNER | {"fastmath": {"contract"}}  # where the order of the roundings matters
KERNEL: dict[str, Any] = _ANY | {"fastmath": FAST["fastmath"], "nogil": True}

# Constants by name: a call of np.float32 is a call to the compiler too.
ZERO, HALF, ONE, TWO, TINY = (np.float32(x) for x in (0.0, 0.5, 1.0, 2.0, 1e-30))

# Rows of `partial` and of the upstream gradients: the sums of `Stats`. Under a sigmoid a curve takes two: yes and no.
N, T, TT, FP, FN, FP2, FN2, SPREAD, SPREAD_NO, CURVES = range(10)

# Rows of `lane`. Softmax: "own" is the pixel's label, or the likeliest class if the target is soft.
WEIGHT, LABEL, PEAK, OWN, REST, SCALE, HIT, MISS, U, LOG_SUM, VALUE, INNER, PULL, PUSH, OWN_PUSH, LOW, HIGH = range(17)
# Sigmoid, and one class of a soft target: the events "yes" and "no", their surprise and their share of the weight.
LIVE, TARGET, LOGIT, YES, NO, P, Q, U_YES, U_NO, SLOPE, SLOPE_NO, LANE_ROWS = range(17, 29)


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
    shapes: Any  # (curves, 2): the kind of each `Curve`, an index into KINDS, and its number. None: all are straight


class Block(NamedTuple):
    """`size` pixels of an image from `begin`, padded to 64 · `groups` lanes."""

    image: int
    begin: int
    size: int
    groups: int


class Slots(NamedTuple):
    """The histogram of errors: what it counts, and how an error finds its slot."""

    bins: int
    per_image: bool
    factor: Any  # (images,): whole numbers that a pixel of weight 1 counts
    scale: Any  # (groups, channels): levels per error
