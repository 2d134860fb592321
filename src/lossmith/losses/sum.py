"""Recipes: sums that have a name. They are made of ordinary losses, and read the logits once like every sum."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..arithmetic import power
from ..bounds import BelowOne, Classes, Fraction, NonNegative, Positive
from ..engine.contract import Sums
from ..engine.curves import CROSS_ENTROPY, Focal
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from ..loss import Loss
from ..schedule import Weight
from .dense import ClassLoss
from .pixel import CrossEntropyLoss, FocalLoss, PixelLoss, PowerCrossEntropyLoss, Price, Table
from .region import DiceLoss, LogDiceLoss, RegionLoss, TverskyLoss, missed


class Recipe(ClassLoss):
    """A named sum. A member's `formula` says of what; the shared settings reach every term that has them."""

    family = "sum"
    takes: ClassVar[frozenset[str]] = PixelLoss.takes
    reduction: Literal["mean", "sum"] = "mean"  # a sum is one number

    def derive(self) -> None:
        super().derive()
        self.sum = self.formula()

    def formula(self) -> Loss:
        """The sum."""
        raise NotImplementedError

    def shared(self, cls: type[Loss]) -> dict[str, Any]:
        """The settings of this recipe that the losses of a class have too, and that are not the recipe's own."""
        inherited = ClassLoss.keywords.keys() & cls.keywords.keys() & self.keywords.keys()
        return {name: self._given[name] for name in inherited}

    @property
    def terms(self) -> list[tuple[Weight, Loss]]:
        return self.sum.terms

    def suits(self, batch: Batch) -> None:
        if self.class_weight is None or self.classes is not None or not self.include_background:
            super().suits(batch)  # class weights alone are fine: its pixel term has a use for them

    def _who(self) -> str:
        return type(self).__name__


class DiceCELoss(Recipe):
    """Dice plus cross-entropy, the field's workhorse; with one channel, or multilabel, Dice plus BCE.

    Args:
        dice_weight, ce_weight: the weights of the two.

    Range: [0, ∞): 0 when perfect. nnU-Net's version subtracts the Dice score instead: the same gradient, one less.
    Limits: cross-entropy is the larger part early, Dice later; the sum is no probability score.
    Paper: Isensee et al., "nnU-Net", 2018, arXiv 1809.10486.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.DiceCELoss()(p.logit(), target).item(), 4)
    0.4028
    """

    name = "dice_ce"
    range = (0.0, math.inf)
    source = "Isensee et al. 2018, arXiv 1809.10486"
    dice_weight: NonNegative = 1.0
    ce_weight: NonNegative = 1.0

    def formula(self) -> Loss:
        dice, ce = DiceLoss(**self.shared(DiceLoss)), CrossEntropyLoss(**self.shared(CrossEntropyLoss))
        return self.dice_weight * dice + self.ce_weight * ce


class DiceFocalLoss(Recipe):
    """Dice plus focal loss.

    Args:
        dice_weight, focal_weight: the weights of the two. The paper weighs the focal loss by 0.1, 0.5 or 1.
        gamma: see `FocalLoss`.

    Range: [0, ∞): 0 when perfect.
    Limits: the focal loss is a mean over pixels here, and small beside Dice; the paper sums Dice over the classes.
    Paper: Zhu et al., "AnatomyNet", Med. Phys. 2019, arXiv 1808.05238.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.DiceFocalLoss()(p.logit(), target).item(), 4)
    0.1899
    """

    name = "dice_focal"
    range = (0.0, math.inf)
    source = "Zhu et al. 2019, arXiv 1808.05238"
    dice_weight: NonNegative = 1.0
    focal_weight: NonNegative = 1.0
    gamma: NonNegative = 2.0

    def formula(self) -> Loss:
        dice, focal = DiceLoss(**self.shared(DiceLoss)), FocalLoss(gamma=self.gamma, **self.shared(FocalLoss))
        return self.dice_weight * dice + self.focal_weight * focal


