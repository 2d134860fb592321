"""MONAI's sums of an overlap and a loss of pixels: one pass over the logits where both take them for the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...checks import shape
from ...loss import Loss
from ...losses.pixel import CrossEntropyLoss
from ..peer import Fault, Peer, stands_for, times
from .focal import FocalLoss
from .overlap import ABSENT, ACTIVATION, EMPTY, REFUSES, SMOOTHING, DiceLoss, GeneralizedDiceLoss
from .reading import Call, ClassWeight, Segmentation, Weight


class CrossEntropy(Segmentation):
    """The half of `DiceCELoss` that is no Dice: softmax or binary cross-entropy of logits."""

    def __init__(
        self, weight: Weight, reduction: str, to_onehot_y: bool, sigmoid: bool, label_smoothing: float
    ) -> None:
        super().__init__(reduction, True, to_onehot_y, sigmoid, not sigmoid)
        self.weight, self.label_smoothing = ClassWeight("DiceCELoss", weight), label_smoothing

    def ours(self, channels: int) -> Loss:
        settings: dict[str, Any] = {"task": self.task(channels), "reduction": self.reduction}
        weights = self.weight.of(channels)
        if channels == 1:
            return CrossEntropyLoss(**settings | {"pos_weight": weights})
        return CrossEntropyLoss(**settings | {"class_weight": weights, "label_smoothing": self.label_smoothing})

    def logits(self, input: Tensor) -> Tensor:
        return input

    def warn_of_one_channel(self) -> None:
        """The other half does, but of its own."""
        if self.label_smoothing:
            warnings.warn("DiceCELoss: label_smoothing has no effect on one channel", UserWarning, stacklevel=5)

    def read(self, input: Tensor, target: Tensor) -> Call:
        logits, target, keywords = super().read(input, target)
        soft = not self.to_onehot_y and self.task(logits.shape[1]) == "multiclass"
        if soft and self.weight.given is not None and self.reduction == "mean":
            keywords["denominator"] = logits[:, 0].numel()  # PyTorch's rule: pixels of a soft target weigh 1
        return Call(logits, target, keywords)


class Both(Peer):
    """A weighted sum of two losses of the same prediction and target.

    Raises:
        ValueError: a negative weight; at a call, a target that is neither labels (B, 1, *S) nor shaped like the input.
    """

    def __init__(self, first: Segmentation, second: Segmentation, **weights: float) -> None:
        super().__init__()
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{self._who()}: {name} must be >= 0, got {weight}")
        self.first, self.second, self.weights = first, second, tuple(weights.values())

    def ours(self, channels: int) -> Loss:
        if not self.alike(channels):
            raise ValueError(
                f"{self._who()}: its halves read the prediction in different ways: see first.ours and second.ours"
            )
        first, second = self.first.ours(channels), self.second.ours(channels)
        return times(self.weights[0], first) + times(self.weights[1], second)

    def alike(self, channels: int) -> bool:
        """Whether one sum can read the prediction for both."""
        first, second = self.first, self.second
        same = first.task(channels) == second.task(channels) and isinstance(first.activation, str)
        whole = not isinstance(second, FocalLoss) or second.kept(channels) == channels
        return same and whole and not (channels == 1 and first.activation == "softmax") and first.reduction != "none"

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss.

        Args:
            input: the prediction, (B, C, *S).
            target: shaped like it, or labels (B, 1, *S).
        """
        if input.ndim != target.ndim or target.shape[1] not in (1, input.shape[1]):
            raise ValueError(
                f"{self._who()}: the target {shape(target)} must be shaped like the input {shape(input)}, or labels "
                "with one channel"
            )
        channels = input.shape[1]
        if not self.alike(channels):
            first, second = self.first(input, target), self.second(input, target)
            return torch.add(self.weights[0] * first, self.weights[1] * second)
        if channels == 1:
            self.first.warn_of_one_channel()
        logits, labels, keywords = self.second.read(input, target)
        value: Tensor = self.built(channels, logits.device)(logits, labels, **keywords)
        return value


