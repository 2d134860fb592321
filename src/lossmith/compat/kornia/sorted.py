"""kornia's Lovász losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...checks import shape
from ...loss import Loss
from ...losses.sorted import LovaszHingeLoss as OurHinge
from ...losses.sorted import LovaszSoftmaxLoss as OurSoftmax
from ..peer import Fault, stands_for, times
from .reading import REFUSES, Labelled, constant, weights

EXACT = "per_image, exact=True: errors are sorted, as there"
CONSTANT = "give target.detach()"
VOID = Fault("a label of -100", "is taken for a number, and the loss can be anything", "is ignored")


@stands_for(
    "kornia.losses.LovaszSoftmaxLoss",
    "LovaszSoftmaxLoss",
    {"weight": "class_weight, times its mean", "pred": f"logits; {EXACT}; absent='keep'"},
    refuses={"one channel": "LovaszHingeLoss"} | REFUSES,
)
class LovaszSoftmaxLoss(Labelled):
    """kornia's Lovász-softmax of logits (B, C, H, W) and labels (B, H, W): the mean over all classes, then the images.

    An absent class costs its largest error. `weight` multiplies the values of the classes, and the mean does not divide
    by it. One image in pred is held against every target.

    Raises:
        ValueError: shapes that do not fit, one channel, a weight that learns.

    >>> LovaszSoftmaxLoss().ours(3)
    LovaszSoftmaxLoss(per_image=True, absent='keep', exact=True, task='multiclass')
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", constant(self._who(), weight), persistent=False)

    def ours(self, channels: int) -> Loss:
        settings: dict[str, Any] = {"per_image": True, "absent": "keep", "exact": True, "task": "multiclass"}
        if self.weight is None:
            return OurSoftmax(**settings)
        given = weights(self._who(), self.weight, channels)
        settings["class_weight"] = given
        return times(sum(given) / channels, OurSoftmax(**settings))

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        if isinstance(pred, Tensor) and isinstance(target, Tensor) and pred.ndim == 4 and pred.shape[:1] == (1,):
            pred = pred.expand(target.shape[0], *pred.shape[1:])
        pred, target = self.read(pred, target, axes=2)
        if pred.shape[1] == 1:
            raise ValueError(
                f"{self._who()}: Invalid pred shape, we expect BxNxHxW, with N > 1. Got: {shape(pred)}; one channel "
                "wants LovaszHingeLoss"
            )
        value: Tensor = self.built(pred.shape[1], pred.device)(pred, target)
        return value


@stands_for(
    "kornia.losses.LovaszHingeLoss",
    "LovaszHingeLoss",
    {"pred": f"logits; {EXACT}", "target": "0 or 1; between them it is foreground from ½ on, there a part of one"},
    (VOID,),
    {"a target that learns": CONSTANT} | REFUSES,
)
class LovaszHingeLoss(Labelled):
    """kornia's Lovász hinge of logits (B, 1, H, W) and labels (B, H, W), the mean over the images.

    Raises:
        ValueError: shapes that do not fit; a target that learns.
    """

    def __init__(self) -> None:
        super().__init__()

    def ours(self, channels: int) -> Loss:
        return OurHinge(per_image=True, exact=True, task="binary")

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = self.read(pred, target, axes=2)
        if pred.shape[1] != 1:
            raise ValueError(
                f"{self._who()}: Invalid pred shape, we expect Bx1xHxW. Got: {shape(pred)}; several channels want "
                "LovaszSoftmaxLoss"
            )
        if target.requires_grad:
            raise ValueError(f"{self._who()}: the target requires a gradient, but labels are constants: {CONSTANT}")
        value: Tensor = self.built(1, pred.device)(pred, target)
        return value


@stands_for("kornia.losses.lovasz_softmax_loss", "LovaszSoftmaxLoss", {"all": "see LovaszSoftmaxLoss"})
def lovasz_softmax_loss(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """kornia's Lovász-softmax as a function; see `LovaszSoftmaxLoss`."""
    value: Tensor = LovaszSoftmaxLoss(weight)(pred, target)
    return value


@stands_for("kornia.losses.lovasz_hinge_loss", "LovaszHingeLoss", {"all": "see LovaszHingeLoss"})
def lovasz_hinge_loss(pred: Tensor, target: Tensor) -> Tensor:
    """kornia's Lovász hinge as a function; see `LovaszHingeLoss`."""
    value: Tensor = LovaszHingeLoss()(pred, target)
    return value
