"""A comparison from Python, with whatever the user has: `from lossmith import lab; lab.compare(...)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.commands.bars import Bars
from lossmith.lab.commands.compare import check_options, device_of, rate_of, seconds_of
from lossmith.lab.commands.terminal import notes, progress
from lossmith.lab.data import builtin
from lossmith.lab.kind import Kind
from lossmith.lab.kinds import all_kinds, kind_of
from lossmith.lab.kinds.pixels import PixelKind
from lossmith.lab.own import OptimizerFactory, Own, Parts, own_kind
from lossmith.lab.page.report import write_report
from lossmith.lab.run.comparison import Comparison
from lossmith.lab.run.crops import checksum
from lossmith.lab.run.given import GivenData, GivenSample, Source, plain
from lossmith.lab.run.model import Factory, build, check, weights_of
from lossmith.lab.run.records import opened
from lossmith.lab.run.snapshot import Snapshot
from lossmith.lab.run.watch import Watcher as Watcher
from lossmith.lab.say.own import Metric as Metric
from lossmith.lab.say.own import Metrics, named
from lossmith.lab.settings import FROM_PYTHON, USUAL_RATE, Asked, Keep, Pages, Precision


def compare(
    losses: Sequence[str | ls.Loss] | Mapping[str, nn.Module],
    *,
    out: str | Path,
    data: str | Path | None = None,
    train: Any = None,
    val: Any = None,
    model: Factory | str | None = None,
    metrics: Metrics = None,
    optimizer: OptimizerFactory | None = None,
    seeds: int | None = None,
    budget: str | float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    crop: int | None = None,
    lr: float | Literal["auto"] = USUAL_RATE,
    task: Literal["multiclass", "binary"] = "multiclass",
    classes: Sequence[str] | None = None,
    ignore_index: int = -100,
    group_by: str | None = None,
    folds: int | None = None,
    pages: Pages | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    clip: float | None = None,
    keep: Keep | None = None,
    keys: tuple[str, str] = ("image", "label"),
    name: str | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Train with each loss on the same footing, as `lossmith compare` does, and say what can be said.

    Each trial builds the network anew, from the seed, and trains it; the held-back images are judged with averaged
    weights. What the data set and the network draw at random follows from seed and step, for every loss alike.

    Args:
        losses: texts ("dice + ce"), losses of lossmith, or by name any modules (logits, labels) → number.
        out: a folder for trials, results.json and report.html; the same call resumes what is there.
        data: a folder or built-in set as on the command line, instead of `train` and `val`.
        train: a `Dataset` with a length, or a `DataLoader` of one, of pairs (image, label) or dicts: images
            (channels, *S) floats, labels (*S) or (1, *S) class numbers, or one number for the whole image. Its
            augmentation is its own business. A loader's batches, order, collate_fn and workers are kept.
        val: the same of the held-back images, which are read one by one.
        model: a factory of the network, called at each trial with in_channels, out_channels and spatial_dims as far as
            it takes them; pretrained weights are its business. Or a text as for `--model`. None: the lab's own.
        metrics: by name, in a list, or one: callables (prediction, label) → number or objects with reset, update and
            compute, as they are for numbers from 0 (bad) to 1, else as `Metric(function, low, high, lower_is_better)`.
            The first ranks, before those that are usual. None: those.
        optimizer: called with (parameters, lr) for each trial; None: AdamW. The rate falls to 0 along a cosine.
        seeds, budget: trials of each loss; "20m", or seconds, for a race that stops when decided. Neither: 3 seeds.
        steps, lr, device, precision, clip, keep: as on the command line.
        batch: images in a step; a loader has its own.
        crop: of data in a folder as on the command line. Of given ones the side of the windows in which the network is
            shown held-back images; None: whole images.
        task: binary takes labels above 0 as one class, and a network with one channel.
        classes: their names, background first; None: as many as the network has channels.
        ignore_index: pixels with this label count nowhere.
        group_by, folds, pages: of data in a folder, as on the command line.
        keys: of image and label where items are dicts.
        name: what the given data are known by. Trials in `out` are taken up again only if what they were trained with
            is the same: for a factory, its name and a hash of the weights it makes from seed 0; for an optimizer, its
            settings; for given data this name, or without it their repr, their length and a hash of the first eight
            items. What else changes (the body of a metric or of `__getitem__`), nobody sees: take another `out`.
        watcher: is told of progress; None: bars or lines on standard error. `Watcher()` is silent.

    Returns:
        What results.json holds; `decision` says which loss to use, and how sure that is.

    Raises `UserError` in one line for what cannot be compared.
    """
    out, say = Path(out), notes()
    texts, modules = _losses(losses)
    check_options(texts, crop, clip)
    device = device_of(device, precision)
    rate = None if lr == "auto" else rate_of(str(lr))
    seconds = seconds_of(budget) if isinstance(budget, str) else budget
    budget = f"{budget:g}s" if budget is not None and not isinstance(budget, str) else budget
    seeds = 3 if seeds is None and seconds is None else seeds
    measured = named(metrics)
    if seeds is not None and seeds < 1:
        raise UserError(f"seeds: must be 1 or more, not {seeds}")
    if data is not None and (train is not None or val is not None):
        raise UserError("data and train: give either a folder, or data sets to train on and to judge by")
    if data is None and (train is None or val is None):
        raise UserError("train, val: give both, or data=FOLDER")
    if data is None and (folds or group_by):
        raise UserError("folds, group_by: belong to data in a folder; drop them, train and val say who is held back")
    asked = Asked(
        data=str(data) if data is not None else name or type(getattr(train, "dataset", train)).__name__,
        task=task,
        steps=steps,
        crop=crop,
        batch=batch,
        lr=rate,
        ignore_index=ignore_index,
        group_by=group_by,
        folds=folds,
        pages=pages,
        device=device,
        model=model if isinstance(model, str) else None,
        precision=precision,
        clip=clip,
    )
    factory = None if isinstance(model, str) else model
    call = f"lab.compare({texts}, {'data' if data is not None else 'train'}=…, out={str(out)!r})"
    kind: Kind
    snapshot = None
    if data is not None:
        folder = builtin.find_folder(str(data), say.print)
        kind = kind_of(folder)
        snapshot = Snapshot([folder], out)
        read = kind.read(folder, asked)
    else:
        sources = [Source(given, what, keys, task, ignore_index) for given, what in ((train, "train"), (val, "val"))]
        kind, read = _given(sources, asked, classes, factory, name)
    if factory or optimizer or measured or modules or data is None:
        if not isinstance(kind, PixelKind):
            raise UserError(f"{data}: has boxes, which train their own detector; drop model=, optimizer= and metrics=")
        parts = Parts(
            model=factory,
            model_name=_model_name(factory, read, task) if factory else "",
            optimizer=optimizer,
            optimizer_name=_optimizer_name(optimizer) if optimizer else "",
            metrics=measured,
            losses=modules,
            train=sources[0] if data is None else None,
            task=task,
            call=call,
        )
        kind = own_kind(kind, parts)
    settings = kind.settings(read, asked)
    comparison = Comparison(kind, read, settings, snapshot, keep)
    if isinstance(kind, Own) and data is None:
        for source in sources[:1]:
            _say_if_unsteady(source, settings.batch, say.print if watcher is None else watcher.said)
    told = watcher.said if watcher else say.print
    with opened(out, told):
        with progress(say, quiet=watcher is not None) as shown:
            heard = watcher or Bars(shown, say, settings.steps, quiet=False)
            trials, stopped = comparison.run(texts, out, seeds, seconds, choose_rates=rate is None, watcher=heard)
        results = write_report(comparison, trials, texts, out, seeds, budget)
    if stopped:
        raise KeyboardInterrupt
    return results


