"""MONAI's focal losses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...checks import shape
from ...engine.tensors import can_look
from ...inputs.call import unwrapped
from ...loss import Loss
from ...losses.pixel import FocalLoss as OurFocal
from ...losses.sum import UnifiedFocalPixels, UnifiedTversky
from ..peer import Fault, numbers, stands_for, times
from .reading import Call, ClassWeight, Segmentation, Weight, counted

NOBODY = -100  # ignored by ours unless it is told another


@stands_for(
    "monai.losses.FocalLoss",
    "FocalLoss",
    {
        "use_softmax": "task='multiclass', else 'multilabel'; its mean divides by the classes too",
        "gamma": "gamma",
        "alpha": "alpha; of several numbers under a sigmoid class_weight and alpha",
        "weight": "alpha under a softmax, class_weight times its mean under a sigmoid",
        "include_background": "without, logits[:, 1:]: under a softmax the others share what the background had",
        "reduction": "'sum' is the sum over images and classes of the means over pixels",
        "ignore_index": "ignore_index; of a one-hot target weight=",
    },
    (
        Fault(
            "ignore_index, several channels, reduction='mean'",
            "divides by the valid pixels alone, and is C times as large as without ignore_index",
            "by the pixels and the classes in both cases",
        ),
        Fault(
            "soft targets under a sigmoid",
            "turns them down by the logit times 2r − 1",
            "the mean of the losses of yes and no",
        ),
    ),
    {"a softmax of one channel": "its loss is 0 everywhere; use_softmax=False"},
)
class FocalLoss(Segmentation):
    """MONAI's focal loss: the mean of α (1 − p_t)^γ (−ln p_t) over images, pixels and classes.

    Under a sigmoid, the default, every class is a yes or no; with `use_softmax` all but the pixel's own class cost 0.
    A shape that does not fit is a ValueError.
    """

    misfit = ValueError

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        weight: Weight = None,
        reduction: str = "mean",
        use_softmax: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(
            reduction, include_background, to_onehot_y, not use_softmax, use_softmax, ignore_index=ignore_index
        )
        self.gamma = gamma
        self.alpha = alpha if alpha is None or isinstance(alpha, float | int) else numbers(alpha)
        self.weight = ClassWeight(self._who(), weight)
        if use_softmax and not include_background and isinstance(self.alpha, float | int):
            warnings.warn(
                f"{self._who()}: one alpha weighs the background against the rest, and has no effect without it",
                UserWarning,
                stacklevel=2,
            )
            self.alpha = None

    def ours(self, channels: int) -> Loss:
        classes = self.kept(channels)
        weights = self._weights(channels)
        task = "multiclass" if self.activation == "softmax" else "binary" if classes == 1 else "multilabel"
        settings: dict[str, Any] = {"gamma": self.gamma, "task": task}
        settings["reduction"] = "none" if self.reduction == "none" else "mean"  # a sum is one over the pixels
        if self.ignore_index is not None and self.labelled(channels) and classes == channels:
            settings["ignore_index"] = self.ignore_index
        if task == "multiclass":
            if classes == 1:
                raise ValueError(f"{self._who()}: a softmax of one channel is 1 everywhere; use use_softmax=False")
            prices = [a * w for a, w in zip(self._alphas(classes), weights, strict=True)]
            factor = 1 / classes if self.reduction == "mean" else 1.0
            if any(price != 1 for price in prices):
                settings["alpha"] = prices
            return times(factor, OurFocal(**settings))
        if isinstance(self.alpha, list):
            settings["alpha"] = [a / (1 + a) for a in self._alphas(classes)]
        elif self.alpha is not None:
            settings["alpha"] = float(self.alpha)
        if len({*weights}) > 1:
            settings["class_weight"] = weights
            factor = sum(weights) / classes if self.reduction == "mean" else 1.0
        else:
            factor = weights[0]
        return OurFocal(**settings) if self.reduction == "none" else times(factor, OurFocal(**settings))

    def _weights(self, channels: int) -> list[float]:
        """What the classes weigh. Several alphas under a sigmoid are prices of a yes, where a no has 1: our α against
        1 − α, times 1 + alpha."""
        given, classes = self.weight.given, self.kept(channels)
        if channels == 1 and given is not None and given.ndim:
            raise ValueError(f"{self._who()}: weights of classes need several channels; one number weighs one channel")
        weights = self.weight.of(classes) or [1.0] * classes
        if self.activation == "softmax" or not isinstance(self.alpha, list):
            return weights
        return [w * (1 + a) for w, a in zip(weights, self._alphas(classes), strict=True)]

    def _alphas(self, classes: int) -> list[float]:
        if self.alpha is None:
            return [1.0] * classes
        if isinstance(self.alpha, float | int):
            return [1 - self.alpha] + [self.alpha] * (classes - 1)
        if len(self.alpha) != classes:
            raise ValueError(f"{self._who()}: the length of alpha is {len(self.alpha)}, of {classes} classes")
        return self.alpha

    def read(self, input: Tensor, target: Tensor) -> Call:
        self.built(input.shape[1], input.device)  # says first what is wrong with the settings
        logits, target, keywords = super().read(input, target)
        target = unwrapped(self._who(), target)
        channels, valid = logits.shape[1], None
        if self.ignore_index is not None:
            valid = target[:, 0] != self.ignore_index if self.labelled(channels) else counted(target, self.ignore_index)
        if self.kept(channels) < channels:
            logits = logits[:, 1:]
            target = self._without_background(target, logits.shape[1]) if self.to_onehot_y else target[:, 1:]
            if self.activation == "softmax":  # pixels of the background count in the mean
                keywords["denominator"] = logits[:, 0].numel() if valid is None else valid.sum()
        if self.reduction == "sum":
            keywords["denominator"] = logits[0, 0].numel()
            if valid is not None:
                share = valid.to(logits).flatten(1)
                share = share / share.sum(1, keepdim=True).clamp(min=1)
                keywords |= {"weight": share.view(logits[:, 0].shape), "denominator": 1}
        return Call(logits, target, keywords)

    def _without_background(self, labels: Tensor, classes: int) -> Tensor:
        """Labels (B, *S) of the other classes; what belongs to none of them costs nothing under a softmax, and a no to
        each of them under a sigmoid."""
        labels = labels[:, 0].long()
        ignored = None if self.ignore_index is None else labels == self.ignore_index
        other = NOBODY if self.activation == "softmax" else classes if classes > 1 else 0
        labels = torch.where(labels == 0, other, labels - int(classes > 1))
        return labels if ignored is None else labels.masked_fill(ignored, NOBODY)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if self.reduction != "none":
            return super().forward(input, target)
        logits, target, keywords = self.read(input, target)
        loss = self.built(input.shape[1], logits.device)
        if self.activation == "softmax":
            return self._of_every_class(loss, logits, target, keywords)
        value: Tensor = loss(logits, target, **keywords)
        weights = self._weights(input.shape[1])
        return (value if len({*weights}) > 1 else value * weights[0]).reshape(logits.shape)

    def _of_every_class(self, loss: Loss, logits: Tensor, target: Tensor, keywords: dict[str, Any]) -> Tensor:
        """What each class of each pixel costs, (B, C, *S)."""
        share = target
        if target.shape != logits.shape:
            labels = target.reshape(logits[:, :1].shape).long()
            channels = torch.arange(logits.shape[1], dtype=labels.dtype, device=labels.device)
            share = labels == channels.view(-1, *[1] * (logits.ndim - 2))
            if self.ignore_index is not None and self.include_background:  # without, they are marked already
                share = share & (labels != self.ignore_index)
        keywords.pop("denominator", None)
        every = [
            type(loss)(**(loss.settings() | {"ignore_index": NOBODY}))(
                logits, torch.full_like(logits[:, 0], k, dtype=torch.long), **keywords
            )
            for k in range(logits.shape[1])
        ]
        return torch.stack(every, 1) * share


@stands_for(
    "monai.losses.AsymmetricUnifiedFocalLoss",
    "UnifiedFocalLoss",
    {
        "weight": "lam, of a focal half that is half of ours",
        "gamma, delta": "gamma, delta",
        "reduction": "without effect, as there: each half is a mean",
        "y_pred": "probabilities of background and foreground, or of the foreground alone",
    },
    (
        Fault(
            "y_pred that is no probability",
            "its text asks for logits; there is no activation, they are cut to [0, 1]",
            "raises a ValueError",
        ),
        Fault(
            "ignore_index",
            "ignored pixels stay in the focal half's mean, so that more void is less loss",
            "they leave it",
        ),
    ),
    {"more than two classes": "it looks at the first two alone; lossmith.UnifiedFocalLoss takes any number, of logits"},
)
class AsymmetricUnifiedFocalLoss(Segmentation):
    """MONAI's asymmetric unified focal loss, of probabilities: weight · focal / 2 + (1 − weight) · focal Tversky."""

    misfit = ValueError

    def __init__(
        self,
        to_onehot_y: bool = False,
        num_classes: int = 2,
        weight: float = 0.5,
        gamma: float = 0.5,
        delta: float = 0.7,
        reduction: str = "mean",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, to_onehot_y=to_onehot_y, ignore_index=ignore_index)
        if num_classes != 2:
            raise ValueError(
                f"{self._who()}: num_classes must be 2, got {num_classes}; lossmith.UnifiedFocalLoss takes any number "
                "of classes, and logits"
            )
        self.share, self.gamma, self.delta = weight, gamma, delta

    def ours(self, channels: int) -> Loss:
        if channels > 2:
            raise ValueError(
                f"{self._who()}: {channels} channels, but it is defined for background and foreground; "
                "lossmith.UnifiedFocalLoss takes any number of classes, and logits"
            )
        settings = self.shared(channels) | {"gamma": self.gamma, "delta": self.delta}
        settings |= {"task": "binary" if channels == 1 else "multiclass", "reduction": "mean"}
        pixels = UnifiedFocalPixels(**settings)
        return self.share / 2 * pixels + (1 - self.share) * UnifiedTversky(smooth=1e-7, **settings)

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        """The loss of y_pred (B, 1 or 2, *S) with y_true shaped like it, or labels (B, 1, *S) with `to_onehot_y`."""
        if y_pred.ndim not in (4, 5):
            raise ValueError(f"{self._who()}: y_pred must be (B, C, H, W) or (B, C, H, W, D), got {shape(y_pred)}")
        return super().forward(y_pred, y_true)

    def logits(self, input: Tensor) -> Tensor:
        if can_look(input) and bool(((input < 0) | (input > 1)).any()):
            raise ValueError(f"{self._who()}: y_pred must hold probabilities; logits want .softmax(1), or .sigmoid()")
        p = input.clamp(1e-7, 1 - 1e-7)
        return p.logit() if input.shape[1] == 1 else p.log()

    def returned(self, value: Tensor, logits: Tensor) -> Tensor:
        return value
