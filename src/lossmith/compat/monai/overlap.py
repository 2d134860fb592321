"""MONAI's losses of overlaps: Dice, Jaccard, Tversky, generalised Dice."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...inputs.call import unwrapped
from ...loss import Loss
from ...losses.region import DiceLoss as OurDice
from ...losses.region import JaccardLoss, RegionLoss
from ...losses.region import TverskyLoss as OurTversky
from ..overlap import SmoothedGeneralizedDice, SmoothedOverlap, overlap
from ..peer import Fault, stands_for, times
from .reading import Call, ClassWeight, Segmentation, Weight

ACTIVATION = {
    "sigmoid, softmax": "task='multilabel' or 'multiclass'; without either p.logit(), which refuses what is no p",
    "other_act": "the same of other_act(input)",
    "to_onehot_y": "labels are taken as they are",
    "batch": "per_image=False",
    "reduction": "'sum' of classes and images is C times ours, 'none' has axes of 1 behind",
    "ignore_index": "ignore_index; of a one-hot target weight=",
}
REFUSES = {
    "without an activation, or from other_act, numbers beyond [0, 1]": "they are no probabilities; sigmoid=True or "
    "softmax=True takes logits",
}
SMOOTHING = {"smooth_nr, smooth_dr": "smooth, where they are equal", "soft_label": "hits as min(p, r)"}
VOID = Fault(
    "ignore_index, an image without a valid pixel",
    "it counts as 0 in the mean, so that more void is less loss",
    "it leaves the mean",
)
EMPTY = Fault("smooth_nr=0 and smooth_dr=0, a class neither there nor predicted", "NaN", "0")
ABSENT = Fault("smooth_nr=0 and smooth_dr=0, an image with none of the classes that count", "NaN", "0")


class Overlap(Segmentation):
    """A loss with one value for each class."""

    weight: ClassWeight
    soft = False

    @property
    def minimum(self) -> bool:
        """Whether hits are min(p, r); of labels they are p r in any case."""
        return self.soft and not self.to_onehot_y

    def ours(self, channels: int) -> Loss:
        weights, kept = self.weight.of(self.kept(channels)) if self.kept(channels) > 1 else None, self.kept(channels)
        more: dict[str, Any] = {}
        if weights is not None and self.reduction != "none":
            more["class_weight"] = [1.0] * (channels - kept) + weights
        loss = self.term(self.by_class(channels) | more)
        if self.reduction == "none":
            return loss
        factor = 1.0 if weights is None else sum(weights) / kept
        return times(factor * kept if self.reduction == "sum" else factor, loss)

    def term(self, settings: dict[str, Any]) -> RegionLoss:
        """Our loss, whatever the weights."""
        raise NotImplementedError

    def returned(self, value: Tensor, logits: Tensor) -> Tensor:
        kept = self.kept(logits.shape[1])
        weights = self.weight.of(kept) if self.reduction == "none" and kept > 1 else None
        return super().returned(value if weights is None else value * value.new_tensor(weights), logits)


@stands_for(
    "monai.losses.DiceLoss",
    "DiceLoss, JaccardLoss",
    ACTIVATION
    | SMOOTHING
    | {
        "squared_pred": "squared",
        "jaccard": "JaccardLoss with half the smoothing",
        "weight": "class_weight, times its mean",
    },
    (VOID, EMPTY),
    REFUSES,
)
class DiceLoss(Overlap):
    """MONAI's Dice loss, or with `jaccard` the Jaccard loss: the mean over images and classes.

    1 − (2 Σ p r + smooth_nr) / (Σ p + Σ r + smooth_dr); jaccard: 1 − (2 Σ p r + smooth_nr) / (2 U + smooth_dr), U the
    union. `weight` multiplies the values of the classes, and the mean does not divide by it.

    >>> import torch
    >>> loss = DiceLoss(to_onehot_y=True, softmax=True)
    >>> loss.ours(3)
    DiceLoss(smooth=1e-05, task='multiclass')
    >>> round(loss(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
    0.8333
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
        weight: Weight = None,
        soft_label: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, include_background, to_onehot_y, sigmoid, softmax, other_act, batch, ignore_index)
        self.weight = ClassWeight(self._who(), weight)
        self.squared, self.jaccard, self.soft = squared_pred, jaccard, soft_label and not squared_pred
        share = 0.5 if jaccard else 1.0
        self.smooth = share * float(smooth_nr), share * float(smooth_dr)

    def term(self, settings: dict[str, Any]) -> RegionLoss:
        if self.squared:
            settings = settings | {"squared": True}
        above, below = self.smooth
        if self.jaccard and self.squared:  # which ours is not
            return SmoothedOverlap(smooth=above, smooth_below=below, **settings)
        return overlap(JaccardLoss if self.jaccard else OurDice, above, below, self.minimum, settings)


@stands_for(
    "monai.losses.MaskedDiceLoss",
    "DiceLoss, JaccardLoss",
    {"mask": "weight="},
    (
        Fault(
            "to_onehot_y=True with a mask",
            "masked labels become 0, the background, and count as such",
            "masked pixels are left out",
        ),
    ),
    REFUSES,
)
class MaskedDiceLoss(DiceLoss):
    """MONAI's Dice loss of the pixels where a mask (B or 1, 1, *S) of 0 and 1 is 1.

    Arguments as `DiceLoss`, without ignore_index.
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
        weight: Weight = None,
        soft_label: bool = False,
    ) -> None:
        super().__init__(
            include_background, to_onehot_y, sigmoid, softmax, other_act, squared_pred, jaccard, reduction, smooth_nr,
            smooth_dr, batch, weight, soft_label,
        )  # fmt: skip

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of the pixels in the mask.

        Raises:
            ValueError: a mask with another number of images, channels or pixels.
        """
        if mask is None:
            warnings.warn(f"{self._who()}: without a mask all pixels count", UserWarning, stacklevel=2)
            return super().forward(input, target)
        mask = unwrapped(self._who(), mask)
        n, _, *space = input.shape
        if tuple(mask.shape) not in {(n, 1, *space), (1, 1, *space)}:
            raise ValueError(
                f"{self._who()}: the mask must be {(n, 1, *space)} or {(1, 1, *space)}, got {tuple(mask.shape)}"
            )
        call = self.read(input, target)
        call.keywords["weight"] = mask[:, 0].expand(n, *space).to(call.logits.dtype)
        return self.answer(input.shape[1], call)


@stands_for(
    "monai.losses.TverskyLoss",
    "TverskyLoss",
    ACTIVATION | SMOOTHING | {"alpha": "fp_weight", "beta": "fn_weight"},
    (VOID, EMPTY),
    REFUSES,
)
class TverskyLoss(Overlap):
    """MONAI's Tversky loss: 1 − (TP + smooth_nr) / (TP + alpha FP + beta FN + smooth_dr), the mean over all."""

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        soft_label: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, include_background, to_onehot_y, sigmoid, softmax, other_act, batch, ignore_index)
        self.weight = ClassWeight(self._who(), None)
        self.prices, self.smooth, self.soft = (alpha, beta), (float(smooth_nr), float(smooth_dr)), soft_label

    def term(self, settings: dict[str, Any]) -> RegionLoss:
        fp, fn = self.prices
        return overlap(OurTversky, *self.smooth, self.minimum, settings | {"fp_weight": fp, "fn_weight": fn})

    def returned(self, value: Tensor, logits: Tensor) -> Tensor:
        return value.squeeze(0) if self.reduction == "none" and self.batch else value


