"""`lossmith compare`: train with each loss on the same footing, and say what can be said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from lossmith.lab import UserError
from lossmith.lab.commands.terminal import INTERRUPTED, Json, app, notes, progress
from lossmith.lab.settings import Asked


@app.command()
def compare(
    data: Annotated[str, typer.Argument(help="A folder, or a built-in set: bacteria, bacteria3, brain, solar, trees.")],
    loss: Annotated[list[str], typer.Option(help='A loss, as text: "dice + 0.5*focal(gamma=2)". Give several.')],
    out: Annotated[Path, typer.Option(help="Folder for trials, results.json, report.html; resumes what is there.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trials of each loss. Intervals need 3.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of a trial: 200, with boxes 600.")] = None,
    task: Annotated[
        Literal["multiclass", "binary"], typer.Option(help="binary: all labels > 0 are one.")
    ] = "multiclass",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    ignore_index: Annotated[int, typer.Option(help="Pixels with this label count nowhere.")] = -100,
    crop: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the crops, a multiple of 16; 128, volumes 32, with boxes 256."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Crops in a step: 8, volumes and boxes 4; 32 images if those are labelled."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate of AdamW; falls to 0 along a cosine.")] = 3e-3,
    unlabelled: Annotated[
        Path | None, typer.Option(help="A folder of images without masks, for losses that read no labels.")
    ] = None,
    unlabelled_batch: Annotated[
        int | None, typer.Option(min=1, help="Crops of those that join each step; as many as --batch.")
    ] = None,
    quality: Annotated[
        Literal["none", "centerness", "iou"] | None,
        typer.Option(help="With boxes: what multiplies the class's score; centerness. Never for qfl, vfl."),
    ] = None,
    json: Json = False,
) -> None:
    """Train with each loss on the same footing, and report what can be said.

    Your own data is a folder: images/ and masks/ with the same file stems (PNG, TIFF, NPY, or NIfTI for volumes;
    integer labels, 0 is background); or images/ and labels.csv (columns stem,label) to classify whole images. split.csv
    (columns stem,split; train, validation or unused) chooses the held-back images, else a seeded quarter is taken.
    classes.txt names the classes, one a line. Or images/ and boxes.csv (columns stem,x1,y1,x2,y2) to detect things of
    one class; a loss then has terms for scores and boxes: "qfl + 2*giou + 0.25*dfl", "focal + giou".

    class_weight="inverse" in a loss, or "median", "effective", "enet", is counted from the images to train on; so are
    the pairs of classes that nonadjacency forbids, if it does not name them.

    Images of --unlabelled are cropped like the others and join each step with every pixel ignored. nonadjacency sees
    them, all other losses skip them; entropy too. The labelled crops stay the same.

    An epoch of ramp(start=…, step=…, stop=…) is a hundredth of the run.
    """
    from lossmith.lab.data import builtin
    from lossmith.lab.kinds import kind_of
    from lossmith.lab.page.report import write_report
    from lossmith.lab.run.comparison import Comparison
    from lossmith.lab.run.records import as_json, read_trials
    from lossmith.lab.run.trial import resolve_device

    losses = [" ".join(text.split()) for text in loss]
    twice = next((text for text in losses if losses.count(text) > 1), None)
    if twice is not None:
        raise UserError(f'--loss "{twice}" is given twice; give it once, --seeds repeats it')
    if crop and crop % 16:
        raise UserError(f"--crop {crop}: must be a multiple of 16, for example {round(crop / 16) * 16}")
    if not (lr > 0 and math.isfinite(lr)):
        raise UserError(f"--lr {lr}: must be a positive number")
    try:
        device = resolve_device(device)
    except Exception as error:  # each accelerator of lightning-fabric has its own exceptions
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
    say = notes()
    folder = builtin.find_folder(data, say.print)
    asked = Asked(
        data=data,
        task=task,
        steps=steps,
        crop=crop,
        batch=batch,
        lr=lr,
        ignore_index=ignore_index,
        device=device,
        unlabelled=unlabelled,
        unlabelled_batch=unlabelled_batch,
        quality=quality,
    )
    kind = kind_of(folder)
    read = kind.read(folder, asked)
    settings = kind.settings(read, asked)
    comparison = Comparison(kind, read, settings)
    if read.source and not json:
        say.print(f"{data}: {read.source}", style="dim")

    pairs = [(text, seed) for text in losses for seed in range(seeds)]
    with progress(say, quiet=json) as shown:
        todo = set(pairs) - {(t["loss"], t["seed"]) for t in read_trials(out)}
        watch = _Bars(shown, len(todo), settings.steps)
        trials, stopped = comparison.run(losses, seeds, out, watch, say.print)
    results = write_report(comparison, trials, pairs, out)
    if json:
        typer.echo(as_json(results))
    else:
        _print_ranking(results)
        typer.echo(f"report: {out / 'report.html'}")
    if stopped:
        done, planned = results["finished"], results["planned"]
        say.print(f"lossmith: stopped after {done} of {planned} trials; the same command resumes")
        raise typer.Exit(INTERRUPTED)


class _Bars:
    """A bar for all trials and one for each that runs."""

    def __init__(self, shown: Progress, trials: int, steps: int) -> None:
        self.shown, self.trials, self.steps = shown, trials, steps
        self.whole = shown.add_task(f"trial 0 of {trials}", total=trials * steps)
        self.bars: dict[tuple[str, int], TaskID] = {}

    def __call__(self, text: str, seed: int, step: int | None) -> None:
        shown = self.shown
        if (text, seed) not in self.bars:
            self.bars[text, seed] = shown.add_task(f"{text}, seed {seed}", total=self.steps)
            shown.update(self.whole, description=f"trial {len(self.bars)} of {self.trials}")
        bar = self.bars[text, seed]
        here = shown.tasks[shown.task_ids.index(bar)].completed
        shown.advance(self.whole, (self.steps if step is None else step) - here)  # one that diverged has no more to do
        shown.update(bar, completed=step, visible=step is not None)


def _print_ranking(results: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False)
    console.print(results["headline"])
    table = Table(box=None, header_style="bold")
    table.add_column("loss", no_wrap=True)  # cut short, losses that differ in a setting would look the same
    for column in (results["score"], "difference", "95 % interval", ""):
        table.add_column(column, justify="right" if column else "left")
    first = results["ranked_by"]
    for row in results["ranking"]:
        score, difference = row["mean"][first], row["difference"][first]
        if difference and difference["low"] is None:  # with boxes there is an interval over tiles, as the headline says
            difference = results.get("tiles", {}).get(row["loss"], difference)
        table.add_row(
            row["loss"],
            "–" if score is None else f"{score:.3f}",
            f"{difference['mean']:+.3f}" if difference else "–",
            f"{difference['low']:+.3f} to {difference['high']:+.3f}"
            if difference and difference["low"] is not None
            else "–",
            row["status"] or (difference["verdict"] if difference else ""),
        )
    console.print(table)