class ComboLoss(Recipe):
    """Combo loss: cross-entropy that weighs the foreground against the background, minus the Dice score.

    α (1/N) Σ w u − (1 − α) mean Dice, w = β where the label is above 0 and 1 − β where it is 0.

    Args:
        alpha: α in [0, 1], the share of the cross-entropy.
        beta: β in [0, 1]; above ½ it punishes false negatives, below ½ false positives. One source states the reverse.
        smooth: ε of the Dice score.
        shift: adds 1 − α, so that perfect is 0.

    Range: [−(1−α), ∞), [0, ∞) with `shift`: the lowest value when perfect.
    Limits: negative, as the paper has it. The authors' repository has a sign error that maximises the background's
        cross-entropy; this is the paper's formula.
    Paper: Taghanaki et al., Comput. Med. Imaging Graph. 2019, arXiv 1805.02798.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.ComboLoss()(p.logit(), target).item(), 4)
    -0.3576
    """

    name = "combo"
    range = (-0.5, math.inf)
    source = "Taghanaki et al. 2019, arXiv 1805.02798"
    alpha: Fraction = 0.5
    beta: Fraction = 0.5
    smooth: NonNegative = 1.0
    shift: bool = False

    def formula(self) -> Loss:
        dice = DiceLoss if self.shift else NegativeDice
        pixels = ForegroundCrossEntropy(beta=self.beta, **self.shared(ForegroundCrossEntropy))
        return self.alpha * pixels + (1 - self.alpha) * dice(smooth=self.smooth, **self.shared(dice))


class ForegroundCrossEntropy(CrossEntropyLoss, part="ce"):
    """β u where the label is above 0, (1 − β) u where it is 0."""

    without: ClassVar[dict[str, str]] = {"pos_weight": "beta is its weight of the foreground"}
    beta: Fraction = 0.5

    def spread_price(self, groups: Groups | None) -> Price:
        if groups is None:
            return 1.0
        price = torch.full((groups.n_labels,), float(self.beta), dtype=groups.dtype, device=groups.device)
        price[0] = 1 - self.beta
        return price if groups.exclusive else price.expand(groups.n_classes, 2)


class NegativeDice(DiceLoss, part="dice"):
    """−D instead of 1 − D."""

    def formula(self, s: Sums) -> Tensor:
        return super().formula(s) - 1


class ExpLogLoss(Recipe):
    """Exponential-logarithmic loss: w_D mean (−ln D)^γ + w_X mean w_l u^γ.

    Args:
        dice_weight, ce_weight: w_D and w_X.
        gamma: γ ≥ 0.001 of both; the paper finds 0.3.
        frequencies: of the labels in the training set, see `PowerCrossEntropyLoss`. None: of the batch.

    Range: [0, ∞): 0 when perfect.
    Limits: refuses `class_weight`: it has weights of its own. A popular repository leaves out the power and the
        weights of the second half.
    Paper: Wong et al., MICCAI 2018, arXiv 1809.00076.

    >>> import torch, lossmith as ls
    >>> p = torch.tensor([[[0.7, 0.1, 0.2, 0.5], [0.2, 0.6, 0.2, 0.3], [0.1, 0.3, 0.6, 0.2]]])
    >>> round(ls.ExpLogLoss()(p.log(), torch.tensor([[0, 1, 2, 1]])).item(), 4)
    0.8923
    """

    name = "explog"
    range = (0.0, math.inf)
    source = "Wong et al. 2018, arXiv 1809.00076"
    without: ClassVar[dict[str, str]] = {"class_weight": "it weights labels by their frequency"}
    dice_weight: NonNegative = 0.8
    ce_weight: NonNegative = 0.2
    gamma: Positive = 0.3
    frequencies: Tensor | None = None

    def formula(self) -> Loss:
        dice = LogDiceLoss(exponent=self.gamma, **self.shared(LogDiceLoss))
        given = {"exponent": self.gamma, "frequencies": self.settings()["frequencies"]}
        return self.dice_weight * dice + self.ce_weight * PowerCrossEntropyLoss(**given, **self.shared(PixelLoss))


