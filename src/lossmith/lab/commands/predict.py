"""`lossmith predict`: what the network of a comparison says of other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lossmith.lab import UserError
from lossmith.lab.commands.terminal import app, counted, notes


@app.command()
def predict(
    out: Annotated[Path, typer.Argument(help="The folder of a comparison that kept weights: compare --keep best.")],
    images: Annotated[Path, typer.Argument(help="A folder of images like those it was trained on.")],
    to: Annotated[Path, typer.Option(help="The folder to write into: masks, or labels.csv for whole images.")],
    loss: Annotated[str | None, typer.Option(help="The loss whose network answers; the one to use.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Write what the network of the loss to use says of images: masks of class numbers, PNG or NIfTI; or labels.csv."""
    from lossmith.lab.run.answers import answer, winner
    from lossmith.lab.run.trial import resolve_device

    try:
        device = resolve_device(device)
    except Exception as error:  # each accelerator of lightning-fabric has its own exceptions
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
    chosen = winner(out, loss, device)
    say = notes()
    with counted(say, quiet=False, what="predicting") as watch:
        count = answer(chosen, images, to, watch)
    say.print(f"{count} {'image' if count == 1 else 'images'} by “{chosen.loss}”, {chosen.path}")
    typer.echo(str(to))
