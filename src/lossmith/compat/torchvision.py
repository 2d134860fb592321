"""torchvision's losses: `from lossmith.compat import torchvision as ops` instead of `from torchvision import ops`.

Functions of two tensors, with reduction="none" by default as there. Values in half precision come back in float32.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..inputs.call import unwrapped
from ..loss import Loss
from ..losses.box import CIoULoss, DIoULoss, GIoULoss
from ..losses.pixel import FocalLoss
from .peer import Fault, matching, stands_for

MOST = 1e-6  # an eps that only keeps 0 / 0 away; a larger one is part of the value

BOXES = {
    "boxes1, boxes2": "the prediction and the target, xyxy",
    "reduction": "reduction",
    "eps": f"without effect: nothing here is divided by 0; more than {MOST:g} is refused",
}
SMALL = Fault(
    "boxes small against eps, as in shares of the image",
    "eps is added to areas, and a box of 0.001 by 0.001 that is met exactly costs 0.1",
    "the same in pixels and in shares",
)
REFUSES = {f"eps above {MOST:g}": "it would be part of the value; scale the boxes, or leave it out"}


def _reduced(who: str, reduction: str) -> dict[str, Any]:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{who}: Invalid reduction {reduction!r}; it must be 'none', 'mean' or 'sum'")
    return {"reduction": reduction}


def _boxes(who: str, loss: type[Loss], boxes1: Tensor, boxes2: Tensor, reduction: str, eps: float) -> Tensor:
    """A box loss of every pair."""
    settings = _reduced(who, reduction)
    if not 0 <= eps <= MOST:
        raise ValueError(f"{who}: eps must lie in [0, {MOST:g}], got {eps:g}: a larger one is part of the value")
    value: Tensor = loss(**settings)(boxes1, boxes2)
    return value


@stands_for("torchvision.ops.generalized_box_iou_loss", "GIoULoss", BOXES, (SMALL,), REFUSES)
def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """torchvision's generalised IoU loss of boxes (N, 4) or (4,), by `lossmith.GIoULoss`.

    Raises:
        ValueError: another reduction; a large eps.
    """
    return _boxes("generalized_box_iou_loss", GIoULoss, boxes1, boxes2, reduction, eps)


@stands_for("torchvision.ops.distance_box_iou_loss", "DIoULoss", BOXES, (SMALL,), REFUSES)
def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """torchvision's distance IoU loss of boxes (N, 4) or (4,), by `lossmith.DIoULoss`.

    Raises:
        ValueError: another reduction; a large eps.
    """
    return _boxes("distance_box_iou_loss", DIoULoss, boxes1, boxes2, reduction, eps)


@stands_for(
    "torchvision.ops.complete_box_iou_loss",
    "CIoULoss",
    BOXES,
    (SMALL, Fault("a box that is a point", "NaN", "a number: the aspect ratio of nothing is 0")),
    REFUSES,
)
def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """torchvision's complete IoU loss of boxes (N, 4) or (4,), by `lossmith.CIoULoss`.

    Raises:
        ValueError: another reduction; a large eps.
    """
    return _boxes("complete_box_iou_loss", CIoULoss, boxes1, boxes2, reduction, eps)


@stands_for(
    "torchvision.ops.sigmoid_focal_loss",
    "FocalLoss, task='binary'",
    {
        "inputs": "logits of any shape, every element a yes or no of its own",
        "targets": "shaped like them, 0 or 1, or between",
        "alpha": "alpha; -1 is None",
        "gamma": "gamma",
        "reduction": "reduction; 'sum' is the sum over all elements",
    },
    (
        Fault(
            "targets between 0 and 1",
            "turns them down by a p_t that is ½ at r = ½ whatever is predicted",
            "the mean of the losses of yes and no",
        ),
        Fault("no element, reduction='mean'", "NaN", "0"),
        Fault(
            "a target of 0, a logit far below",
            "loses what torch's cross-entropy does, up to 1e-7, and is 0 at a logit of −20",
            "all digits, so that it may lie that much above torch's cross-entropy",
        ),
    ),
)
def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """torchvision's focal loss of logits, α_t (1 − p_t)^γ (−ln p_t), by `lossmith.FocalLoss`.

    Raises:
        ValueError: an alpha beyond [0, 1] that is not -1; another reduction; a target shaped otherwise.

    >>> import torch
    >>> round(sigmoid_focal_loss(torch.tensor([0.5]), torch.tensor([0.0])).item(), 4)
    0.2831
    """
    who = "sigmoid_focal_loss"
    if alpha != -1 and not 0 <= alpha <= 1:
        raise ValueError(f"{who}: Invalid alpha {alpha!r}; it must lie in [0, 1], or be -1 for none")
    settings = _reduced(who, reduction)
    inputs, targets = unwrapped(who, (inputs, targets))
    matching(who, inputs, targets, error=ValueError)
    given: dict[str, Any] = {"denominator": 1.0} if reduction == "sum" else {}
    loss = FocalLoss(
        gamma=float(gamma),
        alpha=None if alpha == -1 else float(alpha),
        task="binary",
        reduction="none" if settings["reduction"] == "none" else "mean",
    )
    value: Tensor = loss(inputs.reshape(1, 1, -1), targets.reshape(1, 1, -1), **given)
    return value.reshape(inputs.shape) if reduction == "none" else value


__all__ = ["complete_box_iou_loss", "distance_box_iou_loss", "generalized_box_iou_loss", "sigmoid_focal_loss"]
