"""`lossmith audit`: what is in a data folder, what is wrong with it, and what to try."""

from __future__ import annotations

import os
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from lossmith.lab import UserError
from lossmith.lab.commands.terminal import Interrupted, Json, PlainConsole, app, counted, notes
from lossmith.lab.data.classes import often_unlabelled
from lossmith.lab.settings import Asked, Pages

_FEW_PIXELS = 50_000_000  # less is measured sooner than processes have started
_FAULTS_SHOWN = 10


@app.command()
def audit(
    data: Annotated[str, typer.Argument(help="A folder as for compare, or a built-in set.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for audit.html and fingerprint.json: NAME-audit; with --json none.")
    ] = None,
    task: Annotated[
        Literal["multiclass", "binary"], typer.Option(help="binary: all labels > 0 are one.")
    ] = "multiclass",
    ignore_index: Annotated[int, typer.Option(help="Pixels with this label count nowhere.")] = -100,
    sample: Annotated[
        int | None, typer.Option(min=2, help="Measure this many images, by a seeded choice, not all.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Measure all images, also beyond 6 billion pixels, where a sample is usual.")
    ] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="That read images: as many as cores, 1 for few.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="What belongs together: a column of split.csv, or a pattern for stems: '^[^_]+'.")
    ] = None,
    pages: Annotated[Pages | None, typer.Option(help="What the pages of a TIFF with several of them are.")] = None,
    json: Json = False,
) -> None:
    """Say what is in a data folder, everything that is wrong with it, and which losses deserve a trial.

    Classes and their shares, objects, boundaries, grey, differences between the images to train on and those held back,
    duplicates, and every fault at once, with its fix. One image is in memory at a time. Suggestions come with the
    number that they rest on, a source, and the command that tests them.
    """
    from lossmith.lab.audit import cost, page, stream
    from lossmith.lab.audit.fingerprint import fingerprint
    from lossmith.lab.audit.survey import survey
    from lossmith.lab.audit.tally import PixelTally, SceneTally
    from lossmith.lab.data import builtin
    from lossmith.lab.kinds import kind_of
    from lossmith.lab.say.suggestions import suggest

    if sample and everything:
        raise UserError("--sample and --all: give one of them")
    say = notes()
    folder = builtin.find_folder(data, say.print)
    kind = kind_of(folder)
    asked = Asked(data=data, task=task, ignore_index=ignore_index, group_by=group_by, pages=pages)
    if group_by and kind.name == "detection":
        raise UserError(f"--group-by: {data} has boxes; drop it, and say in split.csv who is held back")
    found = survey(kind, folder, asked, sample, everything)
    if processes is None:
        few = sum(found.pixels(job.stem) for job in found.jobs) < _FEW_PIXELS
        processes = 1 if few else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    tally = SceneTally() if kind.name == "detection" else PixelTally()
    try:
        with counted(say, quiet=json, what="measuring images") as watch:
            for done, one in enumerate(stream.measured(found.jobs, found.measure, processes or 1), 1):
                tally.add(one)
                watch(done, len(found.jobs))
    except KeyboardInterrupt:
        raise Interrupted("; nothing was written") from None
    facts = fingerprint(found, tally)
    facts["cost"] = cost.estimate(found, facts)
    facts["suggestions"] = suggest(facts, _options(asked, folder, facts, found.index.classes))
    if out is None and not json:
        out = Path(f"{Path(data).name or 'data'}-audit")
    if out is not None:
        _write(out, facts, page.page(facts))
    if json:
        typer.echo(dumps(facts, indent=1, ensure_ascii=False))
        return
    _print(facts)
    typer.echo(f"report: {out}/audit.html")


def _options(asked: Asked, folder: Path, facts: dict[str, Any], names: list[str]) -> tuple[str, ...]:
    """What a comparison must be told too: of 255 what its fault says, and guessed groups where nobody gave a split."""
    options = ["--task", asked.task] if asked.task != "multiclass" else []
    options += ["--ignore-index", str(asked.ignore_index)] if asked.ignore_index != -100 else []
    labels = {each["label"] for each in facts.get("classes", [])}
    odd = often_unlabelled(labels, len(names)) if facts["kind"] == "segmentation" else None
    if odd is not None and not options:
        options += ["--task", "binary"] if labels == {0, odd} else ["--ignore-index", str(odd)]
    options += ["--pages", asked.pages] if asked.pages else []
    guessed = facts["groups"]["pattern"] if not (folder / "split.csv").is_file() else ""
    group_by = asked.group_by or guessed
    return (*options, *(["--group-by", group_by] if group_by and facts["kind"] != "detection" else []))


def _write(out: Path, facts: dict[str, Any], html: str) -> None:
    from lossmith.lab.run.records import write

    try:
        out.mkdir(parents=True, exist_ok=True)
        write(out / "fingerprint.json", dumps(facts, indent=1, ensure_ascii=False) + "\n")
        write(out / "audit.html", html)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error


def _print(facts: dict[str, Any]) -> None:
    """The same three answers as the first screen of the page, and a few more lines."""
    from lossmith.lab.audit import page

    console = PlainConsole()
    console.print(page.headline(facts), style="bold", soft_wrap=True)
    console.print(f"({page.extent(facts)})\n")
    rows = page.class_lines(facts)
    if len(rows) > 1:
        table = Table(box=None, header_style="bold")
        for i, column in enumerate(rows[0]):
            table.add_column(column, justify="right" if i else "left")
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    for note in page.notes(facts):
        console.print(f"* {note}", soft_wrap=True)
    for fault in facts["faults"][:_FAULTS_SHOWN]:
        console.print(f"{'fault' if fault['fatal'] else 'note'}: {fault['text']}", soft_wrap=True)
    if len(facts["faults"]) > _FAULTS_SHOWN:
        console.print(f"… and {len(facts['faults']) - _FAULTS_SHOWN} more: see the report")
    console.print()
    for number, each in enumerate(facts["suggestions"], start=1):
        console.print(f"{number}. {each['measured']} (the rule: {each['threshold']}). {each['reason']}", soft_wrap=True)
        console.print(f"   {each['command']}", soft_wrap=True, style="bold" if number == 1 else None)
        console.print(f"   costs {each['cost']}; {each['source']}", soft_wrap=True, style="dim")
    if page.need(facts):
        console.print(page.need(facts), soft_wrap=True)
