"""Values worked out apart from any implementation, for the losses on logits: all cases in one table."""

from __future__ import annotations

import golden_pixel
import golden_region
import golden_spatial
from golden_fixtures import (
    M_TARGET,
    P_BOTH,
    P_PROBABILITY,
    P_TARGET,
    Golden,
    M,
    P,
    channels_first,
    label,
    logit,
    one,
    through_sigmoid,
)  # fmt: skip
from golden_pixel import M_PROBABILITY, WCE_SLOPE, WCE_SLOPE_OF_WEIGHT
from golden_region import FUSED_M_BY_HIT, FUSED_M_BY_SIZE, FUSED_M_GRADIENT

__all__ = [
    "CASES", "FUSED_M_BY_HIT", "FUSED_M_BY_SIZE", "FUSED_M_GRADIENT", "M_PROBABILITY", "M_TARGET", "P_BOTH",
    "P_PROBABILITY", "P_TARGET", "WCE_SLOPE", "WCE_SLOPE_OF_WEIGHT", "Golden", "M", "P", "channels_first", "label",
    "logit", "one", "through_sigmoid",
]  # fmt: skip

CASES: list[Golden] = [*golden_pixel.CASES, *golden_region.CASES, *golden_spatial.CASES]
