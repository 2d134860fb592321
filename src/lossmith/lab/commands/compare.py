"""`lossmith compare`: train with each loss on the same footing, and say what can be said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from lossmith.lab import UserError
from lossmith.lab.commands.bars import Bars
from lossmith.lab.commands.file import read_settings
from lossmith.lab.commands.terminal import Interrupted, Json, PlainConsole, app, counted, notes, progress
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import USUAL_RATE, Asked, Keep, Precision

if TYPE_CHECKING:
    from lossmith.lab.run.engine import Engine

Figures = Annotated[
    Literal["png", "svg"] | None, typer.Option(help="Also write every figure of the report, to OUT/figures.")
]


@app.command()
def compare(
    data: Annotated[str, typer.Argument(help="A folder, or a built-in set: bacteria, bacteria3, brain, solar, trees.")],
    loss: Annotated[list[str], typer.Option(help='A loss, as text: "dice + 0.5*focal(gamma=2)". Give several.')],
    out: Annotated[Path, typer.Option(help="Folder for trials, results.json, report.html; resumes what is there.")],
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trials of each loss; without this and --budget 3. Intervals need 2.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="20m, 90s or 2h: a race over seeds that stops when decided, or then.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of a trial: 200, with boxes 600.")] = None,
    task: Annotated[
        Literal["multiclass", "binary"], typer.Option(help="binary: all labels > 0 are one.")
    ] = "multiclass",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="On how many GPUs each trial trains; they share the crops of a step.")
    ] = 1,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where trials run: here, or on the workers of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of that cluster: auto on one of its machines, else HOST:6379.")
    ] = None,
    ignore_index: Annotated[int, typer.Option(help="Pixels with this label count nowhere.")] = -100,
    crop: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the crops, a multiple of 16; 128, volumes 32, with boxes 256."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Crops in a step: 8, volumes and boxes 4; 32 images if those are labelled."),
    ] = None,
    lr: Annotated[
        str, typer.Option(help="Learning rate of AdamW; falls to 0 along a cosine. auto: each loss chooses of three.")
    ] = f"{USUAL_RATE:g}",
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
    pages: Annotated[
        Literal["volume", "channels"] | None, typer.Option(help="What the pages of a TIFF with several of them are.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="What stays on one side: a column of split.csv, or a pattern for stems: '^[^_]+'."),
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Hold each image back in one of so many folds.")] = None,
    figures: Figures = None,
    model: Annotated[
        str | None,
        typer.Option(
            help='What trains: "monai:SegResNet(init_filters=16)" or my.module:make, called with in_channels, '
            "out_channels and spatial_dims as far as it takes them."
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the network in training; bf16 and fp16 are mixed.")] = "fp32",
    clip: Annotated[
        float | None, typer.Option(help="Gradients with a larger norm are scaled down to it; not clipped.")
    ] = None,
    keep: Annotated[
        Keep | None, typer.Option(help="Keep weights in OUT/weights: best of each loss, or all. For lossmith predict.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write each trial's progress there, as event files for TensorBoard.")
    ] = None,
    wandb: Annotated[str | None, typer.Option(help="Send it to this project of Weights & Biases.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="Send it to this experiment of MLflow.")] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file of these options, steps: 200 a line; the command line has the last word.",
            callback=read_settings,
            is_eager=True,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train with each loss on the same footing, and report what can be said.

    Your own data is a folder: images/ and masks/ with the same file stems (PNG, JPEG, BMP, TIFF, NPY, or NIfTI for
    volumes; masks never as JPEG; whole numbers, 0 is background), or as nnU-Net has it, imagesTr/, labelsTr/ and
    dataset.json; or images/ and labels.csv (columns stem,label) to classify whole images. split.csv (columns
    stem,split; train, validation or unused) chooses the held-back images, else a seeded quarter is taken. Images
    that belong together, as those of a patient do, stay on one side if split.csv has a column group (or patient,
    case), with or without split, or --group-by finds their group. classes.txt names the classes, one a line. Or
    images/ and boxes.csv (columns stem,x1,y1,x2,y2), or boxes as COCO, Pascal VOC or YOLO write them, to detect
    things of one class; a loss then has terms for scores and boxes: "qfl + 2*giou + 0.25*dfl", "focal + giou".

    class_weight="inverse" in a loss, or "median", "effective", "enet", is counted from the images to train on; so are
    the pairs of classes that nonadjacency forbids, if it does not name them.

    Images of --unlabelled are cropped like the others and join each step with every pixel ignored. nonadjacency sees
    them, all other losses skip them; entropy too. The labelled crops stay the same.

    --engine ray runs the same trials on the workers of a Ray cluster (pip install "lossmith[lab,ray]" on each; then
    "ray start --head" on one, "ray start --address HOST:6379" on the others). Results are stored here as they finish.

    An epoch of ramp(start=…, step=…, stop=…) is a hundredth of the run.
    """
    losses = [" ".join(text.split()) for text in loss]
    check_options(losses, crop, clip)
    rate = None if lr == "auto" else rate_of(lr)
    seconds = None if budget is None else seconds_of(budget)
    if seeds is None and seconds is None:
        seeds = 3
    from lossmith.lab.data import builtin

    say = notes()
    folder = builtin.find_folder(data, say.print)
    check_place(out, folder)

    from lossmith.lab.kinds import kind_of  # these take ten seconds: what is wrong by then is said at once
    from lossmith.lab.page.report import write_report
    from lossmith.lab.run.comparison import Comparison
    from lossmith.lab.run.records import as_json, opened
    from lossmith.lab.run.snapshot import Snapshot
    from lossmith.lab.run.watch import Watchers

    runs, device = _engine(engine, address, device, devices, precision)
    asked = Asked(
        data=data,
        task=task,
        steps=steps,
        crop=crop,
        batch=batch,
        lr=rate,
        ignore_index=ignore_index,
        device=device,
        devices=devices,
        unlabelled=unlabelled,
        unlabelled_batch=unlabelled_batch,
        quality=quality,
        pages=pages,
        group_by=group_by,
        folds=folds,
        model=model,
        precision=precision,
        clip=clip,
    )
    kind = kind_of(folder)
    snapshot = Snapshot([folder, unlabelled] if unlabelled else [folder], out)
    with counted(say, quiet=json, what="reading images") as watch_reading:
        read = kind.read(folder, asked, watch_reading)
    for notice in getattr(read, "notices", ()):
        say.print(notice)
    comparison = Comparison(kind, read, kind.settings(read, asked), snapshot, keep)
    for text in losses:
        comparison.loss(text)  # before anything is written
    trackers = _trackers(tensorboard, wandb, mlflow)
    if read.source and not json:
        say.print(f"{data}: {read.source}", style="dim")

    with opened(out, say.print):
        with runs, progress(say, quiet=json) as shown:
            told = Watchers([Bars(shown, say, comparison.settings.steps, quiet=json), *trackers])
            trials, stopped = comparison.run(
                losses, out, seeds, seconds, choose_rates=rate is None, watcher=told, engine=runs
            )
        results = write_report(comparison, trials, losses, out, seeds, budget, figures)
    if json:
        typer.echo(as_json(results))
    else:
        _print_ranking(results)
        typer.echo(f"report: {out / 'report.html'}")
    if stopped:
        done, planned = results["finished"], results["planned"]
        raise Interrupted(f" after {done} of {planned} trials; the same command resumes")