def _losses(given: Any) -> tuple[list[str], dict[str, nn.Module]]:
    """The texts of the losses, and the modules that some of them stand for."""
    if isinstance(given, Mapping):
        items = list(given.items())
    else:
        several = [given] if isinstance(given, (str, nn.Module)) else given
        items = [(x, None) if isinstance(x, str) else (repr(x), x) for x in several]
    modules = {}
    for text, loss in items:
        if loss is None:
            continue
        if not isinstance(loss, nn.Module):
            raise UserError(f"loss {text!r}: a {type(loss).__name__} is no loss; give a text or a torch.nn.Module")
        if not isinstance(given, Mapping) and not isinstance(loss, ls.Loss):
            raise UserError(f"loss {text}: give it a name, losses={{'name': loss}}")
        modules[str(text)] = loss
    return [" ".join(str(text).split()) for text, _ in items], modules


def _given(
    sources: list[Source], asked: Asked, classes: Sequence[str] | None, factory: Factory | None, name: str | None
) -> tuple[Kind, GivenData]:
    """Given data as a kind of data and what it reads."""
    train, val = ([GivenSample(source, i) for i in range(source.length)] for source in sources)
    identity = [name] if name else [source.known() for source in sources]
    first = train[0]
    if classes is None:
        classes = _class_names(sources[0], factory, first, asked.task)
    data = GivenData(
        name=asked.data,
        train=train,  # type: ignore[arg-type]  # what a Sample has, read when it is asked for
        validation=val,  # type: ignore[arg-type]
        classes=list(classes),
        ignore_index=asked.ignore_index,
        source="",
        fingerprint=checksum(*(_bytes(part) for part in [*identity, *classes])),
    )
    for sample in (*train[:1], *val[:1]):
        if (worst := max(sample.pixels.keys() - {asked.ignore_index}, default=0)) >= len(data.classes):
            raise UserError(
                f"{sources[0].name}: holds the label {worst}, but there are {len(data.classes)} classes (0 to "
                f"{len(data.classes) - 1}); give classes=[...], or ignore_index={worst}"
            )
    kinds = all_kinds()
    return kinds["pixels" if first.label.ndim else "images"], data


