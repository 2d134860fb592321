"""Which examples to learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from .box import pairwise_iou
from .pair import Format


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
