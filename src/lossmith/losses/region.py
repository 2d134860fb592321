"""Region losses: a formula over the soft counts of each class, from its false positives and false negatives.

Every loss here is a share of misses among misses and hits, 1 − hit / (hit + miss), written as miss / (hit + miss): the
first form is exactly 0 in float32 long before the prediction is perfect, the second keeps its digits and its gradient.

Per image (the default) or pooled over the batch; then the mean over the classes, then over the images. An image
without a valid pixel leaves the mean.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..arithmetic import TINY, power, ratio
from ..bounds import Fraction, NonNegative, Positive
from ..engine.contract import Sums, Want
from ..engine.problem import Task
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .dense import ClassLoss, picked


class RegionLoss(ClassLoss):
    """A formula over `Sums`."""

    family = "region"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    splits = frozenset({"images", "space"})
    background_counts: ClassVar[bool] = False  # with one channel, the formula sees background and foreground: (G, 2)

    def formula(self, s: Sums) -> Tensor:
        """The losses of the classes, (G, K), or of the groups, (G,), from their sums (G, K)."""
        raise NotImplementedError

    def wants(self) -> Want:
        return Want(errors=True)

    def class_losses(self, batch: Batch, groups: Groups, kept: list[int]) -> Tensor:
        sums = groups.sums
        if self.background_counts and batch.task == "binary":
            return self.formula(sums.both())
        return self.formula(
            sums if len(kept) == batch.n_classes == kept[-1] + 1 else sums.each(lambda x: picked(x, kept))
        )


def missed(miss: Tensor, hit: Tensor, smooth: float = 0.0, times: int = 1) -> Tensor:
    """1 − (n hit + ε) / (n hit + ε + miss), exact near perfection; 0 where there is neither. A hit counts n times."""
    total = torch.add(miss, hit, alpha=times)
    return miss / (total + smooth) if smooth > TINY else ratio(miss, total)


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
    source = "Milletari et al. 2016, arXiv 1606.04797; Drozdzal et al. 2016, arXiv 1608.04117"
    squared: bool = False
    smooth: NonNegative = 1.0

    def wants(self) -> Want:
        return Want(errors=True, squares=self.squared)

    def formula(self, s: Sums) -> Tensor:
        return missed(s.squared_error if self.squared else s.fp + s.fn, s.tp, self.smooth, times=2)


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
    source = "Rahman & Wang 2016, ISVC"
    smooth: NonNegative = 1.0

    def formula(self, s: Sums) -> Tensor:
        return missed(s.fp + s.fn, s.tp, self.smooth)


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
    source = "Salehi et al. 2017, arXiv 1706.05721"
    fp_weight: NonNegative = 0.3
    fn_weight: NonNegative = 0.7
    smooth: NonNegative = 1.0

    def formula(self, s: Sums) -> Tensor:
        return missed(self.fp_weight * s.fp + self.fn_weight * s.fn, s.tp, self.smooth)


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
    source = "Sudre et al. 2017, arXiv 1707.03237; Crum et al. 2006"
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


class TwoClassDiceLoss(RegionLoss):
    """Two-class Dice (DL2): half a Dice for the foreground and half for the background; binary.

    1 − (Σ p r + ε/2) / (Σ p + Σ r + ε) − (Σ (1−p)(1−r) + ε/2) / (Σ (2 − p − r) + ε); the paper has ε for ε/2.

    Args:
        smooth: ε ≥ 0.
        balanced: False is the paper's formula, which falls to −(N + ε) / (2N + ε), about −½, where the target of N
            pixels is empty and found to be.

    Range: [0, 1]: 0 when perfect, 1 at worst. With balanced=False (−1, 1], perfect below 0, towards −1 where ε ≫ N.
    Limits: needs a yes or no: one channel, or independent channels. A large background hides a small object's half.
    Paper: Sudre et al. 2017, arXiv 1707.03237.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.TwoClassDiceLoss(smooth=0.0)(p.logit(), target).item(), 4)
    0.2005
    """

    name = "dice2"
    source = "Sudre et al. 2017, arXiv 1707.03237"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "multilabel"})
    smooth: NonNegative = 1e-5
    balanced: bool = True

    def formula(self, s: Sums) -> Tensor:
        both = 2 * s.t - s.fn + s.fp  # Σ p + Σ r
        foreground, background = both + self.smooth, 2 * s.n - both + self.smooth
        missing = (s.fp + s.fn) / 2 - (0.0 if self.balanced else self.smooth / 2)
        return ratio(missing, foreground) + ratio(missing, background)


class LogCoshDiceLoss(RegionLoss):
    """Log-cosh Dice: Dice, quadratic near perfection. ln cosh L with L the Dice loss.

    Args:
        smooth: see `DiceLoss`.

    Range: [0, ln cosh 1 = 0.4338]: 0 when perfect, close to the end at worst.
    Limits: as Dice; its gradient vanishes near perfection.
    Paper: Jadon 2020, arXiv 2006.14822.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.LogCoshDiceLoss(smooth=0.0)(logits, target).item(), 4)
    0.0546
    """

    name = "logcosh_dice"
    range = (0.0, 0.4338)
    source = "Jadon 2020, arXiv 2006.14822"
    smooth: NonNegative = 1.0

    def formula(self, s: Sums) -> Tensor:
        dice = missed(s.fp + s.fn, s.tp, self.smooth, times=2)
        return torch.log1p(2 * torch.sinh(dice / 2) ** 2)  # ln cosh, exact near 0


class FocalTverskyLoss(TverskyLoss):
    """Focal Tversky: (1 − T)^exponent per class. Below 1, the exponent keeps the gradient alive near perfection.

    Args:
        fp_weight, fn_weight, smooth: see `TverskyLoss`.
        exponent: ≥ 0.001; the paper's γ = 4/3 is exponent = 1/γ = 0.75.

    Range: [0, 1]: 0 when perfect, close to 1 at worst.
    Limits: a frequent copy raises to γ instead of 1/γ, which does the opposite.
    Paper: Abraham & Khan 2018, arXiv 1810.07842.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.FocalTverskyLoss(smooth=0.0)(logits, target).item(), 4)
    0.3331
    """

    name = "focal_tversky"
    source = "Abraham & Khan 2018, arXiv 1810.07842"
    exponent: Positive = 0.75

    def formula(self, s: Sums) -> Tensor:
        return power(super().formula(s), self.exponent)


class SensitivitySpecificityLoss(RegionLoss):
    """Sensitivity–specificity: the mean squared error on the positives and on the negatives, with a share each.

    λ Σ (r−p)² r / (Σ r + ε) + (1−λ) Σ (r−p)² (1−r) / (Σ (1−r) + ε) per class. Soft targets weigh (1−p)² with r and p²
    with 1 − r.

    Args:
        sensitivity: λ in [0, 1], the share of the positives; larger finds more of them.
        smooth: ε ≥ 0.

    Range: [0, 1]: 0 when perfect, close to 1 at worst; (1−λ) of it where the class is absent.
    Limits: squares: a saturated error has little gradient.
    Paper: Brosch et al., MICCAI 2015; Sudre et al. 2017, arXiv 1707.03237.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.SensitivitySpecificityLoss()(p.logit(), target).item(), 4)
    0.028
    """

    name = "ss"
    source = "Brosch et al. 2015; Sudre et al. 2017, arXiv 1707.03237"
    sensitivity: Fraction = 0.05
    smooth: NonNegative = 1e-5

    def wants(self) -> Want:
        return Want(errors=True, squares=True)

    def formula(self, s: Sums) -> Tensor:
        positives, negatives = ratio(s.fn2, s.t + self.smooth), ratio(s.fp2, s.n - s.t + self.smooth)
        return self.sensitivity * positives + (1 - self.sensitivity) * negatives


class LogDiceLoss(RegionLoss):
    """Logarithmic Dice: (−ln D)^γ per class, the region half of the exponential-logarithmic loss.

    D = (2 Σ p r + ε) / (Σ p + Σ r + ε). With one channel the two classes are background and foreground.

    Args:
        exponent: γ ≥ 0.001.
        smooth: ε ≥ 0.001: without it a class that is absent would cost ∞, and one that is nearly missed its digits.

    Range: [0, ∞): 0 when perfect, grows without bound as the overlap vanishes.
    Limits: as Dice; refuses `class_weight`.
    Paper: Wong et al., MICCAI 2018, arXiv 1809.00076.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]]), torch.tensor([[1, 0, 0, 0]])
    >>> round(ls.LogDiceLoss(exponent=1.0, smooth=0.001)(logits, target).item(), 4)  # (−ln 0.8 − ln 0.6667) / 2
    0.3143
    """

    name = "log_dice"
    range = (0.0, math.inf)
    source = "Wong et al. 2018, arXiv 1809.00076"
    background_counts = True
    without: ClassVar[dict[str, str]] = {"class_weight": "every class counts the same in it"}
    exponent: Positive = 0.3
    smooth: Positive = 1.0

    def formula(self, s: Sums) -> Tensor:
        hit = 2 * s.tp.clamp(min=0.0) + self.smooth  # a difference: its rounding must not reach below −ε
        return power(torch.log1p((s.fp + s.fn) / hit), self.exponent)  # −ln D = ln(1 + miss / hit)
