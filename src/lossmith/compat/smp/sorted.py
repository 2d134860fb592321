"""The Lovász loss of segmentation_models_pytorch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...loss import Loss
from ...losses.sorted import LovaszHingeLoss, LovaszSoftmaxLoss
from ..peer import Fault, stands_for
from .reading import MODE, MULTICLASS_MODE, REFUSES, Moded


@stands_for(
    "segmentation_models_pytorch.losses.LovaszLoss",
    "LovaszHingeLoss; LovaszSoftmaxLoss where mode='multiclass'",
    MODE
    | {
        "mode": "'multilabel' ranks the errors of all channels together, as one",
        "per_image": "per_image; exact=True: errors are sorted, as there",
    },
    (
        Fault("from_logits=False", "has no effect, p is taken for a logit", "p.logit(), or p.log() under a softmax"),
        Fault(
            "ignore_index, mode='multiclass', no valid pixel",
            "an empty tensor, (0, C), for a value",
            "0; with per_image such an image leaves the mean",
        ),
        Fault(
            "ignore_index, per_image=True, an image without a valid pixel",
            "it counts as 0 in the mean, so that more void is less loss",
            "it leaves the mean",
        ),
    ),
    REFUSES,
)
class LovaszLoss(Moded):
    """SMP's Lovász loss: the hinge of a yes or no, or with mode="multiclass" Lovász-softmax over the classes that are
    there; of the batch, or with `per_image` the mean over the images.

    >>> LovaszLoss("multiclass").ours(3)
    LovaszSoftmaxLoss(exact=True, task='multiclass')
    """

    def __init__(
        self, mode: str, per_image: bool = False, ignore_index: int | None = None, from_logits: bool = True
    ) -> None:
        super().__init__(mode, ignore_index, from_logits)
        self.per_image = per_image

    def ours(self, channels: int) -> Loss:
        settings: dict[str, Any] = {"per_image": self.per_image, "exact": True} | self.ignoring()
        if self.mode == MULTICLASS_MODE and channels > 1:
            return LovaszSoftmaxLoss(task=self.task(channels), **settings)
        return LovaszHingeLoss(task="binary", **settings)

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        """The loss of y_pred (N, C, *S) and y_true."""
        logits, target = self.read(y_pred, y_true)
        if self.mode != MULTICLASS_MODE:
            logits, target = logits.reshape(len(logits), 1, -1), target.reshape(len(logits), 1, -1)
        value: Tensor = self.built(logits.shape[1], logits.device)(logits, target)
        return value
