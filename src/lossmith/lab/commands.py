"""The command line: `lossmith compare`, `list`, `show`, `plot`, `lab box-regression`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

import lossmith as ls
from lossmith.lab import UserError
from lossmith.names import SHARED

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
    from lossmith.lab import builtin, report
    from lossmith.lab import compare as comparison
    from lossmith.lab.data import add_unlabelled, read_folder
    from lossmith.lab.plan import Settings, sizes
    from lossmith.lab.scenes import read_scenes
    from lossmith.lab.train import resolve_device

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
    notes = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    folder = builtin.find_folder(data, notes.print)
    images: Any
    write: Callable[..., dict[str, Any]]
    if (folder / "boxes.csv").is_file():
        from lossmith.lab import detection, detection_report

        if task != "multiclass" or ignore_index != -100 or unlabelled or unlabelled_batch:
            raise UserError(
                f"--task, --ignore-index, --unlabelled[-batch]: {data} has boxes, not labelled pixels; drop them"
            )
        images = read_scenes(folder, data)
        job, write = detection.JOB, detection_report.write_report
        settings: Settings = detection.settings(images, steps, crop, batch, lr, device, quality)
    else:
        if quality:
            raise UserError(f"--quality {quality}: {data} has no boxes.csv; drop --quality")
        images = read_folder(folder, data, task, ignore_index)
        if unlabelled:
            images = add_unlabelled(images, unlabelled)
        elif unlabelled_batch:
            raise UserError(f"--unlabelled-batch {unlabelled_batch}: give the folder too: --unlabelled FOLDER")
        job, write = None, report.write_report
        usual_crop, usual_batch, features = sizes(images)
        if crop and not usual_crop:
            raise UserError(f"--crop {crop}: {data} has a label for each whole image; drop --crop")
        settings = Settings(
            data=data,
            fingerprint=images.fingerprint,
            task=task,
            steps=steps or 200,
            crop=crop or usual_crop,
            batch=batch or usual_batch,
            lr=lr,
            ignore_index=ignore_index,
            device=device,
            features=features,
            unlabelled=str(unlabelled) if unlabelled else None,
            unlabelled_batch=(unlabelled_batch or batch or usual_batch) if unlabelled else None,
        )
    if images.source and not json:
        notes.print(f"{data}: {images.source}", style="dim")

    asked = [(text, seed) for text in losses for seed in range(seeds)]
    with _progress(notes, quiet=json) as progress:
        todo = set(asked) - {(t["loss"], t["seed"]) for t in comparison.read_trials(out)}
        whole = progress.add_task(f"trial 0 of {len(todo)}", total=len(todo) * settings.steps)
        bars: dict[tuple[str, int], TaskID] = {}

        def watch(text: str, seed: int, step: int | None) -> None:
            if (text, seed) not in bars:
                bars[text, seed] = progress.add_task(f"{text}, seed {seed}", total=settings.steps)
                progress.update(whole, description=f"trial {len(bars)} of {len(todo)}")
            here = progress.tasks[progress.task_ids.index(bars[text, seed])].completed
            progress.advance(
                whole, (settings.steps if step is None else step) - here
            )  # one that diverged has no more to do
            progress.update(bars[text, seed], completed=step, visible=step is not None)

        trials, stopped = comparison.run(images, losses, seeds, settings, out, watch, notes.print, job)
    results = write(trials, asked, images, settings, out)
    if json:
        typer.echo(comparison.as_json(results))
    else:
        _print_ranking(results)
        typer.echo(f"report: {out / 'report.html'}")
    if stopped:
        done, planned = results["finished"], results["planned"]
        notes.print(f"lossmith: stopped after {done} of {planned} trials; the same command resumes")
        raise typer.Exit(INTERRUPTED)


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
    Console(highlight=False, markup=False).print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name out of `lossmith list`.")],
    json: Json = False,
) -> None:
    """Show one loss: formula, range, settings, paper."""
    row = _find(name)
    text = inspect.getdoc(row.cls) or row.summary
    if json:
        typer.echo(dumps({**_row_as_json(row), "documentation": text}, indent=1, ensure_ascii=False, default=repr))
        return
    console = Console(highlight=False, markup=False)
    console.print(f"{row.name} ({row.cls.__name__}, {row.family} family)", style="bold")
    console.print(f"\n{text}\n", soft_wrap=True)
    console.print(f"range     {_range(row)}")
    console.print(f"paper     {row.paper or '–'}")
    table = Table("setting", "default", header_style="bold", box=None)
    for field, default in row.fields.items():
        table.add_row(field, repr(default))
    console.print(table)


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
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    from lossmith.lab import curves, figures

    drawn = {}
    for text in loss:
        try:
            drawn.update(curves.draw(text))
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{text}: {str(error).splitlines()[0]}") from error
    if json:
        typer.echo(dumps({name: each.as_json() for name, each in drawn.items()}, indent=1, ensure_ascii=False))
        return
    page = (
        '<!doctype html><meta charset="utf-8"><title>lossmith plot</title><style>:root{color-scheme:light dark}'
        "body{max-width:1100px;margin:40px auto;padding:0 20px;font-family:system-ui,sans-serif}</style>"
        f"<script>{get_plotlyjs()}</script>{figures.sections(drawn)}"
    )
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    typer.echo(str(out))


@lab.command("box-regression")
def box_regression(
    form: Annotated[
        Literal["both", "true", "published"],
        typer.Option(help="true: the losses' own gradients; published: those of the authors' script."),
    ] = "both",
    points: Annotated[int, typer.Option(min=1, help="Anchor points, of 343 cases each; the paper has 5000.")] = 5000,
    out: Annotated[
        Path | None, typer.Option(help="The HTML file to write: box-regression.html; with --json none unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the anchor points.")] = 0,
    json: Json = False,
) -> None:
    """Repeat the DIoU paper's simulation: boxes that walk to their targets by the gradient of a loss alone.

    Losses: IoU, GIoU, DIoU, CIoU, EIoU, SIoU, smooth L1. Totals are scaled to the paper's 1,715,000 cases. Ctrl-C
    keeps the points that are done.
    """
    from lossmith.lab import box_page
    from lossmith.lab import box_regression as experiment

    page = out or (None if json else Path("box-regression.html"))
    if page is not None:
        box_page.check_writable(page)
    forms: list[str] = ["published", "true"] if form == "both" else [form]
    anchors = experiment.draw_points(points, seed)
    runs = list(dict.fromkeys(experiment.form_run(loss, each) for each in forms for loss in experiment.LOSSES))
    singles = experiment.ablation_runs() if page is not None and form == "both" else []
    few = anchors[: box_page.ABLATION_POINTS]
    notes = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    with _progress(notes, quiet=json, unit="case") as progress:
        total = experiment.CASES_PER_POINT * (len(runs) * len(anchors) + len(singles) * len(few))
        bar = progress.add_task(f"{points} anchor points", total=total)
        courses, stopped = experiment.simulate(anchors, runs, lambda cases: progress.advance(bar, cases))
        ablation: dict[experiment.Run, experiment.Course] = {}
        if singles and not stopped:
            ablation, stopped = experiment.simulate(few, singles, lambda cases: progress.advance(bar, cases))
    if not courses:
        notes.print("lossmith: stopped before the first anchor points were done")
        raise typer.Exit(INTERRUPTED)
    done = len(courses[runs[0]].marks)
    if page is not None:
        box_page.write_page(courses, ablation, anchors, forms, seed, page)
    if json:
        totals = {each: experiment.totals(courses, each) for each in forms}
        typer.echo(dumps({"form": form, "totals": totals if form == "both" else totals[form]}))
    elif page is not None:
        typer.echo(str(page))
    if stopped:
        where = ", in the table of deviations" if done == points else ""
        kept = "" if page is None else f"; {page} shows what is done"
        notes.print(f"lossmith: stopped after {done} of {points} anchor points{where}{kept}")
        raise typer.Exit(INTERRUPTED)


def _progress(console: Console, quiet: bool, unit: str = "step") -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(unit + " {task.completed:,} of {task.total:,}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)


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


def _find(name: str) -> Any:
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
        "fields": row.fields,
    }


def _range(row: Any) -> str:
    low, high = row.range
    return f"[{low:g}, {high:g}]" if math.isfinite(high) else f"[{low:g}, ∞)" if math.isfinite(low) else "(−∞, ∞)"


def _fields(row: Any) -> str:
    """A loss's own settings; those that many share would fill the screen."""
    return ", ".join(f"{k}={v!r}" for k, v in row.fields.items() if k not in SHARED)
