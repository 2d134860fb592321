"""One trial: one loss, one seed, one learning rate. Only the loss and its rate differ between the trials of a seed.

The seed alone decides the initial weights and every crop; both leave a checksum in the trial's record. What is judged
are averages of the weights over the last steps: with them seeds differ less.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lossmith.lab.kind import Kind
from lossmith.lab.run.chance import seeded
from lossmith.lab.run.checkpoint import Checkpoint
from lossmith.lab.run.model import weights_of
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned, Precision, RunSettings

Array = np.ndarray[Any, Any]

_EPOCHS = 100  # a schedule's epoch is this share of a run, whatever its number of steps
_CHECKPOINTS = 5
_MOST_POINTS = 200
_WARM_UP_STEPS = 3
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # each trial would say which precision it has
_AVERAGED = 10  # the averages reach back over a tenth of the run
_PRECISIONS: dict[Precision, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class Trained(NamedTuple):
    """What a trial leaves: its record, what was predicted for held-back images, its averaged weights by name."""

    record: dict[str, Any]
    predictions: dict[str, Array]
    weights: dict[str, Tensor]


def run_trial(
    kind: Kind,
    loss: nn.Module,
    trial: Planned,
    data: Any,
    settings: RunSettings,
    watcher: Watcher,
    resume: Path | None = None,
) -> Trained:
    """Train with one loss from one seed; several may run at once, in threads. The record is plain JSON values.

    With several devices each has a process that calls this (devices.py), with its part of the crops of each step. The
    first of them looks at the held-back images; the others' records say nothing of those.

    A loss or gradient that is not finite ends the training there: `record["diverged"]` says at which step.
    A long trial leaves a checkpoint at `resume` now and then, and goes on from one that lies there.
    """
    started = time.perf_counter()
    fabric = _fabric(settings)
    device, first = fabric.device, fabric.is_global_zero
    network = new_network(kind, data, settings, trial.seed)
    weights = weights_of(network)
    model, optimizer = fabric.setup(network, kind.optimizer(network.parameters(), trial.lr))
    # Without a decay the last steps decide too much, and seeds differ more than losses do.
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    averaged = AveragedModel(network, multi_avg_fn=_average(decay_of(settings.steps)), use_buffers=True)
    loss = loss.to(device)
    next_epoch: Callable[[], None] = getattr(loss, "step", lambda: None)
    crops = kind.crops(data, settings, trial.seed)
    checkpoints = {math.ceil(settings.steps * (i + 1) / _CHECKPOINTS) for i in range(_CHECKPOINTS)}
    losses: list[float] = []
    step_times: list[float] = []
    loss_times: list[float] = []
    course: dict[str, list[Any]] = {"step": [], "score": [], "images": [s.stem for s in kind.watched(data)]}
    course["gradient"] = []
    start_norm: float | None = None
    diverged: dict[str, Any] | None = None
    done = 0
    parts: dict[str, Any] = {"network": network, "averaged": averaged, "optimizer": optimizer, "decay": decay}
    parts |= {"loss": loss, "precision": fabric.strategy.precision}  # fp16 has a scale that it finds
    same = {"weights": weights, "crops": crops.checksum}
    checkpoint = Checkpoint(resume, parts, same, device, watcher.said)
    with seeded(), fabric.rank_zero_first():  # which sets a damaged one aside, so that the others find none
        history = checkpoint.load()
    if history:
        done, losses, step_times, loss_times, course, start_norm, seconds = history
        started -= seconds

    for step in range(done + 1, settings.steps + 1):
        mine = slice(fabric.global_rank, None, settings.devices)
        image, label = fabric.to_device([part[mine] for part in crops.batch(step - 1)])
        begin = _clock(device)
        # A network of the user's may draw random numbers: the same at each step of a seed, for every loss.
        with seeded(trial.seed, step, fabric.global_rank) if settings.model else nullcontext():
            logits = model(image)
        before = _clock(device)
        # The backward pass is cut at the logits, where it passes anyway, so that the loss's part can be timed.
        leaf = logits.detach().requires_grad_()
        value = loss(leaf, label)
        value.backward()
        after = _clock(device)
        optimizer.zero_grad()
        fabric.backward(logits, gradient=leaf.grad)
        number = value.item()
        if settings.clip or settings.precision == "fp16":  # which scales its gradients, and has to undo that first
            most = settings.clip or math.inf
            total: Any = fabric.clip_gradients(model, optimizer, max_norm=most, error_if_nonfinite=False)
            norm = total.item()
        else:
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()
        if step == 1:
            start_norm = norm if math.isfinite(norm) else None
        if not (math.isfinite(number) and (math.isfinite(norm) or settings.precision == "fp16")):
            diverged = {"step": step, "what": "gradient" if math.isfinite(number) else "loss"}
            break
        optimizer.step()
        decay.step()
        averaged.update_parameters(network)
        end = _clock(device)
        losses.append(number)
        step_times.append(end - begin)
        loss_times.append(after - before)
        if step == 1 or step in checkpoints:
            course["gradient"].append({"step": step, **kind.gradient(loss, leaf, label, settings)})
        for _ in range(step * _EPOCHS // settings.steps - (step - 1) * _EPOCHS // settings.steps):
            next_epoch()  # several at once in a run of fewer steps than epochs
        if first and step in checkpoints and step < settings.steps:
            course["step"].append(step)
            course["score"].append(kind.quick_score(averaged.module, loss, data, settings))
            watcher.scored(trial, step, course["score"][-1])
        if first and checkpoint.is_due():
            seconds = time.perf_counter() - started
            checkpoint.save([step, losses, step_times, loss_times, course, start_norm, seconds])
        watcher.step(trial, step, number)

    judged = first and not diverged
    evaluation, predictions = kind.judge(averaged.module, loss, data, settings) if judged else (None, {})
    if evaluation:
        course["step"].append(settings.steps)
        course["score"].append(kind.last_score(evaluation, data))
        watcher.scored(trial, settings.steps, course["score"][-1])
    elif judged:
        diverged = {"step": settings.steps, "what": "prediction"}
    # The first steps compile, allocate and warm up; they would tell about the machine, not about the loss.
    skip = _WARM_UP_STEPS if len(step_times) > 2 * _WARM_UP_STEPS else 0
    record = {
        "seed": trial.seed,
        "lr": trial.lr,
        "weights_checksum": weights,
        "crops_checksum": crops.checksum,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gradient_norm_at_start": start_norm,
        "diverged": diverged,
        "training": _thinned(losses),
        "gradient": course.pop("gradient"),
        "validation": course,
        "ms_per_step": 1000 * float(np.median(step_times[skip:])) if step_times else None,
        "ms_in_loss": 1000 * float(np.median(loss_times[skip:])) if loss_times else None,
        "seconds": time.perf_counter() - started,
        **(evaluation or {"metrics": None, "per_class": None}),
    }
    kept = {} if diverged else averaged.module.state_dict()
    return Trained(record, predictions, {name: value.detach().cpu() for name, value in kept.items()})


def new_network(kind: Kind, data: Any, settings: RunSettings, seed: int) -> nn.Module:
    """The network that a seed begins with."""
    with seeded(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.network(data, settings)


def _average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    """An exponential average; of what is counted or indexed in whole numbers the last, which an average would spoil."""
    average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Any) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, count)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return update


def _fabric(settings: RunSettings) -> Fabric:
    precision = _PRECISIONS[settings.precision]
    if settings.devices == 1:
        return Fabric(accelerator=settings.device, devices=1, precision=precision)
    alone = LightningEnvironment()  # whatever scheduler started this process, it knows nothing of these
    fabric = Fabric(
        accelerator=settings.device, devices=settings.devices, strategy="ddp", plugins=[alone], precision=precision
    )
    fabric.launch()
    return fabric


def decay_of(steps: int) -> float:
    """How much of the averaged weights stays at each step."""
    return 1 - 1 / max(1.0, steps / _AVERAGED)


def estimate_seconds(kind: Kind, loss: nn.Module, data: Any, settings: RunSettings) -> float:
    """About how long a trial will take, from a few steps and the judgement of the images that are watched."""
    few = min(settings.steps, 2 * _WARM_UP_STEPS)
    brief = replace(settings, steps=few)
    network = kind.network(data, settings).to(settings.device)
    crops = kind.crops(data, brief, 0)
    loss = loss.to(settings.device)
    times = []
    for step in range(few):
        begin = time.perf_counter()
        image, label = (x.to(settings.device) for x in crops.batch(step))
        loss(network(image), label).backward()
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    kind.quick_score(network, loss, data, settings)
    look = time.perf_counter() - begin
    judged = look * len(data.validation) / max(1, len(kind.watched(data)))
    return settings.steps * float(np.median(times)) + _CHECKPOINTS * look + judged


def resolve_device(name: str) -> str:
    """`auto` and the accelerator names of lightning-fabric, as the torch device they mean.

    Raises whatever lightning-fabric raises for an accelerator that is not there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "GPU available but not used" is what the user has just asked for
        return Fabric(accelerator=name, devices=1).device.type


def _clock(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def _thinned(values: list[float]) -> dict[str, list[float]]:
    """At most 200 points of a course: means over equal stretches, at their last step."""
    stretches = np.array_split(np.array(values), min(len(values), _MOST_POINTS)) if values else []
    ends = np.cumsum([len(s) for s in stretches]).tolist()
    return {"step": ends, "loss": [float(s.mean()) for s in stretches]}
