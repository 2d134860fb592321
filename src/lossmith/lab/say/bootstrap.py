"""What the held-back images allow one to say: a bootstrap over them, beside the intervals over seeds.

The weights stay as trained, and every resample is the same for all losses: such an interval is about which images, or
patients, were held back, and not about other seeds. Images of one patient are drawn together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    AP50 is the mean over seeds. Nothing is said of other photographs.
    """
    ranked = [row for row in ranking.rows if not row.status]
    if len(ranked) < 2:
        return {}
    draws = _draws(len(data.validation))
    values: dict[str, Array] = {}
    for row in ranked:
        mine = [t for t in trials if t["loss"] == row.loss and t["seed"] in ranking.seeds]
        if not all(t["hash"] in predictions for t in mine):  # somebody deleted a file
            continue
        found = [[predictions[t["hash"]][scene.stem] for scene in data.validation] for t in mine]
        values[row.loss] = np.mean([resampled_ap50(data.validation, boxes, draws) for boxes in found], axis=0)
    mean = {row.loss: row.mean["ap50"] or 0.0 for row in ranked}
    results = {}
    for loss, (low, high) in _intervals(values, ranked[0].loss).items():
        verdict = NO_DIFFERENCE if low <= 0 <= high else "lower" if high < 0 else "higher"
        difference = mean[loss] - mean[ranked[0].loss]
        results[loss] = {"mean": difference, "low": low, "high": high, "verdict": verdict, "interval": BOOTSTRAP}
    return results


def by_image(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[list[str], dict[str, list[Array]]]:
    """What the seeds of each loss found in each held-back image, one array (images, classes, 3) a seed.

    Where seeds hold back other images, in folds, there is one array, in which each image has the sum over its seeds.

    Args:
        found: of each loss and seed the counts (classes, 3) by image; losses without any are left out.

    Returns:
        the images in the order of the arrays, and the arrays by loss; nothing if a seed's counts are not known.
    """
    seeds = {loss: some for loss, some in found.items() if some}
    stems = list(dict.fromkeys(stem for some in seeds.values() for each in some for stem in each))
    if not all(each for some in seeds.values() for each in some):
        return [], {}
    if all(each.keys() == set(stems) for some in seeds.values() for each in some):
        return stems, {loss: [np.array([each[x] for x in stems]) for each in some] for loss, some in seeds.items()}
    summed = {}
    for loss, some in seeds.items():
        if set().union(*some) < set(stems):  # it has not come round all folds that others have
            continue
        summed[loss] = [np.array([np.sum([each[x] for each in some if x in each], axis=0) for x in stems])]
    return stems, summed


def over_images(
    ranking: LossRanking, counts: Mapping[str, Sequence[Array]], units: Sequence[str], together: bool, what: str
) -> dict[str, Any]:
    """For each ranked loss but the best: between what bounds its pooled Dice minus that of the best lies, 95 %.

    Args:
        ranking: who is ranked, and who is best.
        counts: hits, false alarms and misses of every seed of a loss, (images, classes, 3).
        units: what is drawn, the patient or the name of each image.
        together: whether all units are pooled in one score; else each has its own, of which the mean is taken.
        what: they are called, "patients" or "images".

    Returns:
        `what`, and by loss `low` and `high`; empty with fewer than two units or losses.
    """
    number = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    ranked = [row.loss for row in ranking.rows if not row.status and counts.get(row.loss)]
    if len(number) < 2 or len(ranked) < 2:
        return {}
    member = np.zeros((len(number), len(units)))
    member[[number[unit] for unit in units], range(len(units))] = 1
    drawn = np.stack([np.bincount(draw, minlength=len(number)) for draw in _draws(len(number))]).astype(np.float64)
    values = {
        loss: np.mean([_resampled_dice(np.tensordot(member, c, 1), drawn, together) for c in counts[loss]], axis=0)
        for loss in ranked
    }
    bounds = _intervals(values, ranked[0]).items()
    return {"what": what, **{loss: {"low": low, "high": high} for loss, (low, high) in bounds}}


def _resampled_dice(counts: Array, drawn: Array, together: bool) -> Array:
    """The score of each resample, from counts (units, classes, 3) and how often each unit is drawn in it."""
    pooled = np.tensordot(drawn, counts, 1) if together else counts
    hit, alarm, miss = np.moveaxis(pooled, -1, 0)
    size = 2 * hit + alarm + miss
    dice, known = 2 * hit / np.where(size, size, 1), size > 0
    if not together:
        times = drawn @ known
        dice, known = drawn @ dice / np.where(times, times, 1), times > 0
    return np.asarray((dice * known).sum(1) / np.where(known.any(1), known.sum(1), np.nan))


def _draws(count: int) -> Array:
    """Which of so many things each resample draws."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def _intervals(values: Mapping[str, Array], best: str) -> dict[str, tuple[float, float]]:
    """Of each loss but the best, from its value in each resample: 95 % of the differences to the best."""
    if best not in values:
        return {}
    ends = {
        loss: np.nanpercentile(v - values[best], [2.5, 97.5]).tolist() for loss, v in values.items() if loss != best
    }
    return {loss: (low, high) for loss, (low, high) in ends.items()}


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