def _engine(name: str, address: str | None, device: str, devices: int, precision: Precision) -> tuple[Engine, str]:
    """Where trials run, and on which device of torch."""
    from lossmith.lab.run.local import LocalEngine

    if name == "ray":
        try:
            from lossmith.lab.run.on_ray import RayEngine
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise UserError('--engine ray: the package ray is missing; install "lossmith[lab,ray]"') from error
        cluster = RayEngine(address, device, devices)
        return cluster, cluster.device
    if address is not None:
        raise UserError(f"--address {address}: is that of a Ray cluster; give --engine ray too")
    device = device_of(device, precision)
    return LocalEngine(device, devices), device


def _trackers(tensorboard: Path | None, wandb: str | None, mlflow: str | None) -> list[Watcher]:
    from lossmith.lab.run.trackers import MLflow, TensorBoard, WeightsAndBiases

    made: list[Watcher] = [TensorBoard(tensorboard)] if tensorboard else []
    made += [WeightsAndBiases(wandb)] if wandb else []
    return [*made, MLflow(mlflow)] if mlflow else made


def check_options(losses: list[str], crop: int | None, clip: float | None) -> None:
    """Raises `UserError` for what can be said to be wrong before the data are read."""
    twice = next((text for text in losses if losses.count(text) > 1), None)
    if twice is not None:
        raise UserError(f'--loss "{twice}" is given twice; give it once, --seeds repeats it')
    if crop and crop % 16:
        raise UserError(f"--crop {crop}: must be a multiple of 16, for example {round(crop / 16) * 16}")
    if clip is not None and not (clip > 0 and math.isfinite(clip)):
        raise UserError(f"--clip {clip:g}: must be a positive number")


