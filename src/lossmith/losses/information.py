"""Information: the quantities behind cross-entropy, as functions of probabilities and as losses over logits.

Natural logarithms (nats) by default; `base=2` gives bits.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from .. import checks
from ..engine.contract import Event, Want
from ..engine.curves import CROSS_ENTROPY, Curve
from ..engine.problem import Task
from ..inputs.batch import Batch
from ..inputs.groups import Groups
from .pixel import PixelLoss, Table


def information(p: Tensor, base: float = math.e) -> Tensor:
    """The information content of events of probability p: −log p. An impossible event has infinitely much.

    >>> information(torch.tensor([0.25, 1.0]), base=2).tolist()
    [2.0, 0.0]
    """
    _check("information", p)
    return -p.log() / math.log(base) + 0.0


def entropy(p: Tensor, base: float = math.e, dim: int = -1) -> Tensor:
    """The mean information of a distribution, −Σ p log p, with 0 log 0 = 0. Between 0 and log C.

    The slope at p = 0, which is infinite, counts as 0, as it is through a softmax.

    >>> entropy(torch.tensor([0.5, 0.25, 0.25]), base=2).item()
    1.5
    """
    _check("entropy", p)
    return -_times_log(p, p).sum(dim) / math.log(base)


def cross_entropy(p: Tensor, q: Tensor, base: float = math.e, dim: int = -1) -> Tensor:
    """−Σ p log q: what a code made for q costs when p is true. Infinite where q excludes what p allows.

    A term with p = 0 is 0. Where p = q = 0 it has no slope.

    >>> round(cross_entropy(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.7, 0.2, 0.1])).item(), 4)
    1.1563
    """
    _check("cross_entropy", p, q)
    return -_times_log(p, q).sum(dim) / math.log(base)


def kl_divergence(p: Tensor, q: Tensor, base: float = math.e, dim: int = -1, eps: float = 0.0) -> Tensor:
    """Kullback–Leibler divergence, Σ p log(p / q) = cross_entropy(p, q) − entropy(p): what it costs to believe q.

    Never negative, 0 only for p = q, not symmetric, and the triangle inequality does not hold. Terms with p = 0 are 0;
    p > 0 where q = 0 makes it infinite. Its slopes are those of the difference, by the conventions of the two.

    With `eps` in (0, 1) it is finite: a q below it counts as `eps`, and has no slope. It may then fall below 0, by no
    more than log(1 + C eps).

    >>> p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.7, 0.2, 0.1])
    >>> round(kl_divergence(p, q).item(), 4), round(kl_divergence(q, p).item(), 4)
    (0.1166, 0.0993)
    >>> round(kl_divergence(p, torch.tensor([1.0, 0.0, 0.0]), eps=1e-6).item(), 4)
    5.868
    """
    _check("kl_divergence", p, q)
    if not 0 <= eps < 1:
        raise ValueError(f"kl_divergence: eps must lie in [0, 1), got {eps!r}")
    q = q.clamp(min=eps) if eps > 0 else q
    return (_times_log(p, p) - _times_log(p, q)).sum(dim) / math.log(base)


def _times_log(p: Tensor, q: Tensor) -> Tensor:
    """p log q, and 0 without a gradient where both are 0: p / q would be NaN there."""
    return torch.xlogy(p, torch.where((p == 0) & (q == 0), 1.0, q))


def _check(who: str, *given: Tensor) -> None:
    for p in given:
        checks.floating(who, "probabilities", p, many=True)
    if len(given) == 2 and given[0].shape != given[1].shape:
        raise ValueError(
            f"{who}: the distributions differ in shape, {tuple(given[0].shape)} and {tuple(given[1].shape)}"
        )


class InformationLoss(PixelLoss):
    """Losses that compare or measure the distributions at the pixels."""

    family = "information"
    range: ClassVar[tuple[float, float]] = (0.0, math.inf)


class KLDivergenceLoss(InformationLoss):
    """Kullback–Leibler divergence from the target's distribution to the model's, Σ_k r_k ln(r_k / p_k).

    The target holds probabilities, (N, C, *S); a probability of 0 adds nothing, one above 0 where the model has exactly
    0 (a logit of −inf) makes it infinite. Hard labels are taken too: then it is cross-entropy. Its gradient is that of
    cross-entropy, which differs by the target's entropy, a constant.

    Range: [0, ∞): 0 when p = r.
    Limits: knows only this direction; the other, Σ p ln(p / r), is `kl_divergence(p, r)`. Refuses `class_weight`.
    Paper: Kullback & Leibler, Ann. Math. Stat. 22 (1951).

    >>> import torch, lossmith as ls
    >>> p, r = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.25, 0.25]])
    >>> round(ls.KLDivergenceLoss()(p.log(), r).item(), 4)
    0.1166
    """

    name = "kl"
    source = "Kullback & Leibler 1951"
    assumes: ClassVar[Task | None] = "multiclass"
    without: ClassVar[dict[str, str]] = {"class_weight": "weighted, it is neither >= 0 nor lowest where p = r"}

    target = "soft"

    def curves(self, groups: Groups | None) -> Table:
        return [(CROSS_ENTROPY, None)]

    def wants(self) -> Want:
        return super().wants() | Want(labels=True)

    def label_sums(self, groups: Groups) -> Tensor:
        assert isinstance(groups, Batch)  # no price of it follows from sums: what it reads are the images
        return super().label_sums(groups) + groups.information

    def of_event(self, batch: Batch, curve: Curve, event: Event) -> Tensor:
        if event.chance is None:
            return event.u
        possible = event.chance > 0
        return event.u + torch.where(possible, torch.where(possible, event.chance, 1.0).log(), 0.0)


class EntropyLoss(InformationLoss):
    """The entropy of the prediction, −Σ_k p_k ln p_k: how unsure the model is. Needs no target: `loss(logits)`.

    As a small term on unlabelled images it makes a model decide itself. With a target, ignored pixels are left out.

    Range: [0, ∞): 0 when certain, ln C (binary and multilabel: ln 2) when uniform, which is the most.
    Limits: alone it is minimal for any confident answer, right or wrong.
    Paper: Shannon, Bell Syst. Tech. J. 27 (1948); as a loss: Grandvalet & Bengio, NeurIPS 2004.

    >>> import torch, lossmith as ls
    >>> round(ls.EntropyLoss()(torch.tensor([[0.0, 1.0, 0.5]])).item(), 4)
    1.0202
    """

    name = "entropy"
    splits = frozenset({"images", "space"})
    source = "Shannon 1948; Grandvalet & Bengio 2004"
    target = "none"
    without: ClassVar[dict[str, str]] = {"class_weight": "it does not look at labels"}

    def wants(self) -> Want:
        return Want(u=True, spread=True)

    def pixels(
        self, batch: Batch, groups: Groups, counted: Tensor | None, pixel: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        u = torch.stack([event.u for event in batch.every]).clamp(max=700.0)  # e^−u · u is 0 long before
        amount = (torch.exp(-u) * u).sum(0)
        weighed, weight = (amount, amount.numel()) if pixel is None else (amount * pixel, pixel)
        return batch.natural(weighed), weight
