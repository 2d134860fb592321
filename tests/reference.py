"""Slow references: every loss written from its paper's formula, one image, pixel and class at a time, in float64.

They share nothing with the library: no torch, no vector arithmetic, no derivative. Each is called as
``reference(logits, target, task=..., weight=None, denominator=None, **settings)`` with numpy arrays: logits (N, C, *S),
the target as the call contract has it, and the settings of the loss and the shared ones under their public names.

They stand in a file per family, on `reference_rows`, which knows what a valid pixel and a mean is. Here is the table.
"""

from __future__ import annotations

from collections.abc import Callable

import reference_pixel as pixel
import reference_recipes as recipes
import reference_region as region
import reference_sorted as order
import reference_spatial as spatial

REFERENCES: dict[str, Callable] = {
    "ce": pixel.ce,
    "wce": pixel.wce,
    "ohem": pixel.ohem,
    "topk": pixel.topk,
    "focal": pixel.focal,
    "power_ce": pixel.power_ce,
    "conservative": pixel.conservative,
    "quadratic": pixel.quadratic,
    "boundary_ce": spatial.boundary_ce,
    "distance_penalty": spatial.distance_penalty,
    "border_ce": spatial.border_ce,
    "kl": pixel.kl,
    "entropy": pixel.entropy,
    "dice": region.dice,
    "dice2": region.dice2,
    "logcosh_dice": region.logcosh_dice,
    "log_dice": region.log_dice,
    "jaccard": region.jaccard,
    "tversky": region.tversky,
    "focal_tversky": region.focal_tversky,
    "ss": region.ss,
    "gdl": region.gdl,
    "lovasz": order.lovasz,
    "lovasz_hinge": order.lovasz_hinge,
    "boundary": spatial.boundary,
    "hausdorff": spatial.hausdorff,
    "active_contour": spatial.active_contour,
    "nonadjacency": spatial.nonadjacency,
    "boundary_f1": spatial.boundary_f1,
    "dice_ce": recipes.dice_ce,
    "dice_focal": recipes.dice_focal,
    "combo": recipes.combo,
    "explog": recipes.explog,
    "unified_focal": recipes.unified_focal,
}
