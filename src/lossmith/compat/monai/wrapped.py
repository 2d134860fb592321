"""MONAI's loss of boxes, and its wrapper for heads at several resolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...checks import shape
from ...loss import Loss
from ...losses.box import GIoULoss
from ...supervision import sampled
from ..peer import Peer, stands_for


@stands_for(
    "monai.losses.BoxGIoULoss",
    "GIoULoss",
    {"reduction": "reduction"},
    refuses={"boxes with six numbers": "ours are flat, (N, 4)"},
)
class BoxGIoULoss(Peer):
    """MONAI's generalised IoU loss of boxes (N, 4), x1, y1, x2, y2, pair by pair.

    Raises:
        ValueError: a target shaped otherwise than the input; boxes in 3-D.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = str(getattr(reduction, "value", reduction))
        self._built["0"] = self.ours(0)

    def ours(self, channels: int) -> Loss:
        settings: dict[str, Any] = {"reduction": self.reduction}
        return GIoULoss(**settings)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss."""
        if input.shape != target.shape:
            raise ValueError(f"{self._who()}: the target {shape(target)} must be shaped like the input {shape(input)}")
        if input.shape[-1] != 4:
            raise ValueError(f"{self._who()}: boxes have 4 numbers here, got {shape(input)}; use monai.losses in 3-D")
        value: Tensor = self._built["0"](input, target)
        return value


@stands_for(
    "monai.losses.DeepSupervisionLoss",
    "DeepSupervision",
    {
        "loss": "any loss of (input, target), of MONAI, of this module or your own",
        "weight_mode, weights": "weights, which are not divided by their sum",
    },
)
class DeepSupervisionLoss(nn.Module):
    """MONAI's sum of one loss over the heads of a network, Σ_h w_h L(input_h, target), the finest first.

    The target is read at the pixels that the centres of a head's pixels fall into. `weight_mode`: "exp" is 1, ½, ¼, …,
    at least 1/16; "two" 1, ½, ½, …; everything else 1. `weights` go before, where there are enough.
    """

    def __init__(
        self, loss: Callable[[Tensor, Tensor], Any], weight_mode: str = "exp", weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.loss, self.weight_mode, self.weights = loss, weight_mode, weights

    def get_weights(self, levels: int = 1) -> list[float]:
        """One for each head."""
        levels = max(1, levels)
        if self.weights is not None and len(self.weights) >= levels:
            return list(self.weights[:levels])
        lowest = {"exp": [max(0.5**level, 0.0625) for level in range(levels)], "two": [1.0] + [0.5] * (levels - 1)}
        return lowest.get(self.weight_mode, [1.0] * levels)

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss of one prediction, or of a list of them."""
        heads: list[Any] = list(input) if isinstance(input, list | tuple) else [input]
        weights = self.get_weights(len(heads)) if isinstance(input, list | tuple) else [1.0]
        if any(head is None for head in heads):
            raise ValueError("DeepSupervisionLoss: the input is None; give a tensor, or a list of them")
        total = torch.zeros((), dtype=torch.float32, device=target.device)
        for weight, head in zip(weights, heads, strict=True):
            total = total + weight * self.loss(head.float(), sampled(target, head.shape[2:]))
        return total
