"""Pixels on their way from tensors to a kernel: which of them count, what they weigh, what their target is."""

from __future__ import annotations

import triton
import triton.language as tl

from .arithmetic import clamp

# What a target is, a constant of a kernel. Under a softmax: a label per pixel, or the share of every class. Under a
# sigmoid: a label per pixel, one class against the rest, or a number for every channel.
LABELS, SHARES, REST, CHANNELS = (tl.constexpr(mode) for mode in ("labels", "shares", "rest", "channels"))
# Whose surprise is wanted of each pixel: nobody's, that of its label, that of every label.
NOBODY, OWN, EVERY = (tl.constexpr(whose) for whose in range(3))
SLACK = tl.constexpr(1e-4)  # as in `problem.py`


@triton.jit
def widened(given):
    """Numbers as float32; labels as int32, or int64 where they are: 8 bits could not hold every ignore_index."""
    if given.dtype.is_floating():
        return given.to(tl.float32)
    elif given.dtype == tl.int64:
        return given
    else:
        return given.to(tl.int32)


@triton.jit
def weight_of(w, sample, i, image, ok, HAS_W: tl.constexpr, HAS_SAMPLE: tl.constexpr):
    """1, or what is given; 0 beyond the image and throughout an ignored one. `image`: a number, or one per pixel."""
    wt = tl.where(ok, 1.0, 0.0)
    if HAS_W:
        wt = tl.load(w + i, mask=ok, other=0.0)
    if HAS_SAMPLE:
        wt = tl.where(tl.load(sample + image) != 0.0, wt, 0.0)
    return wt


@triton.jit
def counted(u, wt):
    """The surprise of a pixel that counts; NaN where its label is out of range."""
    return tl.where(wt == 0.0, 0.0, tl.where(wt == wt, u, wt))


@triton.jit
def label_of(y, i, wt, ok, ignore, C: tl.constexpr):
    """The label (int32, in range) and the weight: 0 where it is ignored, NaN where it is out of range.

    What is loaded knows nothing of weights: a mask made from data would undo wide loads.
    """
    given = widened(tl.load(y + i, mask=ok, other=0))
    wt = tl.where(ok & (given != ignore), wt, 0.0)
    inside = (given >= 0) & (given < C)
    broken = tl.where(inside | (wt == 0.0), wt, float("nan"))
    return tl.where(inside, given, 0).to(tl.int32), broken


@triton.jit
def channel_of(y, at, wt, ok, ignore, c, top, MODE: tl.constexpr):
    """The target r of a channel, in 0 … 1, and the weight, as in `label_of`. 0 where it is ignored."""
    given = widened(tl.load(y + at, mask=ok, other=0))
    wt = tl.where(ok & (given != ignore), wt, 0.0)
    if given.dtype.is_floating():  # interpolation may leave [0, 1] by a little; NaN is not out of range, and stays
        outside = (given < -SLACK) | (given > 1.0 + SLACK)
        r = clamp(given)
    elif MODE == REST:
        outside = (given < 0) | (given > top)
        r = tl.where(given == c, 1.0, 0.0)
    else:
        outside = (given < 0) | (given > 1)
        r = tl.where(given > 0, 1.0, 0.0)
    wt = tl.where(outside & (wt != 0.0), float("nan"), wt)
    return tl.where(wt == 0.0, 0.0, r), wt


@triton.jit
def shares_weight(y, tc, at, wt, ok, ignore, C: tl.constexpr):
    """The weight of pixels whose target is a share of every class: ignored where any of them says so."""
    outside = tl.zeros(ok.shape, tl.int1)
    for _ in range(C):
        given = widened(tl.load(y + at, mask=ok, other=0))
        wt = tl.where(ok & (given != ignore), wt, 0.0)
        low = given.to(tl.float32)
        outside = outside | (low < -SLACK) | (low > 1.0 + SLACK)
        y += tc
    return tl.where(outside & (wt != 0.0), float("nan"), wt)


@triton.jit
def share_of(y, at, wt, ok):
    """The share of one class, 0 where the pixel is ignored."""
    r = clamp(tl.load(y + at, mask=ok, other=0).to(tl.float32))
    return tl.where(wt == 0.0, 0.0, r)
