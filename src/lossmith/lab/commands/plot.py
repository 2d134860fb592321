"""`lossmith plot`: losses as curves."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from lossmith.lab import UserError
from lossmith.lab.commands.experiments import check_writable
from lossmith.lab.commands.terminal import Json, app


@app.command()
def plot(
    loss: Annotated[list[str], typer.Argument(help='Losses, as names or text: focal "dice + ce" giou.')],
    against: Annotated[
        str | None,
        typer.Option(
            help="p, overlap, size for pixels and regions; shift, scale, aspect for boxes; residual, edge, picture; "
            "without it each loss on what it reads.",
            metavar="AXIS",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, .png, .svg or .html: losses.html; with --json none unless given.", metavar="FILE"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Draw the value and the gradient of losses into one file, with a figure for each kind of input.

    Pixels and regions from all wrong to all right, a box that slides over its target, a residual, the score of a
    detection, the distribution of an edge. A sum over several inputs is drawn once for each.

    --against draws all losses on one axis instead. p: value and slope against the probability of the true class.
    overlap: an object that is predicted beside its place, with its false positives and its false negatives apart. size:
    an object that grows, and which part of the gradient is its own. shift, scale, aspect: a box that moves, grows or is
    stretched.

    lossmith plot ce dice "tversky(fn_weight=0.7, fp_weight=0.3)" --against overlap --out figure.svg
    """
    from lossmith.lab.plot import Plot, check_suffix

    path = out or (None if json else Path("losses.html"))
    try:
        if path is not None:
            check_suffix(path)
            check_writable(path)
        drawn = Plot(loss, against)
        if path is not None:
            drawn.save(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror})") from error
    typer.echo(dumps(drawn.as_json(), indent=1, ensure_ascii=False) if json else str(path))
