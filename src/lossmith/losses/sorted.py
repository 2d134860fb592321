"""Sorted losses: the Lovász extension of the Jaccard loss, convex in the errors of the pixels and exact at 0 and 1.

The Jaccard loss of a class depends on which pixels are wrong, not on how much. Its Lovász extension puts the errors in
order, the largest first, and charges each with what its pixel adds to the Jaccard loss of those before it. The engine
knows how (`engine/plain/order.py`); here is which errors, of which groups, and what becomes of a class that is absent.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from ..bounds import Levels
from ..engine.contract import Ranking
from ..engine.images import bind, together
from ..engine.problem import Task
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .dense import ClassLoss, picked


class SortedLoss(ClassLoss):
    """A class loss that puts errors in order."""

    family = "sorted"
    hinge: ClassVar[bool] = False
    splits = frozenset({"images", "space"})
    absent: Literal["skip", "keep"] = "skip"  # type: ignore[assignment]  # instead of "smooth": it has no ε
    bins: Levels = 4096
    exact: bool = False

    def groups(self, batch: Batch) -> Any:
        ranked = batch.ranked(Ranking(self.bins, self.exact, self.per_image, self.hinge))

        def having(found: list[Any]) -> Any:
            groups, (extension, foreground) = found
            return groups.having(extension=extension, foreground=foreground)

        return bind(together([super().groups(batch), ranked]), having)

    def class_losses(self, batch: Batch, groups: Groups, kept: list[int]) -> Tensor:
        extension: Tensor = groups.sums.extension
        return picked(extension, kept)

    def present(self, groups: Groups) -> Tensor:
        """A class is there where a pixel counts as its foreground."""
        foreground: Tensor = groups.sums.foreground
        return foreground != 0


class LovaszSoftmaxLoss(SortedLoss):
    """Lovász-softmax: the Jaccard loss, extended to probabilities by the order of their errors.

    Σ_i e_i (Δ_i − Δ_{i−1}) per class, over the errors e = |r − p| from the largest on, Δ_i being the Jaccard loss
    |wrong| / |foreground ∪ wrong| if exactly the first i pixels were wrong. Also for sigmoid outputs, where the name is
    a little off. Of a soft target, foreground is r ≥ ½, or the likeliest class.

    Args:
        per_image: one Jaccard index per image, or one for the batch (the authors' default, and the metric's).
        absent: a class without foreground has no Jaccard index worth the name: "skip" leaves it out, "keep" charges it
            its largest error, so that a single pixel gets all its gradient.
        bins: errors are rounded to multiples of 1 / bins, which takes linear time and moves the value by at most
            1 / (2 · bins). A group of no more than `bins` pixels is sorted, which is exact.
        exact: sort whatever the size; many times slower.

    Range: [0, 1]: 0 when perfect, 1 at worst; at hard predictions it is 1 − Jaccard.
    Limits: pixels on the same level share a gradient; the second derivative does not see the order change. On a small
        group few pixels own the gradient; often added to cross-entropy.
    Paper: Berman, Triki & Blaschko, CVPR 2018, arXiv 1705.08790.

    >>> import torch, lossmith as ls
    >>> p, target = torch.tensor([[[0.9, 0.6, 0.2, 0.1]]]), torch.tensor([[1, 1, 0, 0]])
    >>> round(ls.LovaszSoftmaxLoss()(p.logit(), target).item(), 4)  # 0.4 · 1/2 + 0.2 · (2/3 − 1/2) + 0.1 · (1 − 2/3)
    0.2667
    """

    name = "lovasz"
    range = (0.0, 1.0)
    source = "Berman et al. 2018, arXiv 1705.08790"
    per_image: bool = False


class LovaszHingeLoss(SortedLoss):
    """Lovász hinge: the Jaccard loss, extended to margins by the order of their errors; binary and multilabel.

    Σ_i max(0, e_i) (Δ_i − Δ_{i−1}) per channel, over the errors e = 1 − z (2r − 1) of the logits z from the largest on,
    with Δ_i as in `LovaszSoftmaxLoss`. No probability is involved: a pixel with a margin of 1 is done.

    Args:
        per_image: one Jaccard index per image (the authors' default), or one for the batch.
        absent: a channel without foreground is charged its largest error ("keep"), or left out ("skip").
        bins: errors are rounded to multiples of E / bins, E the largest of the group, which takes linear time and moves
            the value by at most E / (2 · bins). A group of no more than `bins` pixels is sorted, which is exact.
        exact: sort whatever the size; many times slower.

    Range: [0, ∞): 0 once every margin is 1; an upper bound of 1 − Jaccard.
    Limits: one logit that is wrong by far sets E and thereby how finely the others are told apart; so do the limits of
        `LovaszSoftmaxLoss`. Under a softmax there is no margin of one class: use LovaszSoftmaxLoss.
    Paper: Yu & Blaschko, ICML 2015, arXiv 1512.07797; for the Jaccard loss, Berman et al. 2018, arXiv 1705.08790.

    Raises:
        ValueError: for a softmax task.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[[2.0, -1.0, 0.5, -3.0]]]), torch.tensor([[1, 0, 0, 1]])
    >>> ls.LovaszHingeLoss()(logits, target).item()  # errors −1, 0, 1.5, 4
    2.25
    """

    name = "lovasz_hinge"
    range = (0.0, float("inf"))
    source = "Yu & Blaschko 2015, arXiv 1512.07797; Berman et al. 2018, arXiv 1705.08790"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "multilabel"})
    hinge = True
    absent: Literal["keep", "skip"] = "keep"
