"""What all commands share: the application, --json, the bar of progress."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

app = typer.Typer(
    help="Losses for segmentation, detection and imbalanced data, and an honest way to choose one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
_BETWEEN_LINES = 10.0  # seconds


class Interrupted(Exception):
    """Ctrl-C, and what it leaves, in words: `lossmith.cli` prints them after "stopped"."""


def printable(text: str, keep: str = "") -> str:
    """A text with its control characters as escapes: a terminal would obey those in a name of a class or a file."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") and c not in keep else c for c in text)


class PlainConsole(Console):
    """Prints what it is given as it is, in tables too: no markup, no emoji codes, no control characters."""

    def __init__(self, **given: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **given)

    def render_str(self, text: str, **given: Any) -> Text:
        return super().render_str(printable(text, keep="\n"), **given)


def notes() -> Console:
    """Where everything goes that is not the answer."""
    return PlainConsole(stderr=True, soft_wrap=True)


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
