"""A problem as the kernels see it: tensors with strides, constants, and how many programs share the pixels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..tensors import pixel_stride
from .pixels import CHANNELS, LABELS, REST, SHARES
from .softmax import FEW

FROM, SHARE = 1024, 64  # programs from which on each takes more than one block, and how many at most
WALKED = 128  # pixels of a program that walks the classes


class Call:
    """`apart`: whether the kernel takes images of one pixel as the pixels of one image."""

    def __init__(
        self, z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, task: str, ignore: int, apart: bool = True
    ) -> None:
        n, c, *space = z.shape
        s = math.prod(space)
        hard = y.ndim < z.ndim
        if task == "multiclass":
            mode = LABELS if hard else SHARES
        else:
            mode = REST if hard and task == "multilabel" else CHANNELS
        self.mode: str = mode.value
        y = y.view(torch.uint8) if y.dtype == torch.bool else y
        z, self.zn, self.zc, self.zs = flat(z)
        if hard:
            y = y.contiguous()
            self.tn, self.tc, self.ts = s, 0, 1
        else:
            y, self.tn, self.tc, self.ts = flat(y)
        self.apart = apart and s == 1 and n > 1
        if self.apart:
            n, s = 1, n
            self.zn, self.zs, self.tn, self.ts = 0, self.zn, 0, self.tn
        self.images, self.classes, self.pixels, self.ignore = n, c, s, ignore
        none = z  # a pointer that nobody follows
        self.tensors = (
            z,
            y,
            none if w is None else w.detach().float().contiguous(),
            none if sample is None else sample.detach().float().contiguous(),
        )
        self.few = self.mode == "labels" and c <= FEW
        self.flags: dict[str, Any] = {
            "HAS_W": w is not None,
            "HAS_SAMPLE": sample is not None,
            "EXACT": z.dtype == torch.float32,
        }

    @property
    def strides(self) -> tuple[int, ...]:
        return self.zn, self.zc, self.zs, self.tn, self.tc, self.ts

    def output(self, z: Tensor) -> tuple[Tensor, int, int, int]:
        """Memory for the gradient, laid out like the logits, with its strides."""
        out = like(z)
        _, on, oc, os = flat(out)
        return (out, 0, oc, on) if self.apart else (out, on, oc, os)

    def shared(self, block: int, rows: int = 1) -> tuple[int, int]:
        """Programs for each of the images (or of their `rows`), and blocks for each of them: by the shape alone, so
        that a result does not depend on the card."""
        steps = max(1, min(SHARE, self.pixels * self.images * rows // (block * FROM)))
        steps = 1 if self.apart else steps
        return -(-self.pixels // (block * steps)), steps


def like(z: Tensor) -> Tensor:
    """Memory laid out like the logits, with pixels that can be walked with one stride."""
    out = torch.empty_like(z)
    walked = pixel_stride(out.shape[2:], out.stride()[2:]) is not None
    return out if walked else torch.empty_like(z, memory_format=torch.contiguous_format)


def side_by_side(z: Tensor) -> bool:
    """Whether the classes of a pixel are neighbours, in the logits as the kernels read them and in their gradient."""
    return all(pixel_stride(x.shape[2:], x.stride()[2:]) is not None and x.stride(1) == 1 for x in (z, like(z)))


def flat(t: Tensor) -> tuple[Tensor, int, int, int]:
    """A tensor (N, C, *S) and its three strides; copied only if its pixels cannot be walked with one."""
    step = pixel_stride(t.shape[2:], t.stride()[2:])
    if step is None:
        t, step = t.contiguous(), 1
    return t, t.stride(0), t.stride(1), step
