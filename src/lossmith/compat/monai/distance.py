"""MONAI's losses of distance maps: boundary and Hausdorff."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...distance import signed_distances, zero_ring
from ...engine import ask
from ...engine.contract import Field
from ...engine.problem import Problem, Task
from ...loss import Loss
from ...losses.map import BoundaryLoss as OurBoundary
from ...losses.map import HausdorffDTLoss as OurHausdorff
from ..peer import Fault, logits_of, stands_for, times
from .overlap import ACTIVATION, REFUSES
from .reading import Call, Segmentation

PLANES = {"ignore_index": "not theirs", "batch": "the mean over images comes first, which shows with 'sum' and 'none'"}


class DistanceLoss(Segmentation):
    """A loss with one value for each image and class, made of a distance map."""

    def term(self, settings: dict[str, Any]) -> Loss:
        """Our loss."""
        raise NotImplementedError

    def ours(self, channels: int) -> Loss:
        settings = self.by_class(channels)
        del settings["per_image"]
        if self.reduction != "sum":
            return self.term(settings)
        return times(self.kept(channels), self.term(settings | {"reduction": "mean" if self.batch else "sum"}))

    def read(self, input: Tensor, target: Tensor) -> Call:
        if input.ndim not in (4, 5):
            raise ValueError(
                f"{self._who()}: the input must be (B, C, H, W) or (B, C, H, W, D), got {tuple(input.shape)}"
            )
        return super().read(input, target)


@stands_for("monai.losses.BoundaryLoss", "BoundaryLoss", ACTIVATION | PLANES, refuses=REFUSES)
class BoundaryLoss(DistanceLoss):
    """MONAI's boundary loss: the mean of p times the signed distance to the boundary of the target."""

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        reduction: str = "mean",
        batch: bool = False,
    ) -> None:
        super().__init__(reduction, include_background, to_onehot_y, sigmoid, softmax, other_act, batch)

    def compute_distance_map(self, target: Tensor) -> Tensor:
        """The signed distance map of each class of a one-hot target (B, C, *S): 0 along its inner edge, positive
        outside; 0 where it has no boundary."""
        return zero_ring(signed_distances(target > 0.5))

    def term(self, settings: dict[str, Any]) -> Loss:
        return OurBoundary(**settings)

    def read(self, input: Tensor, target: Tensor) -> Call:
        labels = self.to_onehot_y and target.ndim == input.ndim - 1
        return super().read(input, target.unsqueeze(1) if labels else target)

    def returned(self, value: Tensor, logits: Tensor) -> Tensor:
        return value.mean(0) if self.reduction == "none" and self.batch else value


@stands_for(
    "monai.losses.HausdorffDTLoss",
    "HausdorffDTLoss, task='multilabel'",
    ACTIVATION | PLANES | {"alpha": "alpha", "include_background": "False by default, as there"},
    (
        Fault(
            "a target of integers without to_onehot_y",
            "the map has the target's dtype, which cuts distances to whole pixels",
            "distances as they are",
        ),
    ),
    REFUSES,
)
class HausdorffDTLoss(DistanceLoss):
    """MONAI's Hausdorff loss by distance transforms: mean (p − r)² (d_r^alpha + d_p^alpha).

    A class is predicted where its p > ½, under a softmax too, where ours takes the likeliest.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        include_background: bool = False,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        reduction: str = "mean",
        batch: bool = False,
    ) -> None:
        super().__init__(reduction, include_background, to_onehot_y, sigmoid, softmax, other_act, batch)
        self.alpha = alpha

    def term(self, settings: dict[str, Any]) -> Loss:
        return OurHausdorff(alpha=self.alpha, **settings)

    def task(self, channels: int) -> Task:
        return "binary" if channels == 1 else "multilabel"

    def logits(self, input: Tensor) -> Tensor:
        if self.activation != "softmax" or input.shape[1] == 1:
            return super().logits(input)
        nothing = torch.zeros_like(input[:, 0], dtype=torch.long)
        p = ask(Field(Problem(input, nothing, None, None, "multiclass", -1), whole=True))
        return logits_of(self._who(), p, "")

    def returned(self, value: Tensor, logits: Tensor) -> Tensor:
        if self.reduction != "none":
            return value
        value = value.mean(0, keepdim=True) if self.batch else value
        return value.reshape(*value.shape, *[1] * (logits.ndim - 2))


@stands_for("monai.losses.LogHausdorffDTLoss", "HausdorffDTLoss, task='multilabel'", {"all": "see HausdorffDTLoss"})
class LogHausdorffDTLoss(HausdorffDTLoss):
    """ln(1 + L), L the value of `HausdorffDTLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return torch.log1p(super().forward(input, target))
