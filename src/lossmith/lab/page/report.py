"""What a comparison leaves: results.json, and report.html, one file that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lossmith.lab.kind import Predictions
from lossmith.lab.page import figures
from lossmith.lab.page.templates import render
from lossmith.lab.run.comparison import Comparison
from lossmith.lab.run.records import as_json, read_predictions, write
from lossmith.lab.say.ranking import NO_DIFFERENCE, LossRanking, RankedLoss, rank


def write_report(
    comparison: Comparison, trials: list[dict[str, Any]], asked: list[tuple[str, int]], out: Path
) -> dict[str, Any]:
    """Write `out`/results.json and `out`/report.html from all trials of that folder; returns what is in the former.

    `asked` are the (loss, seed) of this run: those without a trial are reported as missing.
    """
    kind, data, settings = comparison.kind, comparison.data, comparison.settings.as_json()
    losses, seeds, counts = _scope(trials, asked)
    ranking = rank(trials, losses, kind.metrics)
    predictions = {t["hash"]: stored for t in trials if (stored := read_predictions(out, t))}
    headline, more = kind.verdict(ranking, trials, predictions, data)
    results = {
        "headline": headline,
        **counts,
        "command": _command(losses, seeds, settings, out, kind.options),
        "settings": settings,
        **kind.facts(data),
        "source": data.source,
        "ranked_by": ranking.metrics.ranked_by,
        "score": ranking.metrics.title,
        "seeds": ranking.seeds,
        "ranking": [asdict(row) for row in ranking.rows],
        **more,
        "trials": trials,
    }
    page = _page(comparison, ranking, results, predictions)
    write(out / "results.json", as_json(results))
    write(out / "report.html", page)
    return results


def _page(comparison: Comparison, ranking: LossRanking, results: dict[str, Any], predictions: Predictions) -> str:
    kind, trials = comparison.kind, results["trials"]
    losses = [row.loss for row in ranking.rows]
    colour = figures.colours(losses)
    curves = {text: kind.curve(comparison.loss(text).loss, comparison.data, comparison.settings) for text in losses}
    drawn = {text: curve for text, curve in curves.items() if curve}
    return render(
        kind.template,
        results=results,
        settings=results["settings"],
        ranking=ranking,
        metrics=ranking.metrics,
        colour=colour,
        rows=[_ranking_row(row, ranking) for row in ranking.rows],
        table=[_metric_row(row) for row in ranking.rows if row.seeds],
        meanings={loss: t["meaning"] for loss in losses for t in trials if t["loss"] == loss},
        counted={t["loss"]: t.get("counted", "") for t in trials},
        trials=sorted(trials, key=lambda t: (losses.index(t["loss"]), t["seed"])),
        machines=_machines(trials),
        figures={
            "ranking": figures.ranking(ranking, trials, colour),
            "validation": figures.validation(trials, ranking.metrics.title, colour),
            "training": figures.training(trials, colour),
            "curves": figures.curves(drawn, colour),
            "cost": figures.cost(trials, colour),
        },
        watched=next((t["validation"]["images"] for t in trials), []),
        no_difference=NO_DIFFERENCE,
        **kind.page(ranking, results, predictions, comparison.data),
    )


def _scope(trials: list[dict[str, Any]], asked: list[tuple[str, int]]) -> tuple[list[str], int, dict[str, int]]:
    """The losses and the number of seeds of a folder, and how many of its trials are finished and planned."""
    finished = [(t["loss"], t["seed"]) for t in trials]
    planned = list(dict.fromkeys(asked + finished))
    losses = list(dict.fromkeys(loss for loss, _ in planned))
    return losses, 1 + max(seed for _, seed in planned), {"finished": len(finished), "planned": len(planned)}


def _command(losses: list[str], seeds: int, settings: dict[str, Any], out: Path, options: Iterable[str]) -> str:
    """The command line that makes the same comparison again."""
    words = ["lossmith", "compare", settings["data"]]
    for loss in losses:
        words += ["--loss", loss]
    words += ["--seeds", str(seeds)]
    for name in options:
        if settings[name] is not None and (name, settings[name]) != ("crop", 0):  # whole images are not cropped
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return shlex.join([*words, "--out", str(out)])


def _ranking_row(row: RankedLoss, ranking: LossRanking) -> dict[str, Any]:
    first = ranking.metrics.ranked_by
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


def _metric_row(row: RankedLoss) -> dict[str, Any]:
    cells = {}
    for metric, mean in row.mean.items():
        difference = row.difference[metric]
        mark = {"better": "▲", "worse": "▼"}.get(difference.verdict, "") if difference else ""
        cells[metric] = {"mean": mean, "deviation": row.deviation[metric], "mark": mark}
    return {"loss": row.loss, "cells": cells}


def _machines(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The different machines behind the trials; more than one means that times cannot be compared."""
    found: list[dict[str, Any]] = []
    for trial in trials:
        if trial["machine"] not in found:
            found.append(trial["machine"])
    return found