def check_place(out: Path, data: Path) -> None:
    """Raises `UserError` for results that would lie among the images: the next command would take them for some."""
    from lossmith.lab.data.index import IMAGES, MASKS

    for name in (*IMAGES, *MASKS):
        part = (data / name).resolve()
        if part.is_dir() and (part == out.resolve() or part in out.resolve().parents):
            raise UserError(f"--out {out}: lies in {data / name}, whose files are data; choose another folder")


def device_of(name: str, precision: Precision) -> str:
    """The device that a name means. Raises `UserError` for one that is not there or does not train so."""
    import torch

    from lossmith.lab.run.trial import resolve_device  # which takes seconds

    try:
        device = resolve_device(name)
    except Exception as error:  # each accelerator of lightning-fabric has its own exceptions
        there = torch.accelerator.current_accelerator(check_available=True)
        others = f" and {there.type}" if there else ""
        raise UserError(f"--device {name}: not on this machine, which has cpu{others}; give --device auto") from error
    if precision == "fp16" and device == "cpu":
        raise UserError("--precision fp16: a CPU does not train with it; use --precision bf16")
    return device


def rate_of(text: str) -> float:
    """A learning rate. Raises `UserError` for what is none."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (rate > 0 and math.isfinite(rate)):
        raise UserError(f"--lr {text}: must be a positive number, or auto")
    return rate


def seconds_of(text: str) -> float:
    """A budget. Raises `UserError` for what is none."""
    number, unit = text[:-1], {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    if unit is None or not number.replace(".", "", 1).isdecimal() or not float(number):
        raise UserError(f"--budget {text}: write a number and s, m or h, for example 20m")
    return float(number) * unit


def _print_ranking(results: dict[str, Any]) -> None:
    from lossmith.lab.run.race import in_words

    console = PlainConsole()
    console.print(results["headline"])
    table = Table(box=None, header_style="bold")
    table.add_column("loss", no_wrap=True)  # cut short, losses that differ in a setting would look the same
    for column in (results["score"], "difference", "95 % interval", ""):
        table.add_column(column, justify="right" if column else "left")
    for row in results["ranking"]:
        score, difference = row["score"], row["difference"]
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
    for does, value in results["trivial"].items():
        table.add_row(f"({does})", f"{value:.3f}", "–", "–", "knows nothing")
    console.print(table)
    more = results["more"]
    if results["decision"]["use"] is None and more["command"]:  # the answer is still to come
        cost = "" if more["minutes"] is None else f" About {in_words(more['minutes'])}."
        console.print(f"{more['text']}{cost} {more['command']}", soft_wrap=True)
