"""The names in monai.losses that have no counterpart here, each with what to use instead."""

from __future__ import annotations

from typing import Any

from ..peer import refused

THEIRS = "it is no loss of labels, boxes or detections: import it from monai.losses"
REASONS = {
    "GeneralizedWassersteinDiceLoss": "distances between classes are no setting here; use monai.losses, or "
    "lossmith.DiceLoss with class_weight",
    "MCCLoss": "there is no Matthews correlation; use lossmith.TwoClassDiceLoss, which sees true negatives too, or "
    "monai.losses",
    "NACLLoss": "there is no penalty on logits; use lossmith.CrossEntropyLoss(label_smoothing=...), or monai.losses",
    "SoftclDiceLoss": "there is no soft skeleton; use lossmith.BoundaryF1Loss for thin structures, or monai.losses",
    "SoftDiceclDiceLoss": "there is no soft skeleton; use lossmith.DiceLoss() + lossmith.BoundaryF1Loss(), or "
    "monai.losses",
    "MaskedLoss": "it multiplies inputs by a mask, and a logit of 0 is a prediction; use weight=mask in the call of "
    "one of ours, or MaskedDiceLoss",
    "AUCMLoss": "there is no loss of rankings of images; use lossmith.FocalLoss, or monai.losses",
    **dict.fromkeys(
        (
            "BarlowTwinsLoss",
            "BendingEnergyLoss",
            "ContrastiveLoss",
            "DiffusionLoss",
            "GlobalMutualInformationLoss",
            "JukeboxLoss",
            "LocalNormalizedCrossCorrelationLoss",
            "MultiScaleLoss",
            "PatchAdversarialLoss",
            "PerceptualLoss",
            "SSIMLoss",
            "SURELoss",
        ),
        THEIRS,
    ),
}
NAMES: tuple[str, ...] = (*REASONS, "generalized_wasserstein_dice")

_classes: dict[str, Any] = {name: refused(f"monai.losses.{name}", why) for name, why in REASONS.items()}
globals().update(_classes, generalized_wasserstein_dice=_classes["GeneralizedWassersteinDiceLoss"])
__all__ = list(NAMES)
