"""What a comparison leaves: results.json, and report.html, one file that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from lossmith.lab import curves, figures, pictures
from lossmith.lab.compare import as_json, read_predictions, write
from lossmith.lab.data import Data, Sample
from lossmith.lab.losses import parse_loss
from lossmith.lab.metrics import LOWER_IS_BETTER, scores_of
from lossmith.lab.plan import Settings
from lossmith.lab.ranking import NO_DIFFERENCE, Ranking, Row, rank

Array = np.ndarray[Any, Any]
Predictions = dict[str, dict[str, Array]]  # by trial hash, then by image stem

_MOST_EXAMPLE_SEEDS = 3
_OPTIONS = ("task", "steps", "crop", "batch", "lr", "ignore_index", "device", "unlabelled", "unlabelled_batch")


def write_report(
    trials: list[dict[str, Any]], asked: list[tuple[str, int]], data: Data, settings: Settings, out: Path
) -> dict[str, Any]:
    """Write `out`/results.json and `out`/report.html from all trials of that folder; returns what is in the former.

    `asked` are the (loss, seed) of this run: those without a trial are reported as missing.
    """
    losses, seeds, counts = scope(trials, asked)
    ranking = rank(trials, losses, scores_of(data.kind))
    results = {
        "headline": ranking.headline,
        **counts,
        "command": command(losses, seeds, settings.as_json(), out),
        "settings": settings.as_json(),
        "classes": data.classes,
        "images": {"train": len(data.train), "validation": len(data.validation), "unlabelled": len(data.unlabelled)},
        "kind": data.kind,
        "dimensions": data.dimensions,
        "class_shares": data.shares(),
        "source": data.source,
        "ranked_by": ranking.scores.ranked_by,
        "score": ranking.scores.title,
        "seeds": ranking.seeds,
        "ranking": [asdict(row) for row in ranking.rows],
        "trials": trials,
    }
    pixels = data.kind == "segmentation"
    predictions = {t["hash"]: stored for t in trials if pixels and (stored := read_predictions(out, t))}
    channels = 1 if settings.task == "binary" else len(data.classes)
    drawn = {loss: curves.sample(parse_loss(loss, settings, data), channels, pixels) for loss in losses}
    page = _render(ranking, results, data, predictions, drawn)
    write(out / "results.json", as_json(results))
    write(out / "report.html", page)
    return results


def _render(
    ranking: Ranking, results: dict[str, Any], data: Data, predictions: Predictions, drawn: dict[str, curves.Curve]
) -> str:
    trials = results["trials"]
    losses = [row.loss for row in ranking.rows]
    colour = figures.colours(losses)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("lossmith.lab").joinpath("report.html").read_text(encoding="utf-8"))
    return template.render(
        plotly_js=get_plotlyjs(),
        results=results,
        settings=results["settings"],
        ranking=ranking,
        colour=colour,
        rows=[_ranking_row(row, ranking) for row in ranking.rows],
        scores=ranking.scores,
        metrics=ranking.scores.titles,
        lower_is_better=LOWER_IS_BETTER,
        table=[_metric_row(row) for row in ranking.rows if row.seeds],
        judged=data.classes[1:] if data.kind == "segmentation" else data.classes,
        per_class=[_class_row(row, trials, ranking) for row in ranking.rows if row.seeds],
        confusions=[_confusion(row, trials) for row in ranking.rows if row.seeds and data.kind == "classification"],
        meanings={loss: t["meaning"] for loss in losses for t in trials if t["loss"] == loss},
        counted={t["loss"]: t.get("counted", "") for t in trials},
        trials=sorted(trials, key=lambda t: (losses.index(t["loss"]), t["seed"])),
        machines=machines(trials),
        example=_example(ranking, trials, data, predictions, results["settings"]["ignore_index"]),
        figures={
            "ranking": figures.ranking(ranking, trials, colour),
            "validation": figures.validation(trials, ranking.scores.title, colour),
            "training": figures.training(trials, colour),
            "curves": figures.curves(drawn, colour),
            "cost": figures.cost(trials, colour),
        },
        watched=next((t["validation"]["images"] for t in trials), []),
        no_difference=NO_DIFFERENCE,
    )


def scope(trials: list[dict[str, Any]], asked: list[tuple[str, int]]) -> tuple[list[str], int, dict[str, int]]:
    """The losses and the number of seeds of a folder, and how many of its trials are finished and planned."""
    finished = [(t["loss"], t["seed"]) for t in trials]
    planned = list(dict.fromkeys(asked + finished))
    losses = list(dict.fromkeys(loss for loss, _ in planned))
    return losses, 1 + max(seed for _, seed in planned), {"finished": len(finished), "planned": len(planned)}


def command(losses: list[str], seeds: int, settings: dict[str, Any], out: Path, names: Iterable[str] = _OPTIONS) -> str:
    """The command line that makes the same comparison again."""
    words = ["lossmith", "compare", settings["data"]]
    for loss in losses:
        words += ["--loss", loss]
    words += ["--seeds", str(seeds)]
    for name in names:
        if name in ("crop", "unlabelled", "unlabelled_batch") and not settings[name]:
            continue
        words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return shlex.join([*words, "--out", str(out)])


def _ranking_row(row: Row, ranking: Ranking) -> dict[str, Any]:
    first = ranking.scores.ranked_by
    difference = row.difference[first]
    if row.status:
        verdict = row.status
    elif row is ranking.reference:
        verdict = "highest mean"
    else:
        verdict = "no number" if difference is None else difference.verdict
    return {
        "row": row,
        "difference": difference,
        "verdict": verdict,
        "score": row.mean[first],
        "deviation": row.deviation[first],
    }


def _metric_row(row: Row) -> dict[str, Any]:
    cells = {}
    for metric, mean in row.mean.items():
        difference = row.difference[metric]
        mark = {"better": "▲", "worse": "▼"}.get(difference.verdict, "") if difference else ""
        cells[metric] = {"mean": mean, "deviation": row.deviation[metric], "mark": mark}
    return {"loss": row.loss, "cells": cells}


def _trials_of(row: Row, trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [t for t in trials if t["loss"] == row.loss and t["seed"] in row.seeds and t["metrics"]]


def _class_row(row: Row, trials: list[dict[str, Any]], ranking: Ranking) -> dict[str, Any]:
    """Each metric's mean over seeds, for each class that is judged."""
    cells: dict[str, list[float | None]] = {}
    for metric in ranking.scores.titles.keys() - ranking.scores.without_classes:
        by_class = zip(*(t["per_class"][metric] for t in _trials_of(row, trials)), strict=True)
        known = [[v for v in values if v is not None] for values in by_class]
        cells[metric] = [float(np.mean(v)) if v else None for v in known]
    return {"loss": row.loss, "cells": cells}


