"""The names in kornia.losses that have no counterpart here, each with what to use instead."""

from __future__ import annotations

from typing import Any

from ..peer import refused

EROSION = "there is no erosion; use lossmith.HausdorffDTLoss, by exact distances, or kornia.losses"
REASONS = {
    "HausdorffERLoss": EROSION,
    "HausdorffERLoss3D": EROSION,
    "one_hot": "labels are taken as they are; use torch.nn.functional.one_hot",
    **dict.fromkeys(
        (
            "CauchyLoss",
            "CharbonnierLoss",
            "GemanMcclureLoss",
            "InverseDepthSmoothnessLoss",
            "MIKernel",
            "MILossFromRef",
            "MILossFromRef2D",
            "MILossFromRef3D",
            "MS_SSIMLoss",
            "NMILossFromRef",
            "NMILossFromRef2D",
            "NMILossFromRef3D",
            "PSNRLoss",
            "SSIM3DLoss",
            "SSIMLoss",
            "TotalVariation",
            "WelschLoss",
            "cauchy_loss",
            "charbonnier_loss",
            "geman_mcclure_loss",
            "inverse_depth_smoothness_loss",
            "js_div_loss_2d",
            "kl_div_loss_2d",
            "mutual_information_loss",
            "mutual_information_loss_2d",
            "mutual_information_loss_3d",
            "normalized_mutual_information_loss",
            "normalized_mutual_information_loss_2d",
            "normalized_mutual_information_loss_3d",
            "psnr_loss",
            "ssim3d_loss",
            "ssim_loss",
            "total_variation",
            "welsch_loss",
        ),
        "it is a loss of images, not of labels: import it from kornia.losses",
    ),
}
NAMES: tuple[str, ...] = (*REASONS,)

_classes: dict[str, Any] = {name: refused(f"kornia.losses.{name}", why) for name, why in REASONS.items()}
globals().update(_classes)
__all__ = list(NAMES)