class UnifiedFocalLoss(Recipe):
    """Unified focal loss: a focal loss and a focal Tversky loss that share δ, the price of missing what is rare, and γ.

    λ mean ℓ + (1 − λ) mean_c t_c. A pixel of a rare label costs ℓ = δ u, another (1 − δ) (1 − p)^γ u. With
    T_c = (TP + ε) / (TP + δ FN + (1−δ) FP + ε), a rare class costs t = (1 − T)^(1−γ), another 1 − T. asymmetric=False:
    both powers for all. The powers are those of the authors' code; the paper prints the symmetric ones swapped.

    Args:
        lam: λ in [0, 1], the share of the focal half (the authors' code: of the other half).
        delta: δ in [0, 1].
        gamma: γ in [0, 0.999]; at 1 every class would cost 1, however well it is found.
        asymmetric: whether what is rare is enhanced and the rest suppressed, instead of both for all.
        rare: the rare classes; None: all but class 0 (multilabel: all). With one channel, background is class 0.
        smooth: ε ≥ 0.

    Range: [0, ∞): 0 when perfect.
    Limits: three knobs that pull at the same thing.
    Paper: Yeung et al., Comput. Med. Imaging Graph. 2022, arXiv 2102.04525.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.UnifiedFocalLoss(smooth=0.0)(p.logit(), target).item(), 4)
    0.2155
    """

    name = "unified_focal"
    range = (0.0, math.inf)
    source = "Yeung et al. 2022, arXiv 2102.04525"
    lam: Fraction = 0.5
    delta: Fraction = 0.6
    gamma: BelowOne = 0.5
    asymmetric: bool = True
    rare: Classes | None = None
    smooth: NonNegative = 1.0

    def formula(self) -> Loss:
        own = {name: self.settings()[name] for name in ("delta", "gamma", "asymmetric", "rare")}
        pixels = UnifiedFocalPixels(**own, **self.shared(PixelLoss))
        return self.lam * pixels + (1 - self.lam) * UnifiedTversky(smooth=self.smooth, **own, **self.shared(RegionLoss))


class UnifiedFocalPixels(PixelLoss, part="focal"):
    """δ u for a rare label, (1 − δ)(1 − p)^γ u for another."""

    delta: Fraction = 0.6
    gamma: BelowOne = 0.5
    asymmetric: bool = True
    rare: Classes | None = None

    def curves(self, groups: Groups | None) -> Table:
        bent = Focal(float(self.gamma))
        first = CROSS_ENTROPY if self.asymmetric else bent
        if groups is None:
            return [(first, 1.0), (bent, 1.0)]
        rare = is_rare(groups, self.rare).to(groups.dtype)
        if not groups.exclusive and groups.task != "binary":
            rare = torch.stack([torch.zeros_like(rare), rare], 1)  # of a channel's labels, only its yes
        rare = rare.unsqueeze(0) if groups.task == "binary" else rare
        return [(first, self.delta * rare), (bent, (1 - self.delta) * (1 - rare))]


class UnifiedTversky(TverskyLoss, part="tversky"):
    """(1 − T)^(1−γ) for a rare class, 1 − T for another."""

    splits = frozenset({"images", "space"})
    background_counts = True
    without: ClassVar[dict[str, str]] = {"fp_weight": "it is 1 − delta", "fn_weight": "it is delta"}
    delta: Fraction = 0.6
    gamma: BelowOne = 0.5
    asymmetric: bool = True
    rare: Classes | None = None

    def class_losses(self, batch: Batch, groups: Groups, kept: list[int]) -> Tensor:
        miss = super().class_losses(batch, groups, kept)
        bent = power(miss, 1 - self.gamma)
        if not self.asymmetric:
            return bent
        rare = is_rare(batch, self.rare)
        return torch.where(rare if batch.task == "binary" else rare[kept], bent, miss)

    def formula(self, s: Sums) -> Tensor:
        miss = (1 - self.delta) * s.fp + self.delta * s.fn
        return missed(miss, s.tp, self.smooth)


def is_rare(groups: Groups, rare: Classes | None) -> Tensor:
    """Which classes are rare, bool: (C,), or (2,) of background and foreground with one channel."""
    count = 2 if groups.task == "binary" else groups.n_classes
    if rare is None:
        rare = tuple(range(0 if groups.task == "multilabel" else 1, count))
    strange = [k for k in rare if not 0 <= k < count]
    if strange:
        raise ValueError(f"{groups.who}: rare={rare} names class {strange[0]}, but there are {count} classes")
    flags = torch.zeros(count, dtype=torch.bool, device=groups.device)
    flags[list(rare)] = True
    return flags
