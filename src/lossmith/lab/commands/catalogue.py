"""`lossmith list` and `lossmith show`: the losses there are."""

from __future__ import annotations

import inspect
import math
from json import dumps
from typing import Annotated, Any

import typer
from rich.table import Table

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.commands.terminal import Json, PlainConsole, app
from lossmith.names import SHARED
from lossmith.papers import PAPERS, UNSTATED


@app.command("list")
def list_losses(json: Json = False) -> None:
    """List every loss: name, family, range, settings."""
    rows = ls.catalogue()
    if json:
        typer.echo(dumps([_row_as_json(row) for row in rows], indent=1, ensure_ascii=False, default=repr))
        return
    table = Table("name", "family", "range", "settings and defaults", "what it is", header_style="bold", box=None)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(row.name, row.family, _range(row), _fields(row), row.summary)
    PlainConsole().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name out of `lossmith list`.")],
    json: Json = False,
) -> None:
    """Show one loss: formula, range, settings, paper."""
    row = find_loss(name)
    text = inspect.getdoc(row.cls) or row.summary
    if json:
        typer.echo(dumps({**_row_as_json(row), "documentation": text}, indent=1, ensure_ascii=False, default=repr))
        return
    console = PlainConsole()
    console.print(f"{row.name} ({row.cls.__name__}, {row.family} family)", style="bold")
    console.print(f"\n{text}\n", soft_wrap=True)
    console.print(f"range     {_range(row)}")
    console.print(f"paper     {row.paper or '–'}")
    paper = PAPERS.get(row.name)
    settings = {} if paper is None else paper.settings
    said = UNSTATED.get(row.name, "–") if paper is None else f"{paper.source}{paper.remark and f'; {paper.remark}'}"
    console.print(f"@paper    {said}", soft_wrap=True)
    table = Table("setting", "default", "@paper", header_style="bold", box=None)
    for field, default in row.fields.items():
        table.add_row(field, repr(default), repr(settings[field]) if field in settings else "")
    console.print(table)


def find_loss(name: str) -> Any:
    """The catalogue's row of a name or an alias."""
    rows = {row.name: row for row in ls.catalogue()}
    if name in rows:
        return rows[name]
    try:
        meant = type(ls.parse(name))
    except (ValueError, TypeError) as error:
        raise UserError(str(error).splitlines()[0]) from error
    for row in rows.values():
        if row.cls is meant:
            return row
    raise UserError(f"{name}: a sum of losses; show takes one name out of lossmith list")


def _row_as_json(row: Any) -> dict[str, Any]:
    return {
        "name": row.name,
        "class": row.cls.__name__,
        "family": row.family,
        "summary": row.summary,
        "range": [end if math.isfinite(end) else None for end in row.range],
        "paper": row.paper,
        "as_in_paper": PAPERS[row.name]._asdict() if row.name in PAPERS else None,
        "fields": row.fields,
    }


def _range(row: Any) -> str:
    low, high = row.range
    return f"[{low:g}, {high:g}]" if math.isfinite(high) else f"[{low:g}, ∞)" if math.isfinite(low) else "(−∞, ∞)"


def _fields(row: Any) -> str:
    """A loss's own settings; those that many share would fill the screen."""
    return ", ".join(f"{k}={v!r}" for k, v in row.fields.items() if k not in SHARED)