@stands_for(
    "monai.losses.DiceCELoss",
    "DiceCELoss, DiceLoss + CrossEntropyLoss",
    ACTIVATION
    | SMOOTHING
    | {
        "weight": "class_weight of both, times its mean for Dice; with one channel pos_weight",
        "lambda_dice, lambda_ce": "the weights of the sum",
        "label_smoothing": "label_smoothing of the cross-entropy; without effect on one channel",
    },
    (
        Fault(
            "sigmoid=True with several channels",
            "a softmax cross-entropy of classes that do not exclude each other",
            "binary cross-entropy",
        ),
        EMPTY,
    ),
    REFUSES,
)
class DiceCELoss(Both):
    """MONAI's Dice plus cross-entropy: lambda_dice · Dice + lambda_ce · CE; with one channel binary cross-entropy.

    Without `sigmoid` or `softmax`, Dice reads probabilities (or other_act of the input) and the cross-entropy logits.

    >>> DiceCELoss(to_onehot_y=True, softmax=True).ours(3)
    DiceLoss(smooth=1e-05, task='multiclass') + CrossEntropyLoss(task='multiclass')
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        weight: Tensor | None = None,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        if getattr(reduction, "value", reduction) == "none":
            raise ValueError("DiceCELoss: reduction must be 'mean' or 'sum', got 'none'")
        of_dice = weight if weight is None or include_background else weight[1:]
        dice = DiceLoss(
            include_background, to_onehot_y, sigmoid, softmax, other_act, squared_pred, jaccard, reduction, smooth_nr,
            smooth_dr, batch, of_dice,
        )  # fmt: skip
        ce = CrossEntropy(weight, reduction, to_onehot_y, sigmoid, label_smoothing)
        super().__init__(dice, ce, lambda_dice=lambda_dice, lambda_ce=lambda_ce)


FOCAL = {
    "gamma": "of the focal loss, which takes the sigmoid whatever the overlap takes",
    "weight": "of both",
    "lambda_dice, lambda_gdl, lambda_focal": "the weights of the sum",
}


@stands_for(
    "monai.losses.DiceFocalLoss",
    "DiceLoss + FocalLoss",
    ACTIVATION | SMOOTHING | FOCAL | {"alpha": "alpha"},
    (EMPTY,),
    REFUSES,
)
class DiceFocalLoss(Both):
    """MONAI's Dice plus focal loss: lambda_dice · Dice + lambda_focal · focal.

    The focal half takes the sigmoid of every class, whatever the Dice half takes: with softmax=True that is another
    function than `lossmith.DiceFocalLoss`, and two passes over the logits.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        gamma: float = 2.0,
        weight: Weight = None,
        lambda_dice: float = 1.0,
        lambda_focal: float = 1.0,
        alpha: float | None = None,
    ) -> None:
        dice = DiceLoss(
            include_background, to_onehot_y, sigmoid, softmax, other_act, squared_pred, jaccard, reduction, smooth_nr,
            smooth_dr, batch, weight,
        )  # fmt: skip
        focal = FocalLoss(include_background, to_onehot_y, gamma, alpha, weight, reduction)
        super().__init__(dice, focal, lambda_dice=lambda_dice, lambda_focal=lambda_focal)


@stands_for(
    "monai.losses.GeneralizedDiceFocalLoss",
    "GeneralizedDiceLoss, with smoothing, + FocalLoss",
    ACTIVATION | SMOOTHING | FOCAL | {"w_type": "weighting"},
    (ABSENT,),
    REFUSES,
)
class GeneralizedDiceFocalLoss(Both):
    """MONAI's generalised Dice plus focal loss: lambda_gdl · GDL + lambda_focal · focal, see `DiceFocalLoss`."""

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        w_type: str = "square",
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        gamma: float = 2.0,
        weight: Weight = None,
        lambda_gdl: float = 1.0,
        lambda_focal: float = 1.0,
    ) -> None:
        gdl = GeneralizedDiceLoss(
            include_background, to_onehot_y, sigmoid, softmax, other_act, w_type, reduction, smooth_nr, smooth_dr, batch
        )
        focal = FocalLoss(include_background, to_onehot_y, gamma, None, weight, reduction)
        super().__init__(gdl, focal, lambda_gdl=lambda_gdl, lambda_focal=lambda_focal)
