"""Region losses: a formula over the soft counts of each class, from its false positives and false negatives.

Every loss here is a share of misses among misses and hits, 1 − hit / (hit + miss), written as miss / (hit + miss): the
first form is exactly 0 in float32 long before the prediction is perfect, the second keeps its digits and its gradient.

Per image (the default) or pooled over the batch; then the mean over the classes, then over the images. An image
without a valid pixel leaves the mean.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .batch import Batch, Sums
from .engine import Want
from .loss import ClassLoss, ratio
from .settings import NonNegative


class RegionLoss(ClassLoss):
    """A formula over `Sums`."""

    family = "region"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    background_counts: ClassVar[bool] = False  # with one channel, the formula sees background and foreground: (G, 2)

    def formula(self, s: Sums) -> Tensor:
        """The losses of the classes, (G, K), or of the groups, (G,), from their sums (G, K)."""
        raise NotImplementedError

    def wants(self) -> Want:
        return Want(errors=True)

    def class_losses(self, batch: Batch, kept: list[int]) -> Tensor:
        sums = batch.sums if self.per_image else batch.sums.pooled(batch.sample)
        return self.formula(sums.both() if self.background_counts and batch.task == "binary" else sums.of(kept))


def missed(miss: Tensor, hit: Tensor) -> Tensor:
    """1 − hit / (hit + miss), exact near perfection; 0 where there is neither."""
    return ratio(miss, hit + miss)


class DiceLoss(RegionLoss):
    """Dice loss: one minus the overlap of prediction and target over their mean size.

    1 − (2 Σ p r + ε) / (Σ p + Σ r + ε) per class; `squared=True`: V-Net's Σ p² + Σ r² below the line.

    Args:
        squared: squares in the denominator; slower to trust small probabilities.
        smooth: ε ≥ 0. It decides what a false positive on an absent class costs: p / (p + ε). With ε = 1 the cost
            grows with every pixel; with ε = 1e-5 it is 1 from the first, and its slope there is 1e5.

    Range: [0, 1]: 0 when perfect (also empty on empty), close to 1 at worst.
    Limits: does not see where an error lies, nor true negatives; the gradient is small until something overlaps.
    Paper: Milletari et al. 2016 (squared), arXiv 1606.04797; Drozdzal et al. 2016 (linear), arXiv 1608.04117.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.DiceLoss(smooth=0.0)(logits, target).item(), 4)  # one hit, one false positive
    0.3334
    """

    name = "dice"
    paper = "Milletari et al. 2016, arXiv 1606.04797; Drozdzal et al. 2016, arXiv 1608.04117"
    squared: bool = False
    smooth: NonNegative = 1.0

    def wants(self) -> Want:
        return Want(errors=True, squares=self.squared)

    def formula(self, s: Sums) -> Tensor:
        return missed(s.squared_error if self.squared else s.fp + s.fn, 2 * s.tp + self.smooth)


class JaccardLoss(RegionLoss):
    """Jaccard (IoU) loss: one minus intersection over union.

    1 − (Σ p r + ε) / (Σ p + Σ r − Σ p r + ε) per class.

    Args:
        smooth: ε ≥ 0, see `DiceLoss`.

    Range: [0, 1]: 0 when perfect, close to 1 at worst. Stricter than Dice on a bad overlap: as scores, J = D / (2 − D).
    Limits: as Dice.
    Paper: Rahman & Wang, "Optimizing intersection-over-union in deep neural networks", ISVC 2016.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.JaccardLoss(smooth=0.0)(logits, target).item(), 4)
    0.5001
    """

    name = "jaccard"
    paper = "Rahman & Wang 2016, ISVC"
    smooth: NonNegative = 1.0

    def formula(self, s: Sums) -> Tensor:
        return missed(s.fp + s.fn, s.tp + self.smooth)


class TverskyLoss(RegionLoss):
    """Tversky loss: Dice with separate prices for false positives and false negatives.

    1 − (TP + ε) / (TP + a FP + b FN + ε) per class. a = b = ½ is Dice (with ε halved), a = b = 1 is Jaccard.

    Args:
        fp_weight: a ≥ 0 (α of Salehi et al., β of Abraham & Khan).
        fn_weight: b ≥ 0 (β of Salehi et al., α of Abraham & Khan); above `fp_weight` it buys recall.
        smooth: ε ≥ 0, see `DiceLoss`.

    Range: [0, 1]: 0 when perfect, close to 1 at worst.
    Limits: as Dice; with a weight of 0 that kind of error is free.
    Paper: Salehi et al., "Tversky loss function for image segmentation", 2017, arXiv 1706.05721.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.TverskyLoss(smooth=0.0)(logits, target).item(), 4)  # a false positive is cheap
    0.2309
    """

    name = "tversky"
    paper = "Salehi et al. 2017, arXiv 1706.05721"
    fp_weight: NonNegative = 0.3
    fn_weight: NonNegative = 0.7
    smooth: NonNegative = 1.0

    def formula(self, s: Sums) -> Tensor:
        return missed(self.fp_weight * s.fp + self.fn_weight * s.fn, s.tp + self.smooth)


class GeneralizedDiceLoss(RegionLoss):
    """Generalised Dice loss: one ratio over all classes, rare classes weighted up by their size in the target.

    1 − 2 Σ_c w_c TP_c / Σ_c w_c (P_c + R_c), w_c = 1 / R_c² ("square"), 1 / R_c ("simple") or 1 ("uniform"). With one
    channel the two classes are background and foreground.

    Args:
        weighting: how w follows from the size R_c of the class in the target.
        absent: a class that the target lacks has no finite weight: "max" gives it the largest of the others, so that
            false positives still cost; "skip" leaves it out.

    Range: [0, 1]: 0 when perfect, 1 at worst.
    Limits: one small object can own the gradient; refuses `class_weight`, its weights are its point.
    Paper: Sudre et al. 2017, arXiv 1707.03237; the score: Crum et al., IEEE TMI 25 (2006).

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.GeneralizedDiceLoss()(logits, target).item(), 4)
    0.3126
    """

    name = "gdl"
    paper = "Sudre et al. 2017, arXiv 1707.03237; Crum et al. 2006"
    background_counts = True
    without: ClassVar[dict[str, str]] = {"class_weight": "its weights come from the sizes of the classes"}
    weighting: Literal["square", "simple", "uniform"] = "square"
    absent: Literal["max", "skip"] = "max"  # type: ignore[assignment]  # instead of "smooth": it has no ε

    def formula(self, s: Sums) -> Tensor:
        exponent = {"square": 2, "simple": 1, "uniform": 0}[self.weighting]
        present = s.t > 0
        smallest = torch.where(present, s.t, torch.inf).amin(1, keepdim=True)
        relative = torch.where(present, smallest / torch.where(present, s.t, 1.0), 1.0)  # in (0, 1], the rarest has 1
        w = relative**exponent * (1.0 if self.absent == "max" else present)
        return missed((w * (s.fp + s.fn)).sum(1), (w * 2 * s.tp).sum(1))
