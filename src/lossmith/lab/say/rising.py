"""Which losses would still gain from longer training: those whose curves rise at the end by more than they scatter."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

_USUAL = 0.02  # how much a score moves between the last two checkpoints by chance; what few seeds scatter less is luck


def last_rise(trials: Sequence[dict[str, Any]]) -> float | None:
    """By how much the score of a loss rose over the last fifth of the run; None if that may be chance, or was no rise.

    A rise counts from two standard errors of its mean over the seeds.
    """
    courses = [t["validation"]["score"] for t in trials if len(t["validation"]["score"]) > 1]
    rises = [course[-1] - course[-2] for course in courses]
    if not rises:
        return None
    deviation = max(_USUAL, stdev(rises) if len(rises) > 1 else 0.0)
    rise = fmean(rises)
    return rise if rise > 2 * deviation / len(rises) ** 0.5 else None
