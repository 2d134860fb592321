"""Regression losses: formulas over the residual, element by element, for coordinates and any other numbers.

They read the input called "box" in a sum, with any shape; beside a box loss it is (…, 4). The mean runs over the
elements, so `denominator=` the number of positive boxes gives the detectors' sum over coordinates per positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from ..bounds import NonNegative
from ..engine import ask
from ..engine.contract import Residuals
from ..inputs.pair import Pair
from .element import ElementLoss


class RegressionLoss(ElementLoss):
    """A formula over the size of the residual, |prediction − target|."""

    family = "regression"
    slot = "box"
    needs = "numbers to predict"
    range = (0.0, math.inf)
    inputs: ClassVar[Callable[..., Any]] = Pair

    def formula(self, size: Tensor) -> Tensor:
        """The loss of each element."""
        raise NotImplementedError

    def amount(self, pair: Pair) -> Tensor:
        return self.formula(ask(Residuals(pair.prediction, pair.target)))


class L1Loss(RegressionLoss):
    """L1: the absolute error.

    |r|, r = prediction − target; its slope is 0 at r = 0.

    Range: [0, ∞): 0 when perfect.
    Limits: the gradient does not shrink near the target, so training jitters there.
    Paper: Laplace, "Mémoire sur la probabilité des causes par les évènements" (1774).

    >>> import torch, lossmith as ls
    >>> ls.L1Loss()(torch.tensor([0.5, -2.0]), torch.zeros(2)).item()
    1.25
    """

    name = "l1"
    source = "Laplace 1774"

    def formula(self, size: Tensor) -> Tensor:
        return size


class L2Loss(RegressionLoss):
    """L2: the squared error, halved so that its gradient is the residual.

    r²/2, r = prediction − target; `half=False`: r², whose mean is the mean squared error.

    Args:
        half: whether to halve the square.

    Range: [0, ∞): 0 when perfect.
    Limits: outliers own the gradient.
    Paper: Legendre, "Nouvelles méthodes pour la détermination des orbites des comètes" (1805).

    >>> import torch, lossmith as ls
    >>> ls.L2Loss()(torch.tensor([0.5, -2.0]), torch.zeros(2)).item()
    1.0625
    """

    name = "l2"
    source = "Legendre 1805"
    half: bool = True  # type: ignore[assignment]  # the field's word, and a method of modules: see `Settings`

    def formula(self, size: Tensor) -> Tensor:
        return size.square() / 2 if self.settings()["half"] else size.square()


class SmoothL1Loss(RegressionLoss):
    """Smooth L1: L1 with a parabola at the bottom. Huber's loss divided by beta.

    r²/(2β) if |r| < β, else |r| − β/2; β = 0 is L1. Faster R-CNN's σ = 3 is β = 1/9.

    Args:
        beta: β ≥ 0, where the parabola ends.

    Range: [0, ∞): 0 when perfect.
    Limits: coordinates count alone, so large boxes dominate unless they are encoded relative to an anchor.
    Paper: Girshick, "Fast R-CNN", ICCV 2015, arXiv 1504.08083.

    >>> import torch, lossmith as ls
    >>> ls.SmoothL1Loss(reduction="none")(torch.tensor([0.5, -2.0]), torch.zeros(2)).tolist()
    [0.125, 1.5]
    """

    name = "smooth_l1"
    source = "Girshick 2015, arXiv 1504.08083"
    beta: NonNegative = 1.0

    def formula(self, size: Tensor) -> Tensor:
        if self.beta < 1e-5:  # the division would lose more than the parabola adds
            return size
        bottom = size.clamp(max=self.beta)
        return bottom * (size - bottom / 2) / self.beta


class HuberLoss(RegressionLoss):
    """Huber's loss: squared error for small residuals, absolute error for large ones.

    r²/2 if |r| < δ, else δ (|r| − δ/2), so the slope never exceeds δ.

    Args:
        delta: δ ≥ 0, where the parabola ends, and the largest slope.

    Range: [0, ∞): 0 when perfect.
    Limits: δ also scales the loss; `SmoothL1Loss` does not.
    Paper: Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964).

    >>> import torch, lossmith as ls
    >>> ls.HuberLoss(delta=0.5, reduction="none")(torch.tensor([0.25, -2.0]), torch.zeros(2)).tolist()
    [0.03125, 0.875]
    """

    name = "huber"
    source = "Huber 1964"
    delta: NonNegative = 1.0

    def formula(self, size: Tensor) -> Tensor:
        bottom = size.clamp(max=self.delta)
        return bottom * (size - bottom / 2)
