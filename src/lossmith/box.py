"""Boxes: IoU of all pairs, distances to the sides and back, hard examples; and the box losses, under one name."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from . import checks
from .engine.plain.overlap import overlap
from .engine.tensors import computed
from .inputs.call import unwrapped
from .inputs.pair import Format, corners
from .losses.box import BoxLoss, CIoULoss, DIoULoss, EIoULoss, GIoULoss, IoULoss, SIoULoss

__all__ = [
    "BoxLoss",
    "CIoULoss",
    "DIoULoss",
    "EIoULoss",
    "GIoULoss",
    "IoULoss",
    "SIoULoss",
    "decode_distances",
    "encode_distances",
    "hard_examples",
    "pairwise_iou",
]

Kind = Literal["iou", "giou", "diou", "ciou"]
_TABLE = 1 << 20  # pairs of `pairwise_iou` that are worked on at once

_KINDS: dict[Kind, type[BoxLoss]] = {"iou": IoULoss, "giou": GIoULoss, "diou": DIoULoss, "ciou": CIoULoss}


def pairwise_iou(a: Tensor, b: Tensor, kind: Kind = "iou", fmt: Format = "xyxy") -> Tensor:
    """The IoU, or a relative of it, of every box with every other: what assigners and suppression need.

    One minus the loss of the same name, so that 1 is identical for all kinds.

    Args:
        a, b: boxes (N, 4) and (M, 4), floating point.
        kind: "iou" in [0, 1], "giou" and "diou" in [−1, 1], "ciou" in [−1.5, 1].
        fmt: as in the box losses.

    Returns:
        (N, M), in float32 (float64 if `a` is).

    Raises:
        TypeError, ValueError: a kind, a format, a dtype or a shape that does not fit.

    >>> import torch, lossmith as ls
    >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [4.0, 4.0, 5.0, 5.0]])
    >>> ls.box.pairwise_iou(a, a[:1], kind="giou")
    tensor([[ 1.0000],
            [-0.8000]])
    """
    if kind not in _KINDS:
        raise ValueError(f"pairwise_iou: kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    a, b = _checked("pairwise_iou", fmt, a, b)
    dtype = computed(a)
    a, b = corners(a.to(dtype), fmt), corners(b.to(dtype), fmt)
    loss = _KINDS[kind]()
    rows = torch.split(a, max(1, _TABLE // max(len(b), 1)))
    return torch.cat([1 - loss.formula(overlap(row.unsqueeze(1), b, loss.reads())) for row in rows])


def encode_distances(points: Tensor, boxes: Tensor, stride: Tensor | float, fmt: Format = "xyxy") -> Tensor:
    """From points to the sides of their boxes: (left, top, right, bottom) in units of the stride.

    Args:
        points: (…, 2), x and y in the units of the boxes.
        boxes: (…, 4).
        stride: a number, or (…,).

    Returns:
        (…, 4); negative where a point lies outside.

    >>> import torch, lossmith as ls
    >>> ls.box.encode_distances(torch.tensor([[8.0, 8.0]]), torch.tensor([[0.0, 4.0, 24.0, 8.0]]), stride=8)
    tensor([[1.0000, 0.5000, 2.0000, 0.0000]])
    """
    (boxes,) = _checked("encode_distances", fmt, boxes)
    sides = corners(boxes, fmt)
    return torch.cat([points - sides[..., :2], sides[..., 2:] - points], -1) / _per_row(stride)


def decode_distances(points: Tensor, distances: Tensor, stride: Tensor | float) -> Tensor:
    """The inverse of `encode_distances`: boxes (…, 4) as x1, y1, x2, y2.

    >>> import torch, lossmith as ls
    >>> ls.box.decode_distances(torch.tensor([[8.0, 8.0]]), torch.tensor([[1.0, 0.5, 2.0, 0.0]]), stride=8)
    tensor([[ 0.,  4., 24.,  8.]])
    """
    (distances,) = _checked("decode_distances", "xyxy", distances)
    distances = distances * _per_row(stride)
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def _per_row(stride: Tensor | float) -> Tensor | float:
    return stride.unsqueeze(-1) if isinstance(stride, Tensor) and stride.ndim else stride


def _checked(who: str, fmt: Format, *boxes: Tensor) -> tuple[Tensor, ...]:
    if fmt not in get_args(Format):
        raise ValueError(f"{who}: fmt must be one of {', '.join(map(repr, get_args(Format)))}, got {fmt!r}")
    for some in boxes:
        checks.floating(who, "boxes", some, "; use .float()", many=True)
        if some.ndim == 0 or some.shape[-1] != 4:
            raise ValueError(f"{who}: boxes must be (…, 4), got {tuple(some.shape)}")
    return tuple(unwrapped(who, boxes, {fmt}))


def hard_examples(losses: Tensor, boxes: Tensor, keep: int, nms: float = 0.7, fmt: Format = "xyxy") -> Tensor:
    """Online hard example mining for region proposals: the hardest, without near-duplicates of a harder one.

    Proposals are ranked by their loss; one that overlaps a harder kept one by an IoU above `nms` is dropped, since both
    would teach the same twice; the first `keep` remain. Average their losses, and only theirs:
    `losses[hard_examples(losses, boxes, 128)].mean()`.

    Args:
        losses: (N,), the current loss of each proposal; not differentiated here.
        boxes: (N, 4), the proposals.
        keep: how many to keep at most.
        nms: IoU in [0, 1] above which two proposals are the same; 1 keeps duplicates.
        fmt: as in the box losses.

    Returns:
        indices into the proposals, hardest first; equal losses in their own order, NaN before everything.

    Raises:
        ValueError: shapes or settings that do not fit.

    Paper: Shrivastava et al., "Training region-based object detectors with online hard example mining", CVPR 2016,
        arXiv 1604.03540.

    >>> import torch, lossmith as ls
    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
    >>> ls.hard_examples(torch.tensor([1.0, 3.0, 2.0]), boxes, keep=2)  # box 0 repeats box 1
    tensor([1, 2])
    """
    if losses.ndim != 1 or tuple(boxes.shape) != (len(losses), 4):
        raise ValueError(
            f"hard_examples: losses (N,) need boxes (N, 4), got {tuple(losses.shape)} and {tuple(boxes.shape)}"
        )
    if keep < 0 or not 0 <= nms <= 1:
        raise ValueError(f"hard_examples: keep must be >= 0 and nms in [0, 1], got keep={keep!r} and nms={nms!r}")
    boxes = boxes.detach()
    rest = losses.detach().argsort(descending=True, stable=True)
    kept: list[Tensor] = []
    while len(rest) and len(kept) < keep:
        first, rest = rest[:1], rest[1:]
        kept.append(first)
        same = pairwise_iou(boxes[first], boxes[rest], fmt=fmt)[0] > nms
        rest = rest[~same]
    return torch.cat(kept) if kept else rest[:0]