@stands_for(
    "monai.losses.GeneralizedDiceLoss",
    "GeneralizedDiceLoss, with smoothing",
    ACTIVATION | SMOOTHING | {"w_type": "weighting"},
    (ABSENT,),
    REFUSES,
)
class GeneralizedDiceLoss(Overlap):
    """MONAI's generalised Dice loss: 1 − (2 Σ_c w_c TP_c + smooth_nr) / (Σ_c w_c (P_c + R_c) + smooth_dr).

    Limits: the weighted sums shrink as the objects grow, the smoothing does not: from some 10⁴ pixels a class it hides
    the errors. Ours, `lossmith.GeneralizedDiceLoss`, has none, as with smooth_nr=0 and smooth_dr=0. An image in which
    all classes that count are absent costs 1 − smooth_nr / smooth_dr whatever is predicted. With one channel the
    background is no class.
    """

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
        soft_label: bool = False,
    ) -> None:
        super().__init__(reduction, include_background, to_onehot_y, sigmoid, softmax, other_act, batch)
        powers = {"square": 2, "simple": 1, "uniform": 0}
        kind = str(getattr(w_type, "value", w_type))
        if kind not in powers:
            raise ValueError(f"{self._who()}: w_type must be 'square', 'simple' or 'uniform', got {w_type!r}")
        self.power, self.smooth, self.soft = powers[kind], (float(smooth_nr), float(smooth_dr)), soft_label

    def ours(self, channels: int) -> Loss:
        above, below = self.smooth
        return SmoothedGeneralizedDice(
            power=self.power, smooth=above, smooth_below=below, minimum=self.minimum, **self.by_class(channels)
        )

    def returned(self, value: Tensor, logits: Tensor) -> Tensor:
        if self.reduction != "none":
            return value
        return value.reshape(-1, *[1] * (logits.ndim - (2 if self.batch else 1)))


__all__ = ["Call", "DiceLoss", "GeneralizedDiceLoss", "MaskedDiceLoss", "TverskyLoss"]
