"""MONAI's losses: `from lossmith.compat import monai as losses` instead of `from monai import losses`.

Those of segmentation and of boxes. The names of its other losses are here too, and say when they are built that there
is no counterpart. Values in half precision come back in float32.
"""

from .distance import BoundaryLoss, HausdorffDTLoss, LogHausdorffDTLoss
from .elsewhere import *  # noqa: F403
from .elsewhere import NAMES as _ELSEWHERE
from .focal import AsymmetricUnifiedFocalLoss, FocalLoss
from .overlap import DiceLoss, GeneralizedDiceLoss, MaskedDiceLoss, TverskyLoss
from .sum import DiceCELoss, DiceFocalLoss, GeneralizedDiceFocalLoss
from .wrapped import BoxGIoULoss, DeepSupervisionLoss

Dice = DiceLoss
dice_ce, dice_focal = DiceCELoss, DiceFocalLoss
generalized_dice, generalized_dice_focal = GeneralizedDiceLoss, GeneralizedDiceFocalLoss
giou = BoxGIoULoss

__all__ = [
    "AsymmetricUnifiedFocalLoss",
    "BoundaryLoss",
    "BoxGIoULoss",
    "DeepSupervisionLoss",
    "Dice",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "FocalLoss",
    "GeneralizedDiceFocalLoss",
    "GeneralizedDiceLoss",
    "HausdorffDTLoss",
    "LogHausdorffDTLoss",
    "MaskedDiceLoss",
    "TverskyLoss",
    "dice_ce",
    "dice_focal",
    "generalized_dice",
    "generalized_dice_focal",
    "giou",
    *_ELSEWHERE,
]
