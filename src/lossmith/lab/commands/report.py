"""`lossmith report`: write the report of finished trials again, or of several runs as one."""

from __future__ import annotations

import json as json_text
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lossmith.lab import UserError
from lossmith.lab.commands.compare import Figures
from lossmith.lab.commands.terminal import Json, app, counted, notes
from lossmith.lab.settings import FROM_PYTHON, Asked, Keep

_BY_HAND = ("data", "unlabelled")  # the same images may lie elsewhere: the fingerprint decides


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that compare wrote to, its --out.", metavar="DIR...")],
    out: Annotated[
        Path | None, typer.Option(help="Where the report of several runs goes, and their trials; of one: its folder.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The data, if they lie elsewhere than when compare was run.")] = None,
    figures: Figures = None,
    json: Json = False,
) -> None:
    """Write results.json and report.html again from the trials that are there; nothing is trained.

    Several runs of the same data and settings become one in --out: other losses, or other seeds, of one comparison that
    was run in parts or on several machines. `compare --out` goes on from there.
    """
    from lossmith.lab.data import builtin
    from lossmith.lab.kinds import kind_of
    from lossmith.lab.page.report import write_report
    from lossmith.lab.run import kept
    from lossmith.lab.run.comparison import Comparison
    from lossmith.lab.run.records import as_json, check_same, opened, read_trials

    say = notes()
    found = {run: read_trials(run) for run in runs}
    for run, trials in found.items():
        if not trials:
            raise UserError(f"{run}: holds no trials; give the --out of a compare")
    check_mergeable(found)
    if out is None and len(runs) > 1:
        raise UserError("--out: several runs become one; give a folder for it")
    target = out or runs[0]
    stored = next(iter(found.values()))[0]["settings"]
    if FROM_PYTHON in (stored["model"] or ""):
        raise UserError(f"{runs[0]}: its network is from Python; lab.compare, called as before, renders it again")
    folder = builtin.find_folder(data or stored["data"], say.print)
    known = {field.name: stored[field.name] for field in fields(Asked) if field.name in stored}
    unlabelled = known.get("unlabelled")
    known |= {"data": data or stored["data"], "unlabelled": Path(unlabelled) if unlabelled else None}
    asked = Asked(**{**known, "crop": known["crop"] or None})
    kind = kind_of(folder)
    with counted(say, quiet=json, what="reading images") as watch_reading:
        read = kind.read(folder, asked, watch_reading)
    settings = replace(kind.settings(read, asked), rates=tuple(stored["rates"]))
    with opened(target, say.print):
        for run in runs:
            if run.resolve() != target.resolve():
                _copy(run, target)
        trials = read_trials(target)
        check_same(trials, {}, settings, target)
        losses, seeds, budget, keep = _asked(runs, trials)
        if keep == "best":
            kept.drop_all_but_best(trials, kind.metrics.ranked_by, target)
        comparison = Comparison(kind, read, settings, keep=keep)
        results = write_report(comparison, trials, losses, target, seeds, budget, figures)
    typer.echo(as_json(results) if json else f"{results['headline']}\nreport: {target / 'report.html'}")


def check_mergeable(found: dict[Path, list[dict[str, Any]]]) -> None:
    """Raises `UserError` with the one setting that differs, or the loss that means something else."""
    (first, trials), *others = found.items()
    settings = {k: v for k, v in trials[0]["settings"].items() if k not in _BY_HAND}
    meanings = {t["loss"]: t["meaning"] for t in trials}
    for run, theirs in others:
        for name in [*settings, *(theirs[0]["settings"].keys() - settings.keys() - set(_BY_HAND))]:
            mine, other = settings.get(name), theirs[0]["settings"].get(name)
            if mine != other:
                what = f"{name} is {mine} in the first, {other} in the second"
                if name == "fingerprint":  # a number says nothing to people
                    one, two = trials[0]["settings"]["data"], theirs[0]["settings"]["data"]
                    what = f"their images or labels differ ({one}, {two})"
                raise UserError(f"{first} and {run} are no parts of one comparison: {what}; report each by itself")
        for trial in theirs:
            if meanings.setdefault(trial["loss"], trial["meaning"]) != trial["meaning"]:
                raise UserError(
                    f'{first} and {run} are no parts of one comparison: "{trial["loss"]}" is {meanings[trial["loss"]]} '
                    f"in the first, {trial['meaning']} in the second; report each by itself"
                )


def _copy(run: Path, target: Path) -> None:
    """Adds the finished trials of a run; those that are there already stay."""
    for part in ("weights", "predictions", "trials"):  # in this order: a trial's record says that it is whole
        for path in sorted((run / part).glob("[!.]*")):
            if not (target / part / path.name).exists():
                (target / part).mkdir(exist_ok=True)
                shutil.copy2(path, target / part)


def _asked(runs: list[Path], trials: list[dict[str, Any]]) -> tuple[list[str], int | None, str | None, Keep | None]:
    """The losses, seeds, budget and weights to keep that were asked for; a race if any run was one."""
    from lossmith.lab.run.race import RATES_SEED

    asked = []
    for run in runs:
        path = run / "results.json"
        stored = json_text.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        raced = [t["seed"] for t in trials if t["seed"] != RATES_SEED]
        asked.append(stored.get("asked") or {"losses": [], "seeds": max(raced, default=0) + 1, "budget": None})
    losses = list(dict.fromkeys(loss for each in asked for loss in each["losses"]))
    seeds = [each["seeds"] for each in asked]
    budgets = [each["budget"] for each in asked if each["budget"]]
    keeps = [each["keep"] for each in asked if each.get("keep")]
    keep: Keep | None = "all" if "all" in keeps else "best" if keeps else None
    return losses, None if None in seeds else max(seeds), budgets[0] if budgets else None, keep
