"""Losses for segmentation, detection and imbalanced data, from one contract, in one pass over the logits.

>>> import torch, lossmith as ls
>>> loss = ls.DiceLoss(ignore_index=255) + 0.5 * ls.FocalLoss(gamma=2.0, ignore_index=255)
>>> logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
>>> value = loss(logits, torch.ones(2, 8, 8, dtype=torch.uint8))
>>> value.backward()
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import box, distance, weighting
from .accumulation import accumulate
from .box import hard_examples
from .check import check
from .engine import use_engine
from .explanation import explain
from .loss import Loss, Sum
from .losses.box import CIoULoss, DIoULoss, EIoULoss, GIoULoss, IoULoss, SIoULoss
from .losses.distribution import DistributionFocalLoss, QualityFocalLoss, VarifocalLoss, generalized_focal, integral
from .losses.distribution_gfl import GeneralizedFocalLoss
from .losses.field import ActiveContourLoss, BoundaryF1Loss, NonAdjacencyLoss
from .losses.information import EntropyLoss, KLDivergenceLoss, cross_entropy, entropy, information, kl_divergence
from .losses.map import BoundaryLoss, HausdorffDTLoss
from .losses.pixel import (
    ConservativeLoss,
    CrossEntropyLoss,
    FocalLoss,
    PowerCrossEntropyLoss,
    QuadraticLoss,
)
from .losses.pixel_hardest import OhemCrossEntropyLoss, TopKCrossEntropyLoss
from .losses.pixel_weighted import (
    BorderCrossEntropyLoss,
    BoundaryCrossEntropyLoss,
    DistanceMapPenaltyLoss,
    WeightedCrossEntropyLoss,
)
from .losses.region import (
    DiceLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    JaccardLoss,
    LogCoshDiceLoss,
    LogDiceLoss,
    SensitivitySpecificityLoss,
    TverskyLoss,
    TwoClassDiceLoss,
)
from .losses.regression import HuberLoss, L1Loss, L2Loss, SmoothL1Loss
from .losses.sorted import LovaszHingeLoss, LovaszSoftmaxLoss
from .losses.sum import ComboLoss, DiceCELoss, DiceFocalLoss, ExpLogLoss, UnifiedFocalLoss
from .names import catalogue, parse
from .schedule import ramp
from .supervision import DeepSupervision

if _TYPE_CHECKING:
    from .lab.plot import plot

__all__ = [
    "ActiveContourLoss",
    "BorderCrossEntropyLoss",
    "BoundaryCrossEntropyLoss",
    "BoundaryF1Loss",
    "BoundaryLoss",
    "CIoULoss",
    "ComboLoss",
    "ConservativeLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DeepSupervision",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "DistanceMapPenaltyLoss",
    "DistributionFocalLoss",
    "EIoULoss",
    "EntropyLoss",
    "ExpLogLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GIoULoss",
    "GeneralizedDiceLoss",
    "GeneralizedFocalLoss",
    "HausdorffDTLoss",
    "HuberLoss",
    "IoULoss",
    "JaccardLoss",
    "KLDivergenceLoss",
    "L1Loss",
    "L2Loss",
    "LogCoshDiceLoss",
    "LogDiceLoss",
    "Loss",
    "LovaszHingeLoss",
    "LovaszSoftmaxLoss",
    "NonAdjacencyLoss",
    "OhemCrossEntropyLoss",
    "PowerCrossEntropyLoss",
    "QuadraticLoss",
    "QualityFocalLoss",
    "SIoULoss",
    "SensitivitySpecificityLoss",
    "SmoothL1Loss",
    "Sum",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "TwoClassDiceLoss",
    "UnifiedFocalLoss",
    "VarifocalLoss",
    "WeightedCrossEntropyLoss",
    "accumulate",
    "box",
    "catalogue",
    "check",
    "cross_entropy",
    "distance",
    "entropy",
    "explain",
    "generalized_focal",
    "hard_examples",
    "information",
    "integral",
    "kl_divergence",
    "parse",
    "plot",
    "ramp",
    "use_engine",
    "weighting",
]

# Modules that were files here before they were grouped: what was pickled with their names can be read.
_MOVED = {
    "boundary": "losses.map",
    "distribution": "losses.distribution",
    "divergence": "losses.information",
    "gfl": "losses.distribution_gfl",
    "lovasz": "losses.sorted",
    "pixel": "losses.pixel",
    "recipes": "losses.sum",
    "region": "losses.region",
    "regression": "losses.regression",
    "structure": "losses.field",
    "weighted": "losses.pixel_weighted",
}
for _old, _new in _MOVED.items():
    globals()[_old] = _sys.modules[f"{__name__}.{_old}"] = _import_module(f".{_new}", __name__)


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> _Any:
    """`plot` is the lab's: who only trains does not import it."""
    if name == "plot":
        return _import_module(".lab.plot", __name__).plot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
