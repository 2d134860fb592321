"""Losses for segmentation, detection and imbalanced data, from one contract, in one pass over the logits.

>>> import torch, lossmith as ls
>>> loss = ls.DiceLoss(ignore_index=255) + 0.5 * ls.FocalLoss(gamma=2.0, ignore_index=255)
>>> logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
>>> value = loss(logits, torch.ones(2, 8, 8, dtype=torch.uint8))
>>> value.backward()
"""

from . import box
from .box import *  # noqa: F403  every loss of the family, also those written tomorrow
from .distribution import *  # noqa: F403
from .distribution import generalized_focal, integral
from .engine import use_engine
from .gfl import *  # noqa: F403
from .loss import CATALOGUE, Loss, Sum
from .mining import hard_examples
from .names import catalogue, parse
from .pixel import *  # noqa: F403
from .region import *  # noqa: F403
from .regression import *  # noqa: F403
from .schedule import ramp

__all__ = [
    "Loss",
    "Sum",
    "box",
    "catalogue",
    "generalized_focal",
    "hard_examples",
    "integral",
    "parse",
    "ramp",
    "use_engine",
    *(cls.__name__ for cls in CATALOGUE.values()),
]


def __dir__() -> list[str]:
    return sorted(__all__)
