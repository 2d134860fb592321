"""Losses on what modern detectors predict: a score that is also a quality, and an edge as a distribution over bins.

Everything is computed from logits. The scores' classes and the edges' bins are the last axis, as heads hand them out
once their maps are flattened to one row a point. `docs/boxes.md` has the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..arithmetic import power
from ..bounds import NonNegative
from ..engine import ask
from ..engine.contract import Answers, Pass, Scores, Want
from ..engine.plain.scores import mean_bin
from ..engine.problem import Problem
from ..engine.tensors import floating
from ..inputs.heads import EdgePair, ScorePair, check_logits
from .element import ElementLoss


class ScoreLoss(ElementLoss):
    """A formula over a logit and the quality it should have."""

    family = "distribution"
    needs = "the outputs of a detector"
    range = (0.0, math.inf)
    inputs: ClassVar[Callable[..., Any]] = ScorePair

    def formula(self, said: Answers, y: Tensor) -> Tensor:
        """The loss of each score from what its logit says and its target."""
        raise NotImplementedError

    def amount(self, given: ScorePair) -> Tensor:
        return self.formula(ask(Scores(given.logits, given.target)), given.target)


class QualityFocalLoss(ScoreLoss):
    """Quality focal loss: focal loss for a target between 0 and 1, the quality of the box at the right class.

    |y − σ|^β (−y ln σ − (1 − y) ln(1 − σ)), σ = sigmoid(logit). Detectors divide its sum by the number of positives:
    `denominator=`.

    Shapes: logits (…, C); target (…, C) in [0, 1], or a pair (labels (…,), quality (…,)) with label C = background.

    Args:
        beta: β ≥ 0, how strongly scores near their target are turned down.

    Range: [0, ∞): 0 where the score is the target.
    Limits: no balance between positives and negatives besides |y − σ|.
    Paper: Li et al., "Generalized focal loss", NeurIPS 2020, arXiv 2006.04388.

    >>> import torch, lossmith as ls
    >>> logits = torch.tensor([[0.5, 0.5]])
    >>> [round(x, 6) for x in ls.QualityFocalLoss(reduction="none")(logits, torch.tensor([[0.7, 0.0]]))[0].tolist()]
    [0.003752, 0.377412]
    >>> round(ls.QualityFocalLoss(reduction="sum")(logits, (torch.tensor([0]), torch.tensor([0.7]))).item(), 6)
    0.381164
    """

    name = "qfl"
    source = "Li et al. 2020, arXiv 2006.04388"
    beta: NonNegative = 2.0

    def formula(self, said: Answers, y: Tensor) -> Tensor:
        return power(said.miss.abs(), self.beta) * said.surprise


class VarifocalLoss(ScoreLoss):
    """Varifocal loss: positives weighted by their quality, negatives turned down as in focal loss.

    q (−q ln p − (1 − q) ln(1 − p)) where q > 0, −α p^γ ln(1 − p) where q = 0, p = sigmoid(logit).

    Shapes: as `QualityFocalLoss`.

    Args:
        alpha: α ≥ 0, the weight of negatives.
        gamma: γ ≥ 0, how strongly easy negatives are turned down.

    Range: [0, ∞): where all is right, the mean of q times the entropy of q, which is 0 for q of 0 and 1.
    Limits: a positive of quality 0 is a negative.
    Paper: Zhang et al., "VarifocalNet", CVPR 2021, arXiv 2008.13367.

    >>> import torch, lossmith as ls
    >>> logits, target = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.7, 0.0]])
    >>> [round(x, 6) for x in ls.VarifocalLoss(reduction="none")(logits, target)[0].tolist()]
    [0.436854, 0.283059]
    """

    name = "vfl"
    source = "Zhang et al. 2021, arXiv 2008.13367"
    alpha: NonNegative = 0.75
    gamma: NonNegative = 2.0

    def formula(self, said: Answers, y: Tensor) -> Tensor:
        no = self.alpha * power(said.p, self.gamma) * said.surprise
        return torch.where(y == 0, no, y * said.surprise)


class DistributionFocalLoss(ElementLoss):
    """Distribution focal loss: cross-entropy against the two bins beside a position, weighted by nearness.

    −(i + 1 − y) ln S_i − (y − i) ln S_{i+1}, S the softmax over the bins 0 to n, i = min(⌊y⌋, n − 1), so that y = n is
    exact; y is clamped to [0, n]. `ls.integral` decodes.

    Shapes: logits (…, n + 1), target (…,); `weight=` like the target, or one for each row of it.

    Range: [0, ∞): where all is right, the mean entropy of the two weights, at most ln 2.
    Limits: says how sure the edge is, and nothing of how far off; needs a box loss beside it.
    Paper: Li et al., "Generalized focal loss", NeurIPS 2020, arXiv 2006.04388.

    >>> import torch, lossmith as ls
    >>> logits = torch.tensor([[0.0, 1.0, 2.0, 1.0, 0.0]])
    >>> round(ls.DistributionFocalLoss()(logits, torch.tensor([2.3])).item(), 6)
    0.996357
    """

    name = "dfl"
    family = "distribution"
    needs = "the outputs of a detector"
    slot = "edge"
    range = (0.0, math.inf)
    source = "Li et al. 2020, arXiv 2006.04388"
    inputs: ClassVar[Callable[..., Any]] = EdgePair

    def amount(self, given: EdgePair) -> Tensor:
        top = given.logits.shape[-1] - 1
        y = given.target.clamp(0, top)
        left = y.detach().floor().clamp(max=top - 1).nan_to_num(0.0)
        bins = left.long().reshape(-1)
        rows = given.logits.reshape(-1, top + 1)
        near = _surprise(rows, bins).reshape(y.shape)
        far = _surprise(rows, bins + 1).reshape(y.shape)
        return _share(left + 1 - y, near) + _share(y - left, far)


def _surprise(logits: Tensor, bins: Tensor) -> Tensor:
    """−ln p of one bin of each distribution, logits (M, bins), bins (M,)."""
    problem = Problem(logits.mT.unsqueeze(0), bins.unsqueeze(0), None, None, "multiclass", -100)
    (event,) = ask(Pass(problem, Want(u=True))).events
    return event.u.squeeze(0)


def _share(chance: Tensor, surprise: Tensor) -> Tensor:
    """An impossible bin costs nothing, however surprising."""
    return chance * surprise.masked_fill(chance == 0, 0.0)


def integral(logits: Tensor) -> Tensor:
    """Decodes edge distributions (…, n + 1) to positions (…,): Σ i S_i, S the softmax; slope S_k (k − position).

    In float32 (float64 stays).

    >>> import torch, lossmith as ls
    >>> round(ls.integral(torch.tensor([0.0, 0.5, 2.0, 1.0, -1.0])).item(), 6)
    1.985166
    """
    check_logits("integral", logits)
    return mean_bin(floating(logits))


def generalized_focal(
    p_left: Tensor, p_right: Tensor, y_left: Tensor | float, y_right: Tensor | float, y: Tensor, beta: float = 2.0
) -> Tensor:
    """The formula that quality focal, distribution focal and focal loss are cases of; element by element.

    |y − (y_l p_l + y_r p_r)|^β (−(y_r − y) ln p_l − (y − y_l) ln p_r). With y_l = 0, y_r = 1, p_r = σ it is quality
    focal loss; with β = 0 on neighbouring bins, distribution focal loss.

    Args:
        p_left, p_right: probabilities of the two neighbours in (0, 1]; losses on logits are exact where these round.
        y_left, y_right: where the neighbours are.
        y: the target between them.
        beta: β ≥ 0.

    >>> import torch, lossmith as ls
    >>> p = torch.tensor(0.7)
    >>> round(ls.generalized_focal(1 - p, p, 0.0, 1.0, torch.tensor(1.0)).item(), 6)  # focal loss: 0.3² · −ln 0.7
    0.032101
    """
    miss = (y - (y_left * p_left + y_right * p_right)).abs()
    surprise = _share(y_right - y, -p_left.log()) + _share(y - y_left, -p_right.log())
    return power(miss, beta) * surprise
