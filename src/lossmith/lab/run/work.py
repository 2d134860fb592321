"""What a comparison has done by an engine: a trial, or the estimate of how long one takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lossmith.lab.kind import Kind
from lossmith.lab.run.devices import run_on_devices
from lossmith.lab.run.machine import machine
from lossmith.lab.run.trial import Trained, estimate_seconds, run_trial
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned, RunSettings


def train(
    kind: Kind,
    data: Any,
    watcher: Watcher,
    *,
    loss: nn.Module,
    trial: Planned,
    settings: RunSettings,
    at_once: int,
    resume: Path,
) -> Trained:
    """A trial; its record says what machine it ran on."""
    data = kind.held_back_by(trial.seed, data, settings)
    run = run_trial if settings.devices == 1 else run_on_devices
    reached = resume.parent.is_dir()  # not on another machine, unless the two share these files
    done = run(kind, loss, trial, data, settings, watcher, resume if reached else None)
    return done._replace(record={**done.record, "machine": machine(settings.device, at_once)})


def estimate(kind: Kind, data: Any, watcher: Watcher, *, loss: nn.Module, settings: RunSettings) -> float:
    """About how many seconds a trial will take."""
    return estimate_seconds(kind, loss, data, settings)
