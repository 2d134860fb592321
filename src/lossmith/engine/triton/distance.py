"""Exact Euclidean distance transform, axis by axis: out_i = min over j of f_j + h² (i − j)².

The last axis has only seeds, so a scan from both sides does; for every other axis all candidates are compared, nearest
rows first, until the rest is too far for every pixel of the tile. Squared distances in float32: whole numbers below
2^24 are exact, and (i − j) h is squared as it is, so that nothing cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

LONGEST = 8192  # pixels of a row that one program scans


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def along_rows(seeds, out, R, L, h, BR: tl.constexpr, BL: tl.constexpr):
    """Squared distance to the nearest seed of the same row, ∞ where there is none. seeds, out (R, L)."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    i = tl.arange(0, BL)[None, :]
    here = (r < R) & (i < L)
    seed = tl.load(seeds + r * L + i, mask=here, other=0) != 0
    FAR: tl.constexpr = 1 << 24
    left = tl.associative_scan(tl.where(seed, i, -FAR), 1, larger)
    right = -tl.associative_scan(tl.where(seed, -i, -FAR), 1, larger, reverse=True)
    steps = tl.minimum(i - left, right - i)
    d = steps.to(tl.float32) * h
    tl.store(out + r * L + i, tl.where(steps < BL, d * d, float("inf")), mask=here)


@triton.jit
def candidate(best, f, at, near, fi, fj, h):
    """The smaller of what is known and what row j offers."""
    d = (fi - fj) * h
    return tl.minimum(best, d * d + tl.load(f + at, mask=near, other=0.0))


@triton.jit
def along_axis(f, out, L, X, h, BI: tl.constexpr, BX: tl.constexpr, CHECK: tl.constexpr):
    """f, out (A, L, X): one program makes BI by BX of one A, reading a row of BX for BI outputs."""
    tiles_x = tl.cdiv(X, BX)
    tiles_i = tl.cdiv(L, BI)
    pid = tl.program_id(0)
    x = (pid % tiles_x) * BX + tl.arange(0, BX)[None, :]
    start = (pid // tiles_x) % tiles_i * BI
    wide = tl.zeros((1, 1), tl.int64)  # a plane may have more than 2^31 pixels
    plane = (pid // tiles_x // tiles_i + wide) * L * X
    f += plane
    i = start + tl.arange(0, BI)[:, None]
    fi = tl.arange(0, BI)[:, None].to(tl.float32)  # rows are counted from the start of the tile, as floats
    near = x < X
    best = tl.full((BI, BX), float("inf"), tl.float32)
    for row in range(tl.minimum(BI, L - start)):
        best = candidate(best, f, (wide + start + row) * X + x, near, fi, row + 0.0, h)
    gap = 0
    reach = tl.maximum(start, L - start - BI)  # rows left on the longer side
    worst = tl.max(tl.max(tl.where((i < L) & near, best, 0.0), 0), 0)
    nearest = h * h
    while (gap < reach) & (worst > nearest):
        for k in tl.static_range(CHECK):
            low = start - 1 - gap - k
            high = start + BI + gap + k
            if low >= 0:
                best = candidate(best, f, (wide + low) * X + x, near, fi, -1.0 - k - gap, h)
            if high < L:
                best = candidate(best, f, (wide + high) * X + x, near, fi, 0.0 + BI + k + gap, h)
        gap += CHECK
        nearest = (gap + 1) * h * ((gap + 1) * h)
        worst = tl.max(tl.max(tl.where((i < L) & near, best, 0.0), 0), 0)
    tl.store(out + plane + (wide + i) * X + x, best, mask=(i < L) & near)


def squared_distances(seeds: Tensor, spacing: Sequence[float]) -> Tensor:
    """Of every pixel to the nearest seed of its image, float32; ∞ where an image has none. seeds (M, *S), bool."""
    m, *space = seeds.shape
    seeds = seeds.contiguous().view(torch.uint8)
    out = torch.empty(seeds.shape, dtype=torch.float32, device=seeds.device)
    length, rows = space[-1], m * math.prod(space[:-1])
    if length <= LONGEST:
        wide = max(16, triton.next_power_of_2(length))
        high = max(1, 2048 // wide)
        launch(along_rows, triton.cdiv(rows, high), seeds, out, rows, length, spacing[-1], BR=high, BL=wide)
    else:
        _along(torch.where(seeds != 0, 0.0, math.inf), out, rows, length, 1, spacing[-1])
    inner = length
    for axis in range(len(space) - 2, -1, -1):
        source, out = out, torch.empty_like(out)
        _along(source, out, m * math.prod(space[:axis]), space[axis], inner, spacing[axis])
        inner *= space[axis]
    return out


def _along(f: Tensor, out: Tensor, planes: int, length: int, inner: int, h: float) -> None:
    bx = max(1, min(128, triton.next_power_of_2(inner)))
    bi = max(1, min(16, triton.next_power_of_2(length)))
    grid = planes * triton.cdiv(inner, bx) * triton.cdiv(length, bi)
    launch(along_axis, grid, f, out, length, inner, h, BI=bi, BX=bx, CHECK=8, num_warps=1)


def signed(mask: Tensor, valid: Tensor, spacing: Sequence[float]) -> Tensor:
    """The signed distance maps (N, C, *S) of masks, as of `distance.signed_distances`."""
    seeds = mask & valid, ~mask & valid
    inside, outside = (squared_distances(x.flatten(0, 1), spacing).view(mask.shape).sqrt_() for x in seeds)
    maps = torch.where(mask, outside.neg_(), inside)
    return maps.masked_fill_(maps.isinf() | ~valid, 0.0)
