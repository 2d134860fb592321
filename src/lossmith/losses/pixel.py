"""Pixel losses: one number per pixel, a formula over u = −ln p_t.

Under a softmax t is the label of the pixel; under a sigmoid it is the yes or no of each channel, so that binary,
multiclass, multilabel and soft targets share every formula. A soft target costs the mean of the hard losses over its
labels. The mean divides by the weight of the valid pixels (class weights included, as PyTorch's cross-entropy does),
never by the number of all pixels, so that ignoring pixels is the same as cropping them away.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import mul
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..bounds import AboveOne, Fraction, NonNegative, Positive, PositiveWeight
from ..engine.contract import Event, Want
from ..engine.curves import CROSS_ENTROPY, Conservative, Curve, Focal, Power, SignedConservative
from ..engine.images import bind, pooled
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .dense import Dense


class PixelLoss(Dense):
    """ℓ = Σ price[label] · f(u), over a table of curves f, plus `spread` / L · Σ_k u_k over the L labels.

    The mean is Σ w ℓ / Σ w. A member may also choose pixels, in both sums (`chosen`), or scale ℓ alone (`scale`). What
    is needed of the engine follows: sums per label where they say everything, the u of every pixel where they do not.
    """

    family = "pixel"
    takes: ClassVar[frozenset[str]] = Dense.takes | {"denominator"}
    spread: ClassVar[float] = 0.0
    splits = frozenset({"images", "space"})
    priced_by: ClassVar[Literal["", "image", "batch"]] = ""  # prices that follow from the sums of an image, or of all

    def curves(self, groups: Groups | None) -> Table:
        """The curves with their prices: None, a factor, or one per label (or per group and label), inside ℓ and not in
        the mean's denominator. Without groups, only the curves are asked for, and whether there are prices."""
        raise NotImplementedError

    def sizes(self, batch: Batch) -> dict[str, Tensor]:
        """Further sums of the images, (N, C), that prices follow from, by name."""
        return {}

    def chosen(self, batch: Batch) -> Tensor | None:
        """The weight of every pixel in both sums, constant: 0 leaves it out. None: all 1."""
        return batch.pixel_weight

    def scale(self, batch: Batch, class_weight: Tensor | None) -> Tensor | None:
        """A factor of every pixel inside ℓ, constant, shaped like u. `class_weight`: that of its label."""
        return None

    @property
    def by_label(self) -> bool:
        """Whether the sums per label say everything, so that no number per pixel is needed."""
        own = any(getattr(type(self), hook) is not getattr(PixelLoss, hook) for hook in ("chosen", "scale", "pixels"))
        return not own and self.reduction != "none"

    def wants(self) -> Want:
        table, spreads = self.curves(None), self.spread > 0
        if not self.by_label:
            return Want(u=True, spread=spreads)
        priced = self.class_weight is not None or any(price is not None for _, price in table)
        return Want(curves=tuple(curve for curve, _ in table), labels=priced, spread=spreads)

    def value(self, batch: Batch) -> Any:
        if not self.priced_by or (self.priced_by == "batch" and batch.images.split is None):
            return self._value(batch, batch)
        curves = [curve for curve, _ in self.curves(None)] if self.by_label else []
        found = batch.grouped(self.priced_by == "image", curves, **self.sizes(batch))
        return bind(found, lambda groups: self._value(batch, groups))

    def _value(self, batch: Batch, groups: Groups) -> Any:
        counted = batch.label_price(self.class_weight, "class_weight")
        weight: Tensor | float
        if not self.by_label:
            amount, weight = self.pixels(batch, groups, counted, self.chosen(batch))
            return self.reduce(batch.images, amount, weight, batch.denominator)
        amount = groups.images.weighed(_times(self.label_sums(groups), counted))
        if groups.complete and counted is None:
            weight = batch.n_pixels * (1 if batch.exclusive else batch.n_classes)
        else:
            weighed = groups.valid_weight if counted is None else _times(groups.label_weight, counted)
            weight = groups.images.weighed(weighed)
        return self.reduce(groups.images, amount, weight, groups.denominator)

    def label_sums(self, groups: Groups) -> Tensor:
        """Σ w ℓ per group and label."""
        total = None
        for curve, price in self.curves(groups):
            amount = _times(groups.curve(curve), price)
            total = amount if total is None else total + amount
        assert total is not None
        if self.spread == 0:
            return total
        spread = groups.spread * groups.shared_out(self.spread, groups.spread)
        return total + _times(spread, self.spread_price(groups))

    def pixels(
        self, batch: Batch, groups: Groups, counted: Tensor | None, pixel: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """w ℓ and w per pixel, under the class weights `counted` and the weights of the pixels."""
        table = self.curves(groups)
        amounts, weights = [], []
        for event in batch.events:
            of_class = None if counted is None else batch.at_labels(counted.to(event.u), event.label)
            shares = [x for x in (pixel, event.chance, of_class) if x is not None]
            share = reduce(mul, shares) if shares else None
            values = [_at(batch, self.of_event(batch, curve, event), price, event.label) for curve, price in table]
            amounts.append(_times(_times(_added(values), share), self.scale(batch, of_class)))
            weights.append(share)
        if self.spread > 0:
            price = self.spread_price(batch)
            for u, label, _ in batch.every:
                value = _times(u, pixel) * batch.shared_out(self.spread, u)
                amounts.append(_at(batch, _at(batch, value, counted, label), price, label))
        known = [weight for weight in weights if weight is not None]
        return batch.natural(_added(amounts)), _added(known) if known else amounts[0].numel()

    def of_event(self, batch: Batch, curve: Curve, event: Event) -> Tensor:
        """f(u) of every pixel, were this its label."""
        return curve(event.u)

    def spread_price(self, groups: Groups) -> Price:
        """The price of a label in what is spread."""
        return None


Price = Tensor | float | None
Table = list[tuple[Curve, Price]]


def _times(amount: Tensor, price: Price) -> Tensor:
    return amount if price is None else amount * price


def _at(batch: Batch, value: Tensor, price: Price, label: Tensor | int) -> Tensor:
    """Values of pixels times the price of their label."""
    if isinstance(price, Tensor):
        return value * batch.at_labels(price.to(value), label)
    return _times(value, price)


def _added(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).sum(0)


class CrossEntropyLoss(PixelLoss):
    """Cross-entropy: how surprised the model is by the truth. With one channel, or multilabel, binary cross-entropy.

    ℓ = u = −ln p_t, and with label smoothing ε over L labels (L = C, or 2 under a sigmoid)
    ℓ = (1 − ε) u_t + ε/L Σ_k u_k, PyTorch's rule.

    Args:
        label_smoothing: ε in [0, 1].
        pos_weight: binary and multilabel: what a yes costs against a no, one number or one per channel, as PyTorch's
            `BCEWithLogitsLoss` has it: inside ℓ, not in the mean's denominator. Under a softmax it is an error.

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
    source = "Good 1952; label smoothing: Szegedy et al. 2016"
    label_smoothing: Fraction = 0.0
    pos_weight: PositiveWeight = None

    @property
    def spread(self) -> float:  # type: ignore[override]
        return self.label_smoothing

    def curves(self, groups: Groups | None) -> Table:
        price, rest = self.spread_price(groups), 1 - self.label_smoothing
        if price is None:
            return [(CROSS_ENTROPY, None if rest == 1 else rest)]
        return [(CROSS_ENTROPY, price if rest == 1 else price * rest)]

    def spread_price(self, groups: Groups | None) -> Price:
        if self.pos_weight is None or groups is None:
            return None if self.pos_weight is None else 1.0
        if groups.exclusive:
            raise ValueError(
                f"{groups.who}: pos_weight is for a yes or no in each channel; {groups.n_classes} classes that exclude "
                "each other have class_weight, one factor per class"
            )
        yes = groups.per_channel(self.pos_weight, "pos_weight")
        return torch.stack([torch.ones_like(yes), yes], -1)


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
    source = "Lin et al. 2017, arXiv 1708.02002"
    gamma: NonNegative = 2.0
    alpha: Fraction | Tensor | None = None

    def curves(self, groups: Groups | None) -> Table:
        return [(Focal(float(self.gamma)), self._price(groups))]

    def _price(self, groups: Groups | None) -> Price:
        if self.alpha is None or groups is None:
            return None if self.alpha is None else 1.0
        if groups.exclusive:
            if not isinstance(self.alpha, Tensor):
                raise ValueError(
                    f"{groups.who}: alpha={self.alpha!r} is one number, which weights the positives of a binary task; "
                    f"for {groups.n_classes} classes give one factor per class"
                )
            return groups.label_price(self.alpha, "alpha")
        if max(np.ravel(self.settings()["alpha"])) > 1:
            raise ValueError(f"{groups.who}: alpha of a yes or no must lie in [0, 1], got {self.settings()['alpha']}")
        alpha = groups.per_channel(self.alpha, "alpha")
        return torch.stack([1 - alpha, alpha], -1)


class PowerCrossEntropyLoss(PixelLoss):
    """Power cross-entropy: w_l u^γ, the pixel half of the exponential-logarithmic loss.

    w_l = (Σ_k f_k / f_l)^½ with f the frequencies of the labels; the mean divides by the pixels, not by Σ w.

    Args:
        exponent: γ ≥ 0.001; below 1 it flattens the loss of bad pixels and steepens that of good ones.
        frequencies: one number per class, counted over the training set (binary, multilabel: of no and of yes); only
            their ratios matter. None: those of the batch. A label of frequency 0 has weight 0.

    Range: [0, ∞): 0 when perfect, unbounded at worst.
    Limits: for γ < 1 the slope at a perfect pixel is that of −ln p at p = 1 − 1e-30; refuses `class_weight`.
    Paper: Wong et al., MICCAI 2018, arXiv 1809.00076.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
    >>> round(ls.PowerCrossEntropyLoss(exponent=0.5, frequencies=[1, 1, 2])(logits, target).item(), 4)  # 2 · 0.4076^½
    1.2769
    """

    name = "power_ce"
    range = (0.0, math.inf)
    source = "Wong et al. 2018, arXiv 1809.00076"
    without: ClassVar[dict[str, str]] = {"class_weight": "it weights labels by their frequency"}
    exponent: Positive = 0.3
    frequencies: Tensor | None = None

    @property
    def priced_by(self) -> Literal["", "batch"]:  # type: ignore[override]
        return "batch" if self.frequencies is None else ""

    def curves(self, groups: Groups | None) -> Table:
        return [(Power(float(self.exponent)), 1.0 if groups is None else self._price(groups))]

    def wants(self) -> Want:
        return super().wants() | Want(labels=True)

    def _price(self, groups: Groups) -> Tensor:
        if self.frequencies is None:
            counts = pooled(groups.images.weighed(groups.label_weight)).squeeze(0)
        else:
            counts = self.frequencies.to(groups.device, groups.dtype)
            if counts.shape != (groups.n_labels,):
                raise ValueError(
                    f"{groups.who}: frequencies needs {groups.n_labels} numbers, one per label, got {counts.numel()}"
                )
            counts = counts if groups.exclusive else counts.expand(groups.n_classes, 2)
        seen = counts > 0
        return torch.where(seen, counts.sum(-1, keepdim=True) / torch.where(seen, counts, 1.0), 0.0).sqrt()


class ConservativeLoss(PixelLoss):
    """Conservative loss: pulls bad pixels up and pushes very good ones back down, to p = 1/a.

    λ (1 + log_a p)² |log_a(−log_a p)|. The absolute value is our reading: the formula as it is usually transcribed,
    `form="signed"`, falls without end as p → 1, the opposite of what the paper's abstract describes.

    Args:
        lam: λ ≥ 0, the scale.
        base: a > 1; the loss is 0 at p = 1/a.
        form: "abs" or "signed".

    Range: [0, ∞) ("signed": (−∞, ∞)): 0 at p = 1/a, ∞ at both ends; −ln p counts as 1e-30 at least.
    Limits: not meant to be trained alone: it follows a warm-up by cross-entropy. The formula is unconfirmed.
    Paper: Zhu et al., "Penalizing top performers", ECCV 2018, arXiv 1809.00903.

    >>> import torch, lossmith as ls
    >>> round(ls.ConservativeLoss()(torch.tensor([[0.5]]).logit(), torch.tensor([1])).item(), 4)
    0.1726
    """

    name = "conservative"
    range = (-math.inf, math.inf)
    source = "Zhu et al. 2018, arXiv 1809.00903 (our reading)"
    lam: NonNegative = 5.0
    base: AboveOne = math.e
    form: Literal["abs", "signed"] = "abs"

    def curves(self, groups: Groups | None) -> Table:
        at = math.log(self.base)
        curve = Conservative(at) if self.form == "abs" else SignedConservative(at)
        return [(curve, self.lam / at)]


class QuadraticLoss(PixelLoss):
    """Quadratic (Brier) loss of the probabilities: what people used before cross-entropy.

    ½ mean_k (p_k − r_k)² over the labels; under a sigmoid ½ (1 − p_t)². Soft targets: the mean over their labels.

    Args:
        half: the ½ in front.

    Range: [0, ½] (with several classes [0, 1/C]), twice that without `half`: 0 when perfect.
    Limits: through a sigmoid it learns slowest where it is most wrong: its gradient has the factor p (1 − p).
    Paper: Brier, Monthly Weather Review 78 (1950); Nielsen, "Neural networks and deep learning" (2015), chapter 3.

    >>> import torch, lossmith as ls
    >>> round(ls.QuadraticLoss()(torch.tensor([[1.5]]), torch.tensor([0])).item(), 4)  # σ(1.5)² / 2
    0.3342
    """

    name = "quadratic"
    range = (0.0, 0.5)
    source = "Brier 1950; Nielsen 2015"
    half: bool = True  # type: ignore[assignment]  # nn.Module's method stays: read `settings()`

    @property
    def by_label(self) -> bool:
        return super().by_label and self.class_weight is None

    def wants(self) -> Want:
        return Want(labels=True, squares=True) if self.by_label else Want(u=True, labels=True)

    def curves(self, groups: Groups | None) -> Table:
        return [(CROSS_ENTROPY, self._factor)]  # with (1 − p)² in its place: see `of_event`

    @property
    def _factor(self) -> float:
        return 0.5 if self.settings()["half"] else 1.0

    def label_sums(self, groups: Groups) -> Tensor:
        s = groups.sums
        if groups.exclusive:  # per class, not per label: nothing but their total is asked for
            return (s.fp2 + s.fn2) * groups.shared_out(self._factor, s.fp2)
        return torch.stack([s.fp2, s.fn2], 2) * self._factor

    def of_event(self, batch: Batch, curve: Curve, event: Event) -> Tensor:
        if not batch.exclusive:
            return torch.expm1(-event.u).square()
        p, label = batch.field, event.label
        own = p[:, label] if isinstance(label, int) else p.gather(1, label.long().unsqueeze(1)).squeeze(1)
        others = p.square().sum(1) - own.square()
        return batch.shared_out(1.0, own) * (others + (1 - own).square())
