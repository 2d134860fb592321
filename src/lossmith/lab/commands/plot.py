"""`lossmith plot`: losses as curves."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from lossmith.lab import UserError
from lossmith.lab.commands.terminal import Json, app


@app.command()
def plot(
    loss: Annotated[list[str], typer.Argument(help='Losses, as names or text: focal "dice + ce" giou.')],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("losses.html"),
    json: Json = False,
) -> None:
    """Draw the value and the gradient of losses into one HTML file, with a figure for each kind of input.

    Pixels and regions from all wrong to all right, a box that slides over its target, a residual, the score of a
    detection, the distribution of an edge. A sum over several inputs is drawn once for each.
    """
    from lossmith.lab.page.curve_charts import sections
    from lossmith.lab.page.templates import render
    from lossmith.lab.say import curves

    drawn = {}
    for text in loss:
        try:
            drawn.update(curves.draw(text))
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{text}: {str(error).splitlines()[0]}") from error
    if json:
        typer.echo(dumps({name: each.as_json() for name, each in drawn.items()}, indent=1, ensure_ascii=False))
        return
    page = render('{% extends "plot.html" %}', losses=list(loss), sections=sections(drawn))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    typer.echo(str(out))
