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
from lossmith.lab.run.race import RATES_SEED
from lossmith.lab.run.records import as_json, read_predictions, write
from lossmith.lab.say.ranking import LossRanking, RankedLoss, rank


def write_report(
    comparison: Comparison,
    trials: list[dict[str, Any]],
    asked: list[str],
    out: Path,
    seeds: int | None = None,
    budget: str | None = None,
) -> dict[str, Any]:
    """Write `out`/results.json and `out`/report.html from all trials of that folder; returns what is in the former.

    `asked` are the losses of this run; they and those that have trials are reported on. `seeds` and `budget` are as in
    the command line.
    """
    kind, data, settings = comparison.kind, comparison.data, comparison.settings.as_json()
    losses = list(dict.fromkeys([*asked, *(t["loss"] for t in trials)]))
    race = comparison.race(losses, seeds)
    rates, decision = race.rates(trials), race.decision(trials)
    raced = [t for t in trials if t["seed"] != RATES_SEED and rates[t["loss"]] == t["lr"]]
    ranking = rank(raced, losses, decision, kind.metrics, lambda more: _minutes(more, trials))
    missing = race.next(trials)[0]
    predictions = {t["hash"]: stored for t in trials if (stored := read_predictions(out, t))}
    headline, more = kind.verdict(ranking, trials, predictions, data)
    results = {
        "headline": headline,
        "decision": decision.as_json(),
        "trivial": comparison.trivial(),
        "finished": len(trials),
        "planned": len(trials) + len(missing),
        "command": _command(losses, seeds, budget, settings, out, kind.options, comparison.keep),
        "settings": settings,
        **kind.facts(data),
        "source": data.source,
        "ranked_by": ranking.metrics.ranked_by,
        "score": ranking.metrics.title,
        "seeds": ranking.seeds,
        "rates": {loss: {"used": rates[loss], "tried": race.tried(trials, loss)} for loss in losses},
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
        **kind.page(ranking, results, predictions, comparison.data),
    )


def _minutes(more: int, trials: list[dict[str, Any]]) -> str:
    """How long so many more seeds of two losses take, as a remark in brackets."""
    if not trials:
        return ""
    seconds = sorted(t["seconds"] for t in trials)[len(trials) // 2]
    minutes = 2 * more * seconds / trials[-1]["machine"]["trials_at_once"] / 60
    return f" ({minutes:.0f} min)" if minutes >= 1 else f" ({60 * minutes:.0f} s)"


def _command(
    losses: list[str],
    seeds: int | None,
    budget: str | None,
    settings: dict[str, Any],
    out: Path,
    options: Iterable[str],
    keep: str | None,
) -> str:
    """The command line that makes the same comparison again."""
    words = ["lossmith", "compare", settings["data"]]
    for loss in losses:
        words += ["--loss", loss]
    words += ["--seeds", str(seeds)] if seeds else []
    words += ["--budget", budget] if budget else []
    words += ["--keep", keep] if keep else []
    for name in options:
        if name == "lr" and len(settings["rates"]) > 1:
            words += ["--lr", "auto"]
        elif settings[name] is not None and (name, settings[name]) != ("crop", 0):  # whole images are not cropped
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return shlex.join([*words, "--out", str(out)])


def _ranking_row(row: RankedLoss, ranking: LossRanking) -> dict[str, Any]:
    first = ranking.metrics.ranked_by
    if row.status:
        verdict = row.status
    elif row is ranking.reference:
        verdict = "use this" if ranking.decision.regret is not None else "highest mean"
    else:
        verdict = "no number" if row.difference is None else row.difference.verdict
    return {
        "row": row,
        "difference": row.difference,
        "verdict": verdict,
        "score": row.score,
        "deviation": row.deviation[first],
    }


def _metric_row(row: RankedLoss) -> dict[str, Any]:
    cells = {metric: {"mean": mean, "deviation": row.deviation[metric]} for metric, mean in row.mean.items()}
    return {"loss": row.loss, "cells": cells}


def _machines(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The different machines behind the trials; more than one means that times cannot be compared."""
    found: list[dict[str, Any]] = []
    for trial in trials:
        if trial["machine"] not in found:
            found.append(trial["machine"])
    return found
