"""Pixel losses: one number per pixel, a formula over u = −ln p_t.

Under a softmax t is the label of the pixel; under a sigmoid it is the yes or no of each channel, so that binary,
multiclass, multilabel and soft targets share every formula. A soft target costs the mean of the hard losses over its
labels. The mean divides by the weight of the valid pixels (class weights included, as PyTorch's cross-entropy does),
never by the number of all pixels, so that ignoring pixels is the same as cropping them away.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .batch import Batch
from .engine import Curve, Want
from .loss import Dense
from .settings import Fraction, NonNegative


class PixelLoss(Dense):
    """A formula over u. A member gives `formula`, or a `curve` that the kernels sum up without writing u anywhere."""

    family = "pixel"
    takes: ClassVar[frozenset[str]] = Dense.takes | {"denominator"}

    def curve(self) -> Curve | None:
        """The formula as a curve that the kernels know, if they know it."""
        return None

    def formula(self, u: Tensor) -> Tensor:
        """The loss of a pixel from u = −ln p_t, element by element."""
        curve = self.curve()
        assert curve is not None
        return curve(u)

    def price(self, batch: Batch) -> Tensor | None:
        """A factor per label inside the loss; unlike `class_weight` it does not enter the mean's denominator."""
        return None

    def wants(self) -> Want:
        curve = self.curve()
        return Want(u=True) if curve is None or self.reduction == "none" else Want(curves=frozenset({curve}))

    def value(self, batch: Batch) -> Tensor:
        if batch.denominator is not None and self.reduction != "mean":
            raise ValueError(f"{batch.who}: a denominator belongs to reduction='mean', not to {self.reduction!r}")
        counted = batch.label_price(self.class_weight, "class_weight")
        price = self.price(batch)
        if self.reduction == "none" or self.curve() is None:
            amount, weight = self.pixels(batch, counted, price)
        else:
            amount, weight = self.label_sums(batch), batch.label_weight
            amount, weight = (x if counted is None else x * counted for x in (amount, weight))
            amount = batch.of_images(amount if price is None else amount * price)
            weight = batch.of_images(weight)
        return self.reduce(amount, weight, batch.denominator)

    def label_sums(self, batch: Batch) -> Tensor:
        """Σ w ℓ per image and label."""
        curve = self.curve()
        assert curve is not None
        return batch.curve(curve)

    def pixels(self, batch: Batch, counted: Tensor | None, price: Tensor | None) -> tuple[Tensor, Tensor]:
        """w ℓ and w per pixel, under the class weights `counted` and the prices of the labels."""
        amount, weight = torch.zeros_like(batch.pixel_weight), torch.zeros_like(batch.pixel_weight)
        for event in batch.events:
            share = batch.pixel_weight if event.chance is None else batch.pixel_weight * event.chance
            share = share if counted is None else share * batch.at_labels(counted, event.label).to(share)
            value = self.formula(event.u)
            value = value if price is None else value * batch.at_labels(price, event.label).to(value)
            amount, weight = amount + share * value, weight + share
        return batch.natural(amount), weight


class CrossEntropyLoss(PixelLoss):
    """Cross-entropy: how surprised the model is by the truth. With one channel, or multilabel, binary cross-entropy.

    ℓ = u = −ln p_t, and with label smoothing ε over L labels (L = C, or 2 under a sigmoid)
    ℓ = (1 − ε) u_t + ε/L Σ_k u_k, PyTorch's rule.

    Args:
        label_smoothing: ε in [0, 1].

    Range: [0, ∞): 0 when perfect (soft targets: their entropy), ln C (binary: ln 2) when uniform, unbounded at worst.
    Limits: easy pixels own most of the gradient when classes are imbalanced.
    Paper: Good, "Rational decisions", J. R. Stat. Soc. B 14 (1952); label smoothing: Szegedy et al., CVPR 2016.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
    >>> round(ls.CrossEntropyLoss()(logits, target).item(), 4)
    0.4076
    """

    name = "ce"
    range = (0.0, math.inf)
    paper = "Good 1952; label smoothing: Szegedy et al. 2016"
    label_smoothing: Fraction = 0.0

    def curve(self) -> Curve:
        return Curve(0.0)

    def wants(self) -> Want:
        return super().wants() | Want(spread=self.label_smoothing > 0)

    def label_sums(self, batch: Batch) -> Tensor:
        if self.label_smoothing == 0:
            return super().label_sums(batch)
        share = self.label_smoothing / batch.n_labels
        return (1 - self.label_smoothing) * super().label_sums(batch) + share * batch.spread

    def pixels(self, batch: Batch, counted: Tensor | None, price: Tensor | None) -> tuple[Tensor, Tensor]:
        amount, weight = super().pixels(batch, counted, price)
        amount = (1 - self.label_smoothing) * amount
        for u, label, _ in batch.every:
            value = u * batch.pixel_weight * (self.label_smoothing / batch.n_labels)
            value = value if counted is None else value * batch.at_labels(counted, label).to(value)
            amount = amount + batch.natural(value)
        return amount, weight


class FocalLoss(PixelLoss):
    """Focal loss: cross-entropy with the easy pixels turned down. gamma = 0 is cross-entropy.

    ℓ = α_t (1 − p_t)^γ u, u = −ln p_t, with the softmax's p_t for several classes and the sigmoid's for one channel or
    multilabel. The mean divides by the valid pixels; the paper's normaliser is `denominator=` the number of positives.

    Args:
        gamma: γ ≥ 0, how strongly easy pixels are turned down.
        alpha: binary and multilabel: α in [0, 1] for positives and 1 − α for negatives (one number, or one per
            channel); multiclass: one factor per class. Unlike `class_weight` it stays out of the mean's denominator.

    Range: [0, ∞): 0 when perfect, (1 − 1/C)^γ ln C when uniform, unbounded at worst.
    Limits: soft targets are averaged over their labels, so a soft target's own value is not the minimum.
    Paper: Lin et al., "Focal loss for dense object detection", ICCV 2017, arXiv 1708.02002.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[0.5]]), torch.tensor([0])
    >>> round(ls.FocalLoss(gamma=2.0, alpha=0.25)(logits, target).item(), 4)
    0.2831
    """

    name = "focal"
    range = (0.0, math.inf)
    paper = "Lin et al. 2017, arXiv 1708.02002"
    gamma: NonNegative = 2.0
    alpha: Fraction | Tensor | None = None

    def curve(self) -> Curve:
        return Curve(float(self.gamma))

    def price(self, batch: Batch) -> Tensor | None:
        if self.alpha is None:
            return None
        alpha = torch.as_tensor(self.alpha, dtype=batch.stats.n.dtype, device=batch.stats.n.device)
        if batch.softmax:
            if alpha.ndim == 0:
                raise ValueError(
                    f"{batch.who}: alpha={self.alpha!r} is one number, which weights the positives of a binary task; "
                    f"for {batch.n_classes} classes give one factor per class"
                )
            return batch.label_price(alpha, "alpha")
        if max(np.ravel(self.settings()["alpha"])) > 1:
            raise ValueError(f"{batch.who}: alpha of a yes or no must lie in [0, 1], got {self.settings()['alpha']}")
        if alpha.ndim and alpha.shape != (batch.n_classes,):
            raise ValueError(
                f"{batch.who}: alpha needs one number, or one per channel ({batch.n_classes}), got {alpha.numel()}"
            )
        return torch.stack([1 - alpha, alpha], -1).expand(batch.n_classes, 2)
