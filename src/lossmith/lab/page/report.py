"""What a comparison leaves: results.json, and report.html, one file that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lossmith.lab.kind import Predictions
from lossmith.lab.page import charts, curve_charts
from lossmith.lab.page.figures import markup
from lossmith.lab.page.more import longer, minutes, to_know_more
from lossmith.lab.page.panels import Chart, Still, colours
from lossmith.lab.page.templates import render
from lossmith.lab.run.comparison import Comparison
from lossmith.lab.run.race import RATES_SEED, in_words
from lossmith.lab.run.records import as_json, read_predictions, write
from lossmith.lab.say.ranking import LossRanking, RankedLoss, rank
from lossmith.lab.say.rising import last_rise


def write_report(
    comparison: Comparison,
    trials: list[dict[str, Any]],
    asked: list[str],
    out: Path,
    seeds: int | None = None,
    budget: str | None = None,
    stills: Still | None = None,
) -> dict[str, Any]:
    """Write `out`/results.json and `out`/report.html from all trials of that folder; returns what is in the former.

    `asked` are the losses of this run; they and those that have trials are reported on. `seeds` and `budget` are as in
    the command line. `stills`, "png" or "svg", also writes each figure to `out`/figures/.
    """
    kind, data, settings = comparison.kind, comparison.data, comparison.settings.as_json()
    losses = list(dict.fromkeys([*asked, *(t["loss"] for t in trials)]))
    race = comparison.race(losses, seeds)
    rates, decision = race.rates(trials), race.decision(trials)
    raced = [t for t in trials if t["seed"] != RATES_SEED and rates[t["loss"]] == t["lr"]]
    ranking = rank(raced, losses, decision, kind.metrics, lambda more: f" ({in_words(minutes(2 * more, trials))})")
    missing = race.next(trials)[0]
    predictions = {t["hash"]: stored for t in trials if (stored := read_predictions(out, t))}
    headline, verdict = kind.verdict(ranking, raced, predictions, data)

    def command(seeds: int | None = seeds, budget: str | None = budget, steps: int = 1) -> str:
        """The command line of this comparison, or of one with other seeds, or so many times the steps."""
        if kind.call:
            return kind.call
        longer = {**settings, "steps": steps * settings["steps"]}
        folder = out if steps == 1 else out.with_name(f"{out.name}-longer")
        return _command(losses, seeds, budget, longer, folder, kind.options, comparison.keep)

    results = {
        "headline": headline,
        "decision": decision.as_json(),
        "more": to_know_more(race, decision, trials, len(missing), command),
        "trivial": comparison.trivial(),
        "finished": len(trials),
        "planned": len(trials) + len(missing),
        "command": command(),
        "asked": {"losses": losses, "seeds": seeds, "budget": budget, "keep": comparison.keep},
        "settings": settings,
        **kind.facts(data),
        "source": data.source,
        "ranked_by": ranking.metrics.ranked_by,
        "score": ranking.metrics.title,
        "seeds": ranking.seeds,
        "rates": {loss: {"used": rates[loss], "tried": race.tried(trials, loss)} for loss in losses},
        "rising": {loss: last_rise([t for t in raced if t["loss"] == loss]) for loss in losses},
        "ranking": [asdict(row) for row in ranking.rows],
        **verdict,
        "trials": trials,
    }
    drawn = _charts(comparison, ranking, results, raced)
    page = _page(comparison, ranking, results, raced, predictions, drawn, longer(raced, command))
    write(out / "results.json", as_json(results))
    write(out / "report.html", page)
    if stills:
        from lossmith.lab.page.stills import write_stills  # matplotlib takes a second

        write_stills(drawn, stills, out / "figures")
    return results


def _charts(
    comparison: Comparison, ranking: LossRanking, results: dict[str, Any], raced: list[dict[str, Any]]
) -> dict[str, Chart | None]:
    losses = [row.loss for row in ranking.rows]
    colour = colours(losses)
    curves = {x: comparison.kind.curve(comparison.loss(x).loss, comparison.data, comparison.settings) for x in losses}
    title = ranking.metrics.title
    return {
        "standings": charts.standings(ranking, results["trivial"], colour),
        "seeds": charts.seeds(ranking, raced, colour),
        "rates": charts.rates(results["rates"], title, colour),
        "validation": charts.validation(raced, title, colour),
        "training": charts.training(raced, colour),
        "gradient_by_class": charts.owners(raced, results["classes"], colour),
        "gradient_by_ease": charts.ease(raced, colour),
        "parts": charts.parts(raced, colour),
        "curves": curve_charts.curves({x: curve for x, curve in curves.items() if curve}, colour),
        "cost": charts.cost(raced, colour),
    }


def _page(
    comparison: Comparison,
    ranking: LossRanking,
    results: dict[str, Any],
    raced: list[dict[str, Any]],
    predictions: Predictions,
    drawn: dict[str, Chart | None],
    more_steps: dict[str, Any],
) -> str:
    kind, trials = comparison.kind, results["trials"]
    losses = [row.loss for row in ranking.rows]
    sentences = ranking.sentences if results["headline"] == ranking.headline else [results["headline"]]
    return render(
        kind.template,
        results=results,
        settings=results["settings"],
        ranking=ranking,
        first=sentences[0],
        rest=[said for said in sentences[1:] if not said.endswith("learnt nothing.")],  # which has its own place
        metrics=ranking.metrics,
        colour=colours(losses),
        rows=[_ranking_row(row, ranking) for row in ranking.rows],
        table=[_metric_row(row) for row in ranking.rows if row.seeds],
        meanings={loss: t["meaning"] for loss in losses for t in trials if t["loss"] == loss},
        counted={t["loss"]: t.get("counted", "") for t in trials},
        trials=sorted(trials, key=lambda t: (losses.index(t["loss"]), t["seed"], t["lr"])),
        rates_seed=RATES_SEED,
        machines=_machines(trials),
        figures={name: markup(chart) for name, chart in drawn.items()},
        at_end=_at_end(results["rates"]),
        rates_of_all=min(len(each["tried"]) for each in results["rates"].values()),
        longer=more_steps,
        in_words=in_words,
        watched=next((t["validation"]["images"] for t in trials), []),
        **kind.page(ranking, {**results, "trials": raced}, predictions, comparison.data),
    )


def _at_end(rates: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The losses that were best at the highest, or at the lowest, of the learning rates that were tried."""
    found: dict[str, list[str]] = {"highest": [], "lowest": []}
    for loss, each in rates.items():
        tried = [point["lr"] for point in each["tried"]]
        if len(set(tried)) > 1 and each["used"] in (max(tried), min(tried)):
            found["highest" if each["used"] == max(tried) else "lowest"].append(loss)
    return found


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
