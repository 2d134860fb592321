"""What the pages of labelled data show beside the ranking: each class, predictions, confusions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lossmith.lab.data.labelled import Data
from lossmith.lab.data.samples import Sample
from lossmith.lab.kind import Predictions, Trials
from lossmith.lab.page import pictures
from lossmith.lab.say.metrics import pooled_dice
from lossmith.lab.say.ranking import LossRanking, RankedLoss

Array = np.ndarray[Any, Any]

_MOST_EXAMPLE_SEEDS = 3
_MOST_ROWS = 40


def class_row(row: RankedLoss, trials: Trials, ranking: LossRanking) -> dict[str, Any]:
    """Each metric's mean over seeds, for each class that is judged."""
    cells: dict[str, list[float | None]] = {}
    for metric in ranking.metrics.titles.keys() - ranking.metrics.without_classes:
        by_class = zip(*(t["per_class"][metric] for t in _trials_of(row, trials)), strict=True)
        known = [[v for v in values if v is not None] for values in by_class]
        cells[metric] = [float(np.mean(v)) if v else None for v in known]
    return {"loss": row.loss, "cells": cells}


def tables(data: Data, stems: list[str], counts: Mapping[str, list[Array]]) -> list[dict[str, Any]]:
    """Each patient's score, where patients are known, and each image's; mean over seeds, the hardest first.

    `counts` are hits, false alarms and misses of each loss in the images `stems`, one array a seed. An image without
    anything to find in which nothing was found has no score.
    """
    if not counts:
        return []
    patients = [data.groups.get(stem, stem) for stem in stems]
    shown = [_table("patient", patients, counts)] if data.groups else []
    return [*shown, _table("image", stems, counts)]


def _table(what: str, units: list[str], known: Mapping[str, list[Array]]) -> dict[str, Any]:
    """The score of each loss in each unit: Dice of its counted classes, averaged over these and over seeds."""
    names = list(dict.fromkeys(units))
    member = np.array([[unit == name for unit in units] for name in names], dtype=np.float64)
    scores = {}
    for loss, found in known.items():
        dice = np.array(
            [pooled_dice(np.tensordot(member[i], c, 1)[None], [""]) for c in found for i in range(len(names))]
        )
        by_class = dice.reshape(len(found), len(names), -1)
        seen = np.isfinite(by_class)
        dice = np.where(seen, by_class, 0).sum(2) / np.maximum(seen.sum(2), 1)
        total, number = dice.sum(0), seen.any(2).sum(0)
        scores[loss] = [float(t / n) if n else None for t, n in zip(total, number, strict=True)]
    rows = [{"name": name, "scores": {loss: s[i] for loss, s in scores.items()}} for i, name in enumerate(names)]
    rows.sort(key=_hardness)
    return {"what": what, "losses": list(known), "rows": rows[:_MOST_ROWS], "left_out": max(0, len(rows) - _MOST_ROWS)}


def _hardness(row: dict[str, Any]) -> float:
    scores = [score for score in row["scores"].values() if score is not None]
    return sum(scores) / len(scores) if scores else 2.0


def confusion(row: RankedLoss, trials: Trials) -> dict[str, Any]:
    """For each true class the share of its images that each class was predicted for; mean over seeds."""
    counts = np.mean([t["confusion"] for t in _trials_of(row, trials)], axis=0)
    totals = counts.sum(1, keepdims=True)
    return {"loss": row.loss, "shares": (counts / np.where(totals, totals, 1)).tolist(), "images": totals[:, 0]}


def _trials_of(row: RankedLoss, trials: Trials) -> list[dict[str, Any]]:
    return [t for t in trials if t["loss"] == row.loss and t["seed"] in row.seeds and t["metrics"]]


def median_example(
    ranking: LossRanking, trials: Trials, data: Data, predictions: Predictions, ignore_index: int
) -> dict[str, Any] | None:
    """The held-back image whose Dice, averaged over all trials, is the median; every loss, up to three seeds."""
    shown = [t for t in trials if t["hash"] in predictions]
    if not shown:
        return None
    sample = median_image(shown, data)
    seeds = sorted({t["seed"] for t in shown})[:_MOST_EXAMPLE_SEEDS]
    several = len(data.classes) > 2
    draw = pictures.painted if several else pictures.panel
    drawn = []
    for view in pictures.views(sample, ignore_index):
        flat = view.sample(sample)
        window = pictures.window_around(flat, ignore_index)
        rows = []
        for row in ranking.rows:
            panels: list[dict[str, Any] | None] = []
            for seed in seeds:
                trial = next((t for t in shown if t["loss"] == row.loss and t["seed"] == seed), None)
                predicted = predictions[trial["hash"]].get(sample.stem) if trial else None
                if trial is None or predicted is None:
                    panels.append(None)
                    continue
                panels.append(
                    {
                        "uri": draw(flat, view.of(predicted), window, ignore_index),
                        "dice": float(np.mean(trial["images"][sample.stem]["dice_per_image"])),
                        "outside": pictures.outside(flat, view.of(predicted), window, ignore_index),
                    }
                )
            rows.append({"loss": row.loss, "status": row.status, "panels": panels})
        overview = pictures.overview(flat, window, ignore_index)
        truth = pictures.painted(flat, flat.label, window, ignore_index) if several else ""
        drawn.append({"title": view.title, "overview": overview, "truth": truth, "rows": rows})
    return {
        "stem": sample.stem,
        "seeds": seeds,
        "views": drawn,
        "legend": {name: f"rgb{pictures.CLASSES[k % len(pictures.CLASSES)]}" for k, name in enumerate(data.classes[1:])}
        if several
        else {},
        "truth": f"rgb{pictures.TRUTH}",
        "prediction": f"rgb{pictures.PREDICTION}",
    }


def median_image(trials: Trials, data: Data) -> Sample:
    """The held-back image with the median Dice over all trials."""
    scores = {}
    for sample in data.train + data.validation:  # in folds each is held back once
        mine = [np.mean(t["images"][sample.stem]["dice_per_image"]) for t in trials if sample.stem in t["images"]]
        if mine:
            scores[sample] = float(np.mean(mine))
    return sorted(scores, key=scores.__getitem__)[(len(scores) - 1) // 2]
