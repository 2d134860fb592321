"""Maps that a call may hand over, which a loss would make of the target otherwise: who checks them, who makes them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .. import checks
from ..engine.problem import Problem


def distances(who: str, problem: Problem, given: Tensor) -> Tensor:
    """`distance=`, the signed distance map of each class, (N, C, *S)."""
    checks.floating(who, "distance", given)
    logits = problem.logits
    if given.shape != logits.shape:
        raise ValueError(
            f"{who}: distance must be shaped like the logits, {checks.shape(logits)}, got {checks.shape(given)}; "
            "make it with ls.distance.signed_distance_map(labels, num_classes)"
        )
    return given.detach()


def gaps(who: str, problem: Problem, given: Tensor) -> Tensor:
    """`gap=`, the distance to the nearest object and to the second, one map for all channels or one each: shaped like
    the labels."""
    checks.floating(who, "gap", given)
    n, c, *space = problem.logits.shape
    channels = () if problem.exclusive else (c,)
    shape = (n, *channels, *space)
    if tuple(given.shape) not in ((n, *space), (n, 1, *space), shape):
        raise ValueError(
            f"{who}: gap must be {(n, *space)}, one number per pixel, got {checks.shape(given)}; "
            "make it with ls.distance.gap_map(objects)"
        )
    if given.shape != shape:
        given = given.reshape(n, *[1] * len(channels), *space).expand(shape)
    return given.detach()


CHECKS: dict[str, Callable[[str, Problem, Tensor], Tensor]] = {"distance": distances, "gap": gaps}
