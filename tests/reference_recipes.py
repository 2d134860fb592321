"""Slow references of the recipes: sums of the losses of the other files, and of two of their own.

The shared settings go to both halves, a denominator to the half that prices pixels.
"""

from __future__ import annotations

import numpy as np

from reference_pixel import ce, focal, power_ce
from reference_region import Sums, dice, dice_of, log_dice, region_loss, tversky_of
from reference_rows import class_mean, event, expected, pixel_loss


def weighted_sum(pixel_weight, pixel_half, region_weight, region_half, call):
    """Each half is a function of the settings of the call."""
    if call.get("reduction") == "none":
        raise ValueError("a sum is one number: reduction='none' has no meaning")
    for_region = {key: value for key, value in call.items() if key != "denominator"}
    return pixel_weight * pixel_half(**call) + region_weight * region_half(**for_region)


def dice_ce(logits, target, *, dice_weight=1.0, ce_weight=1.0, **call):
    """Cross-entropy and Dice (as in nnU-Net, Isensee et al. 2018)."""
    return weighted_sum(
        ce_weight, lambda **call: ce(logits, target, **call),
        dice_weight, lambda **call: dice(logits, target, **call), call,
    )  # fmt: skip


def dice_focal(logits, target, *, dice_weight=1.0, focal_weight=1.0, gamma=2.0, **call):
    """Focal loss and Dice (Zhu et al. 2019)."""
    return weighted_sum(
        focal_weight, lambda **call: focal(logits, target, gamma=gamma, **call),
        dice_weight, lambda **call: dice(logits, target, **call), call,
    )  # fmt: skip


def combo(logits, target, *, alpha=0.5, beta=0.5, smooth=1.0, shift=False, **call):
    """α · mean of β u where the label is > 0 and (1 − β) u where it is 0, − (1 − α) · Dice (Taghanaki et al. 2019).

    shift adds 1 − α: 1 − Dice instead of −Dice.
    """

    def price(row, cw):
        return expected(row, cw, lambda k: (beta if k > 0 else 1.0 - beta) * event(row.z, k)[0])

    def formula(s):
        return dice_of(s, smooth) - (0.0 if shift else 1.0)

    return weighted_sum(
        alpha, lambda **call: pixel_loss(logits, target, price, **call),
        1.0 - alpha, lambda **call: region_loss(logits, target, formula, **call), call,
    )  # fmt: skip


def explog(logits, target, *, dice_weight=0.8, ce_weight=0.2, gamma=0.3, frequencies=None, **call):
    """w_D · mean (−ln D)^γ + w_X · mean w_l u^γ (Wong et al. 2018, eq. 1)."""
    return weighted_sum(
        ce_weight, lambda **call: power_ce(logits, target, exponent=gamma, frequencies=frequencies, **call),
        dice_weight, lambda **call: log_dice(logits, target, exponent=gamma, **call), call,
    )  # fmt: skip


def unified_focal(
    logits, target, *, lam=0.5, delta=0.6, gamma=0.5, asymmetric=True, rare=None, smooth=1.0, task, **call
):  # fmt: skip
    """λ·focal + (1 − λ)·focal-Tversky, with δ on what is rare (Yeung et al. 2022; the exponents of the authors' code).

    Focal half: a rare label costs δ u, another (1 − δ)(1 − p)^γ u. Region half: 1 − T with δ on false negatives and
    1 − δ on false positives, to the power 1 − γ for a rare class. Symmetric: both powers for all. A binary pixel has
    two classes; rare are all classes but 0. A channel of a multilabel pixel is one class, and its "yes" is rare if the
    channel is (without `rare`: every channel).
    """
    channels = np.shape(logits)[1]
    if rare is None:
        rare = range(channels) if task == "multilabel" else range(1, max(channels, 2))

    def price(row, cw):
        def cost(k):
            u, _, miss = event(row.z, k)
            is_rare = (k == 1 and row.channel in rare) if task == "multilabel" else k in rare
            power = 0.0 if asymmetric and is_rare else gamma
            return (delta if is_rare else 1.0 - delta) * miss**power * u

        return expected(row, cw, cost)

    def value(c, points):
        miss = tversky_of(Sums(points), 1.0 - delta, delta, smooth)
        return miss if asymmetric and c not in rare else miss ** (1.0 - gamma)

    return weighted_sum(
        lam, lambda **call: pixel_loss(logits, target, price, **call),
        1.0 - lam, lambda **call: class_mean(logits, target, value, both_labels=True, **call), call | {"task": task},
    )  # fmt: skip
