"""Losses on what modern detectors predict: a score that is also a quality, and an edge as a distribution over bins.

Everything is computed from logits. The scores' classes and the edges' bins are the last axis, as heads hand them out
once their maps are flattened to one row a point. `docs/boxes.md` has the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .engine import power, scores
from .engine.tensors import can_look, indices
from .pair import ElementLoss, Elements
from .settings import NonNegative


class Scores(Elements):
    """Logits (…, C) against qualities: a target like the logits in [0, 1], or (labels, quality), both (…,).

    A label is 0 to C − 1, or C for background; the target is then the quality at the label's class and 0 elsewhere.
    Weights are (…,) or (…, C). A row of weight 0 may have any label.
    """

    def __init__(
        self,
        terms: Sequence[ElementLoss],
        who: str,
        logits: Tensor,
        target: Any,
        *,
        weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
    ) -> None:
        check_logits(who, logits)
        super().__init__(who, logits, logits.shape, weight, denominator)
        target = _dense(who, logits, target, self.weight) if isinstance(target, tuple | list) else target
        _check_target(who, logits, target, logits.shape)
        self.logits, self.target = self.ready(logits), self.ready(target)
        self.target = _checked_quality(who, self.target)


class ScoreLoss(ElementLoss):
    """A formula over a logit and the quality it should have."""

    family = "distribution"
    range = (0.0, math.inf)
    inputs: ClassVar[Callable[..., Any]] = Scores

    def formula(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of each score from its logit and its target."""
        raise NotImplementedError

    def amount(self, given: Scores) -> Tensor:
        return self.formula(given.logits, given.target)


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
    paper = "Li et al. 2020, arXiv 2006.04388"
    beta: NonNegative = 2.0

    def formula(self, z: Tensor, y: Tensor) -> Tensor:
        _, miss, surprise = scores.answers(z, y)
        return power(miss.abs(), self.beta) * surprise


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
    paper = "Zhang et al. 2021, arXiv 2008.13367"
    alpha: NonNegative = 0.75
    gamma: NonNegative = 2.0

    def formula(self, z: Tensor, y: Tensor) -> Tensor:
        p, _, surprise = scores.answers(z, y)
        return torch.where(y == 0, self.alpha * power(p, self.gamma) * surprise, y * surprise)


class Edges(Elements):
    """Logits (…, n + 1) over the bins 0 to n against positions (…,) in [0, n]; beyond, they are clamped to it.

    Weights are (…,), or per row without the last axis of that: one a box for edges (M, 4, n + 1).
    """

    def __init__(
        self,
        terms: Sequence[ElementLoss],
        who: str,
        logits: Tensor,
        target: Any,
        *,
        weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
    ) -> None:
        check_logits(who, logits)
        if logits.shape[-1] < 2:
            raise ValueError(f"{who}: logits must be (…, n + 1) with n >= 1, got {tuple(logits.shape)}")
        _check_target(who, logits, target, logits.shape[:-1])
        super().__init__(who, logits, target.shape, weight, denominator)
        self.logits, self.target = self.ready(logits), self.ready(target)


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
    slot = "edge"
    range = (0.0, math.inf)
    paper = "Li et al. 2020, arXiv 2006.04388"
    inputs: ClassVar[Callable[..., Any]] = Edges

    def amount(self, given: Edges) -> Tensor:
        top = given.logits.shape[-1] - 1
        y = given.target.clamp(0, top)
        left = y.detach().floor().clamp(max=top - 1).nan_to_num(0.0)
        bins = left.long().reshape(-1)
        rows = given.logits.reshape(-1, top + 1)
        near = scores.bin_surprise(rows, bins).reshape(y.shape)
        far = scores.bin_surprise(rows, bins + 1).reshape(y.shape)
        return _share(left + 1 - y, near) + _share(y - left, far)


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
    return scores.mean_bin(logits if logits.dtype == torch.float64 else logits.float())


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


def check_logits(who: str, logits: Tensor) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"{who}: logits must be a floating-point tensor, got {kind}")
    if logits.ndim == 0:
        raise ValueError(f"{who}: logits must have at least one axis, got a single number")


def _check_target(who: str, logits: Tensor, target: Any, shape: torch.Size) -> None:
    if not isinstance(target, Tensor) or target.is_complex():
        kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"{who}: the target must be a real tensor, got {kind}; call loss(logits, target)")
    if target.shape != shape:
        raise ValueError(f"{who}: logits {tuple(logits.shape)} need a target {tuple(shape)}, got {tuple(target.shape)}")
    if target.device != logits.device:
        raise ValueError(f"{who}: logits are on {logits.device}, the target on {target.device}; move one of them")


def _dense(who: str, logits: Tensor, target: Any, weight: Tensor | None) -> Tensor:
    """(labels, quality) as one quality per class."""
    if len(target) != 2 or not all(isinstance(x, Tensor) for x in target):
        raise TypeError(f"{who}: the target must be a tensor like the logits, or a pair (labels, quality)")
    labels, quality = target
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{who}: labels must be integers, got {labels.dtype}; use labels.long()")
    n_classes, lead = logits.shape[-1], logits.shape[:-1]
    if labels.shape != lead or quality.shape != lead:
        raise ValueError(
            f"{who}: logits {tuple(logits.shape)} need labels and qualities {tuple(lead)}, "
            f"got {tuple(labels.shape)} and {tuple(quality.shape)}"
        )
    labels = labels.long()
    if weight is not None:
        ignored = weight == 0
        labels = labels.masked_fill(ignored if weight.ndim == labels.ndim else ignored.all(-1), n_classes)
    outside = (labels < 0) | (labels > n_classes)
    if can_look(labels) and bool(outside.any()):
        bad = int(labels[outside][0])
        raise ValueError(
            f"{who}: the labels hold {bad}, but with C = {n_classes} they are 0 to {n_classes - 1}, or {n_classes} for "
            "background; a point to be ignored has weight 0"
        )
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    own = labels.unsqueeze(-1) == indices(n_classes, logits)
    dense = torch.where(own, quality.to(wide).unsqueeze(-1), 0.0)
    return dense if can_look(labels) else dense.masked_fill(outside.unsqueeze(-1), torch.nan)


def _checked_quality(who: str, target: Tensor) -> Tensor:
    """Qualities in [0, 1], with the slack of interpolated ones; elsewhere an error where looking is free, or NaN."""
    outside = (target < -1e-4) | (target > 1 + 1e-4)
    if not can_look(target):
        return target.masked_fill(outside, torch.nan)
    if bool(outside.any()):
        raise ValueError(f"{who}: qualities must lie in [0, 1], got {float(target[outside][0].detach()):g}")
    return target