def _confusion(row: Row, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """For each true class the share of its images that each class was predicted for; mean over seeds."""
    counts = np.mean([t["confusion"] for t in _trials_of(row, trials)], axis=0)
    totals = counts.sum(1, keepdims=True)
    return {"loss": row.loss, "shares": (counts / np.where(totals, totals, 1)).tolist(), "images": totals[:, 0]}


def machines(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The different machines behind the trials; more than one means that times cannot be compared."""
    found: list[dict[str, Any]] = []
    for trial in trials:
        if trial["machine"] not in found:
            found.append(trial["machine"])
    return found


def _example(
    ranking: Ranking, trials: list[dict[str, Any]], data: Data, predictions: Predictions, ignore_index: int
) -> dict[str, Any] | None:
    """The held-back image whose Dice, averaged over all trials, is the median; every loss, up to three seeds."""
    shown = [t for t in trials if t["hash"] in predictions]
    if not shown:
        return None
    sample = _median_image(shown, data)
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
                        "dice": float(np.mean(trial["images"][sample.stem]["dice"])),
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


def _median_image(trials: list[dict[str, Any]], data: Data) -> Sample:
    scores = [np.mean([np.mean(t["images"][s.stem]["dice"]) for t in trials]) for s in data.validation]
    return data.validation[int(np.argsort(scores)[(len(scores) - 1) // 2])]
