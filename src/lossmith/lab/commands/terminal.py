"""What all commands share: the application, --json, the bar of progress."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(
    help="Losses for segmentation, detection and imbalanced data, and an honest way to choose one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
lab = typer.Typer(help="Experiments about the losses themselves.", no_args_is_help=True)
app.add_typer(lab, name="lab")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
INTERRUPTED = 130


def notes() -> Console:
    """Where everything goes that is not the answer."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def progress(console: Console, quiet: bool, unit: str = "step") -> Progress:
    """A bar, where somebody looks."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(unit + " {task.completed:,} of {task.total:,}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)
