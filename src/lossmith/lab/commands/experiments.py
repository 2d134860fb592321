"""`lossmith lab`: what the documents claim about losses, a command for each claim that computes, draws and judges."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from lossmith.lab import UserError
from lossmith.lab.commands.terminal import Interrupted, Json, PlainConsole, app, notes, progress
from lossmith.lab.page.panels import Still

Fast = Annotated[bool, typer.Option("--fast", help="The short form: at most 20 s on two cores, for a first look.")]

Page = Annotated[
    Path | None, typer.Option(help="The HTML file to write: NAME.html; with --json none unless given.", metavar="FILE")
]

Figures = Annotated[Still | None, typer.Option(help="Also write every figure of a page, to NAME-figures beside it.")]


class _ByName(TyperGroup):
    """The commands that stand below, and one for each experiment, which is imported when it is asked for."""

    def list_commands(self, context: Any) -> list[str]:
        from lossmith.lab.experiments import names

        return list(dict.fromkeys([*super().list_commands(context), *names()]))

    def get_command(self, context: Any, name: str) -> Any:
        from lossmith.lab.experiments import names

        found = super().get_command(context, name)
        return _command_of(name) if found is None and name in names() else found


lab = typer.Typer(
    cls=_ByName, help="What five articles claim about losses, each claim as an experiment.", no_args_is_help=True
)
app.add_typer(lab, name="lab")


@lab.command("list")
def list_experiments(json: Json = False) -> None:
    """List the experiments: name, claims, document, seconds."""
    from lossmith.lab.experiment import DOCUMENTS
    from lossmith.lab.experiments import experiments

    found = experiments()
    if json:
        rows = [
            {
                "name": it.name,
                "claims": list(it.claims),
                "claim": it.claim,
                "document": DOCUMENTS[it.document],
                "seconds": it.seconds[1],
                "fast_seconds": it.seconds[0],
            }
            for it in found
        ]
        typer.echo(dumps(rows, indent=1, ensure_ascii=False))
        return
    table = Table("name", "claims", "claim", "document", "seconds, --fast", header_style="bold", box=None)
    table.columns[0].no_wrap = True
    for it in found:
        fast, full = it.seconds
        table.add_row(it.name, ", ".join(map(str, it.claims)), it.claim, DOCUMENTS[it.document], f"{full}, {fast}")
    PlainConsole().print(table)


@lab.command("all")
def run_all(
    out: Annotated[Path, typer.Option(help="The folder to write: index.html, results.json, a page for each.")] = Path(
        "experiments"
    ),
    fast: Fast = False,
    figures: Figures = None,
    json: Json = False,
) -> None:
    """Run every experiment; OUT/index.html has claim, verdict and sentence in one table, with a page behind each.

    An experiment that cannot run, for want of its data, is named, and the others go on. Ctrl-C keeps the pages that are
    written; training that was stopped goes on where it was.
    """
    from lossmith.lab.experiments import experiments
    from lossmith.lab.page.experiment import Outcome, write_index

    say = notes()
    _make(out)
    begun, outcomes, waiting = time.monotonic(), list[Outcome](), experiments()
    count = len(waiting)
    while waiting:
        it = waiting[0]
        before = time.monotonic()
        try:
            outcome = _run(it, fast, out / f"{it.name}.html", out / "trials" / it.name, json, figures)
        except UserError as error:
            outcome = Outcome(it, None, None, str(error))
        except (KeyboardInterrupt, Interrupted) as stopped:
            shown = f"; {out / 'index.html'} shows them" if outcomes else ""
            raise Interrupted(f" after {len(outcomes)} of {count} experiments{shown}") from stopped
        outcomes.append(outcome)
        del waiting[0]
        write_index(outcomes, waiting, fast, time.monotonic() - begun, out)
        say.print(f"{it.name}: {outcome.verdict} ({time.monotonic() - before:.0f} s)")
    if json:
        typer.echo((out / "results.json").read_text(encoding="utf-8"))
    else:
        typer.echo(str(out / "index.html"))
    failed = [outcome for outcome in outcomes if outcome.finding is None]
    if failed:
        raise UserError(f"{failed[0].experiment.name}: {failed[0].sentence} ({len(failed)} of {count} could not run)")


def _command_of(name: str) -> Any:
    """The command line of one experiment."""
    from lossmith.lab.experiments import experiment

    it = experiment(name)
    made = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @made.command(name, help=f"{it.claim} (claim {', '.join(map(str, it.claims))}; about {it.seconds[1]} s)")
    def run(
        out: Page = None,
        fast: Fast = False,
        figures: Figures = None,
        json: Json = False,
    ) -> None:
        page = out or (None if json and not figures else Path(f"{name}.html"))
        if page is not None:
            check_writable(page)
        with _folder(page, name) as folder:
            outcome = _run(it, fast, page, folder, json, figures)
        if json:
            typer.echo(dumps(outcome.as_json(), indent=1, ensure_ascii=False, allow_nan=False))
            return
        typer.echo(f"{outcome.verdict}: {outcome.sentence}\n{page}")

    return typer.main.get_command(made)


def _run(it: Any, fast: bool, page: Path | None, folder: Path, quiet: bool, figures: Still | None) -> Any:
    """Compute and judge an experiment, and write its page if one is wanted, and its figures."""
    from lossmith.lab.experiment import Work
    from lossmith.lab.page.experiment import Outcome, write_page

    say: Console = notes()
    with progress(say, quiet=quiet, unit="") as shown:
        bar = shown.add_task(it.name, total=None)
        work = Work(
            fast,
            folder,
            lambda done, total: shown.update(bar, completed=done, total=total),
            lambda line: say.print(line),
        )
        outcome = Outcome.of(it, it.compute(work))
    if page is not None:
        words = ["lossmith", "lab", it.name, *(["--fast"] if fast else []), "--out", page.name]
        write_page(outcome, fast, page, shlex.join(words))
        if figures:
            from lossmith.lab.page.stills import write_stills  # matplotlib takes a second

            drawn = {figure.name: figure.chart for figure in it.draw(outcome.data)}
            write_stills(drawn, figures, page.with_name(f"{page.stem}-figures"))
    return outcome


@contextmanager
def _folder(page: Path | None, name: str) -> Iterator[Path]:
    """Where an experiment keeps trials: beside its page, or nowhere for long."""
    if page is not None:
        yield page.with_name(f"{page.stem}-trials")
        return
    with tempfile.TemporaryDirectory(prefix=f"lossmith-{name}-") as folder:
        yield Path(folder)


def check_writable(page: Path) -> None:
    """Raises `UserError` now instead of after minutes of work."""
    try:
        with tempfile.TemporaryFile(dir=page.parent):
            pass
    except OSError as error:
        raise UserError(f"--out {page}: cannot be written ({error.strerror}); choose another file") from error
    if page.is_dir():
        raise UserError(f"--out {page}: is a folder; give a file, for example {page / 'page.html'}")


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error
