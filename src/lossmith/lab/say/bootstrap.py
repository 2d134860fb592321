"""What held-back tiles allow one to say of detectors: a bootstrap over them, beside the intervals over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossmith.lab.data.scenes import Scenes
from lossmith.lab.say.average_precision import resampled_ap50
from lossmith.lab.say.ranking import LossRanking

Array = np.ndarray[Any, Any]

RESAMPLES = 1000
NO_DIFFERENCE = "no difference seen"
BOOTSTRAP = "95 % bootstrap interval over the held-back tiles, not over training seeds"


def bootstrap(
    ranking: LossRanking, trials: list[dict[str, Any]], predictions: dict[str, dict[str, Array]], data: Scenes
) -> dict[str, dict[str, Any]]:
    """For each ranked loss but the best: its AP50 minus that of the best, over resamples of the held-back tiles.

    Every resample is the same for all losses, and AP50 is the mean over seeds. The weights stay as trained: the
    interval is about which tiles were held back, and not about other seeds or other photographs.
    """
    ranked = [row for row in ranking.rows if not row.status]
    if len(ranked) < 2:
        return {}
    count = len(data.validation)
    draws = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    values: dict[str, Array] = {}
    for row in ranked:
        mine = [t for t in trials if t["loss"] == row.loss and t["seed"] in ranking.seeds]
        if not all(t["hash"] in predictions for t in mine):  # somebody deleted a file
            continue
        found = [[predictions[t["hash"]][scene.stem] for scene in data.validation] for t in mine]
        values[row.loss] = np.mean([resampled_ap50(data.validation, boxes, draws) for boxes in found], axis=0)
    best, results = ranked[0], {}
    for row in ranked[1:]:
        if row.loss not in values or best.loss not in values:
            continue
        low, high = np.nanpercentile(values[row.loss] - values[best.loss], [2.5, 97.5]).tolist()
        difference = (row.mean["ap50"] or 0.0) - (best.mean["ap50"] or 0.0)
        verdict = NO_DIFFERENCE if low <= 0 <= high else "lower" if high < 0 else "higher"
        results[row.loss] = {"mean": difference, "low": low, "high": high, "verdict": verdict, "interval": BOOTSTRAP}
    return results


def headline(ranking: LossRanking, over_tiles: dict[str, dict[str, Any]]) -> str:
    """With two seeds what the seeds say, with one what the tiles say; never more."""
    if len(ranking.seeds) >= 2 or not over_tiles:
        return ranking.headline
    best = ranking.rows[0]
    parts = [
        f"“{loss}” {d['mean']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}): {d['verdict']}"
        for loss, d in over_tiles.items()
    ]
    seeds = "1 seed" if len(ranking.seeds) == 1 else f"{len(ranking.seeds)} seeds"
    lost = [f" “{row.loss}” diverged." for row in ranking.rows if row.status.startswith("diverged")]
    return (
        f"“{best.loss}” scored highest (AP50 {best.mean['ap50']:.3f}, {seeds}); {'; '.join(parts)} – {BOOTSTRAP}: "
        f"another seed may turn this round.{''.join(lost)}"
    ).replace("-0.", "−0.")