def _class_names(source: Source, factory: Factory | None, first: GivenSample, task: str) -> list[str]:
    if task == "binary":
        return ["background", "foreground"]
    if factory is None:
        raise UserError("classes: the lab's own network has to know them; give classes=[...], background first")
    channels, dimensions = first.image.shape[0], first.image.ndim - 1
    image = torch.from_numpy(first.image)[None].repeat(2, *[1] * first.image.ndim)
    shape = check(lambda: build(factory, "model", channels, None, dimensions), "model", image, None)
    if len(shape) < 2 or shape[1] == 1:
        raise UserError(f"model: gives {shape}, one channel; give task='binary', or one channel for each class")
    return ["background" if first.label.ndim else "class 0", *(f"class {k}" for k in range(1, shape[1]))]


def _model_name(factory: Factory, data: Any, task: str) -> str:
    """What a factory is known by: its name, and what it makes of a seed."""
    out = 1 if task == "binary" else len(data.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = weights_of(build(factory, "model", data.channels, out, data.dimensions))
    title = getattr(factory, "__qualname__", None) or plain(repr(factory))
    return f"{title} ({FROM_PYTHON}, first weights {weights})"


def _optimizer_name(factory: OptimizerFactory) -> str:
    """The kind of an optimizer and its settings but the rate."""
    made = factory([nn.Parameter(torch.zeros(1))], 1e-3)
    if not isinstance(made, torch.optim.Optimizer):
        raise UserError(f"optimizer: gives a {type(made).__name__}; it must give a torch.optim.Optimizer")
    if made.param_groups[0]["lr"] != 1e-3:
        raise UserError("optimizer: has another rate than it is called with; pass that on, as in SGD(parameters, lr)")
    settings = ", ".join(f"{k}={v}" for k, v in made.defaults.items() if k != "lr" and v)
    return f"{type(made).__name__}({settings})" if settings else type(made).__name__


def _say_if_unsteady(source: Source, batch: int, say: Any) -> None:
    rows = source.order(1, batch, 0)[0]
    first, second = (source.batch(rows, 0, 0) for _ in range(2))
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        say(
            f"{source.name}: draws other images from one seed each time, so that losses are paired less closely; draw "
            "with the random numbers of torch, NumPy or Python"
        )


def _bytes(text: str) -> Any:
    return np.frombuffer(text.encode() + b"\0", np.uint8)
