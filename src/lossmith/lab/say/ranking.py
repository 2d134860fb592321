"""What the trials of a comparison allow one to say: paired differences over seeds, and no more than that.

For a seed, all losses start from the same weights and see the same crops; so losses are compared seed by seed, and the
interval is Student's t over those differences. It speaks of other seeds, not of other images; each is for one pair,
without correction for the number of pairs; and the loss that the others are compared with was picked by the same data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from lossmith.lab.say.metrics import SEGMENTATION, MetricSet

NO_DIFFERENCE = "no difference seen"
_LEAST_SEEDS = 3
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A loss minus the reference, over paired seeds; `low` and `high` are None with fewer than three seeds."""

    mean: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class RankedLoss:
    """One loss in the ranking. `status` is "" or says why it is not ranked."""

    loss: str
    seeds: list[int]
    mean: dict[str, float | None]
    deviation: dict[str, float | None]
    difference: dict[str, Difference | None]
    status: str


@dataclass(frozen=True)
class LossRanking:
    """Best first, the unranked last. `seeds` are those that every started loss has finished."""

    rows: list[RankedLoss]
    seeds: list[int]
    headline: str
    metrics: MetricSet

    @property
    def reference(self) -> RankedLoss | None:
        """The row that the others are compared with."""
        return self.rows[0] if self.rows and not self.rows[0].status else None


def rank(trials: list[dict[str, Any]], losses: list[str], metrics: MetricSet = SEGMENTATION) -> LossRanking:
    """Rank losses by the mean of `metrics.ranked_by` in the records of their trials.

    `losses` fixes the order among equals.
    """
    first = metrics.ranked_by
    by_loss = {loss: {t["seed"]: t for t in trials if t["loss"] == loss} for loss in losses}
    started = [loss for loss in losses if by_loss[loss]]
    seeds = sorted(set.intersection(*(set(by_loss[loss]) for loss in started))) if started else []
    status = {loss: _status(by_loss[loss], seeds) for loss in losses}
    ranked = sorted((x for x in losses if not status[x]), key=lambda x: -_values(by_loss[x], seeds, first).mean())
    rows = []
    for loss in ranked + [x for x in losses if status[x]]:
        mine = by_loss[loss]
        usable = [s for s in seeds if s in mine and mine[s]["metrics"]]
        values = {m: _values(mine, usable, m) for m in metrics.titles}
        differences: dict[str, Difference | None] = dict.fromkeys(metrics.titles)
        if not status[loss] and loss != ranked[0]:
            reference = by_loss[ranked[0]]
            differences = {
                m: _difference(values[m] - _values(reference, seeds, m), m in metrics.lower_is_better)
                for m in metrics.titles
            }
        rows.append(
            RankedLoss(
                loss=loss,
                seeds=usable,
                mean={m: _number(v.mean()) if len(v) else None for m, v in values.items()},
                deviation={m: _number(v.std(ddof=1)) if len(v) > 1 else None for m, v in values.items()},
                difference=differences,
                status=status[loss],
            )
        )
    return LossRanking(rows, seeds, _headline(rows, len(seeds), metrics), metrics)


def _status(mine: dict[int, dict[str, Any]], seeds: list[int]) -> str:
    if not mine:
        return "not run yet"
    if not seeds:
        return "no seed in common with the others"
    lost = [mine[s]["diverged"] for s in seeds if mine[s]["diverged"]]
    if not lost:
        return ""
    at = sorted({d["step"] for d in lost})
    steps = f"step{'s' if len(at) > 1 else ''} {', '.join(map(str, at))}"
    return (
        f"diverged at {steps}"
        if len(lost) == len(seeds)
        else (f"diverged at {steps} ({len(lost)} of {len(seeds)} seeds)")
    )


def _values(trials: dict[int, dict[str, Any]], seeds: list[int], metric: str) -> np.ndarray[Any, Any]:
    """One number per seed; NaN where the metric has none."""
    return np.array([trials[s]["metrics"][metric] for s in seeds], dtype=np.float64)


def _difference(paired: np.ndarray[Any, Any], lower_is_better: bool) -> Difference | None:
    if not np.isfinite(paired).all():
        return None
    mean, count = float(paired.mean()), len(paired)
    if count < _LEAST_SEEDS:
        return Difference(mean, None, None, "too few seeds for an interval" if paired.any() else NO_DIFFERENCE)
    half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, count - 1)) * float(paired.std(ddof=1)) / math.sqrt(count)
    low, high = mean - half, mean + half
    if low <= 0 <= high:
        return Difference(mean, low, high, NO_DIFFERENCE)
    return Difference(mean, low, high, "better" if (mean < 0) == lower_is_better else "worse")


def _headline(rows: list[RankedLoss], seeds: int, metrics: MetricSet) -> str:
    """One sentence that claims no more than the intervals do."""
    ranked = [row for row in rows if not row.status]
    diverged = [row.loss for row in rows if row.status.startswith("diverged")]
    also = f" {_listed(diverged)} diverged." if diverged else ""
    if not ranked:
        return "Every loss diverged." if diverged else "No trial has finished yet."
    best = ranked[0]
    score = f"{metrics.title} {best.mean[metrics.ranked_by]:.3f}"
    if len(ranked) == 1:
        return f"{_listed([best.loss])} reached {score} ({_seeds(seeds)}); nothing to compare it with.{also}"
    if seeds < _LEAST_SEEDS:
        return (
            f"{_listed([best.loss])} scored highest ({score}), but {_seeds(seeds)} cannot tell a difference from "
            f"chance: give --seeds 3 or more.{also}"
        )
    verdicts = {row.loss: row.difference[metrics.ranked_by] for row in ranked[1:]}
    alike = [loss for loss, d in verdicts.items() if d is None or d.verdict == NO_DIFFERENCE]
    lower = [f"“{loss}” by {-d.mean:.3f}" for loss, d in verdicts.items() if d and d.verdict == "worse"]
    parts = [f"“{best.loss}” scored highest ({score}, {_seeds(seeds)})"]
    if alike:
        parts.append(f"{NO_DIFFERENCE} from {_listed(alike)}")
    if lower:
        parts.append(f"lower: {', '.join(lower)}")
    return "; ".join(parts) + f".{also}"


def _listed(losses: list[str]) -> str:
    quoted = [f"“{loss}”" for loss in losses]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
