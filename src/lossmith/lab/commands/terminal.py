"""What all commands share: the application, --json, the bar of progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_BETWEEN_LINES = 10.0  # seconds


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


@contextmanager
def counted(console: Console, quiet: bool, what: str) -> Iterator[Callable[[int, int], None]]:
    """Takes how many are done, and of how many: a bar where somebody looks, elsewhere a line every ten seconds."""
    last = time.monotonic()
    with progress(console, quiet, unit="image") as shown:
        bar = shown.add_task(what, total=0)

        def watch(done: int, total: int) -> None:
            nonlocal last
            shown.update(bar, completed=done, total=total)
            if not console.is_terminal and not quiet and time.monotonic() - last >= _BETWEEN_LINES:
                last = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}")

        yield watch
