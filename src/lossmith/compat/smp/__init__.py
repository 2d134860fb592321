"""The losses of segmentation_models_pytorch: `from lossmith.compat import smp` and `smp.DiceLoss("multiclass")`, or
`from lossmith.compat import smp as losses` instead of `from segmentation_models_pytorch import losses`.

Values in half precision come back in float32.
"""

from ..peer import refused
from .focal import FocalLoss
from .overlap import DiceLoss, JaccardLoss, TverskyLoss
from .pixel import SoftBCEWithLogitsLoss, SoftCrossEntropyLoss
from .reading import BINARY_MODE, MULTICLASS_MODE, MULTILABEL_MODE
from .sorted import LovaszLoss

MCCLoss = refused(
    "segmentation_models_pytorch.losses.MCCLoss",
    "there is no Matthews correlation; use lossmith.TwoClassDiceLoss, which sees true negatives too, or theirs",
)

__all__ = [
    "BINARY_MODE",
    "MULTICLASS_MODE",
    "MULTILABEL_MODE",
    "DiceLoss",
    "FocalLoss",
    "JaccardLoss",
    "LovaszLoss",
    "MCCLoss",
    "SoftBCEWithLogitsLoss",
    "SoftCrossEntropyLoss",
    "TverskyLoss",
]
