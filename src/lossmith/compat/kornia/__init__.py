"""kornia's losses: `from lossmith.compat import kornia as losses` instead of `from kornia import losses`.

Those of segmentation, as classes and as functions. The names of its other losses are here too, and say when they are
called that there is no counterpart. Values in half precision come back in float32; errors are ValueErrors.
"""

from .elsewhere import *  # noqa: F403
from .elsewhere import NAMES as _ELSEWHERE
from .focal import BinaryFocalLossWithLogits, FocalLoss, binary_focal_loss_with_logits, focal_loss
from .overlap import DiceLoss, TverskyLoss, dice_loss, tversky_loss
from .sorted import LovaszHingeLoss, LovaszSoftmaxLoss, lovasz_hinge_loss, lovasz_softmax_loss

__all__ = [
    "BinaryFocalLossWithLogits",
    "DiceLoss",
    "FocalLoss",
    "LovaszHingeLoss",
    "LovaszSoftmaxLoss",
    "TverskyLoss",
    "binary_focal_loss_with_logits",
    "dice_loss",
    "focal_loss",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "tversky_loss",
    *_ELSEWHERE,
]
