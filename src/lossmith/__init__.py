"""Losses for segmentation, detection and imbalanced data, from one contract, in one pass over the logits.

>>> import torch, lossmith as ls
>>> loss = ls.DiceLoss(ignore_index=255) + 0.5 * ls.FocalLoss(gamma=2.0, ignore_index=255)
>>> logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
>>> value = loss(logits, torch.ones(2, 8, 8, dtype=torch.uint8))
>>> value.backward()
"""

from . import box, distance, weighting
from .boundary import *  # noqa: F403  every loss of the family, also those written tomorrow
from .box import *  # noqa: F403
from .distribution import *  # noqa: F403
from .distribution import generalized_focal, integral
from .divergence import *  # noqa: F403
from .divergence import cross_entropy, entropy, information, kl_divergence
from .engine import use_engine
from .gfl import *  # noqa: F403
from .loss import CATALOGUE, Loss, Sum
from .lovasz import *  # noqa: F403
from .mining import hard_examples
from .names import catalogue, parse
from .pixel import *  # noqa: F403
from .recipes import *  # noqa: F403
from .region import *  # noqa: F403
from .regression import *  # noqa: F403
from .schedule import ramp
from .structure import *  # noqa: F403
from .supervision import DeepSupervision
from .weighted import *  # noqa: F403

__all__ = [
    "DeepSupervision",
    "Loss",
    "Sum",
    "box",
    "catalogue",
    "cross_entropy",
    "distance",
    "entropy",
    "information",
    "kl_divergence",
    "generalized_focal",
    "hard_examples",
    "integral",
    "parse",
    "ramp",
    "use_engine",
    "weighting",
    *(cls.__name__ for cls in CATALOGUE.values()),
]


def __dir__() -> list[str]:
    return sorted(__all__)
