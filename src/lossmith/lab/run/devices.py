"""One trial on several devices, a process each: every one takes its part of the crops of each step.

Losses are ratios of sums: they get the group of these processes, so that value and gradient are those of the whole
step, and the trial is that of one device but for rounding.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes
from torch.nn.modules.batchnorm import _BatchNorm

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.kind import Kind
from lossmith.lab.run.relay import SECONDS, Relay, tell, waiting
from lossmith.lab.run.trial import Trained, run_trial
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned, RunSettings
from lossmith.loss import Loss

_RESULT, _FAULT = "result", "fault"  # files that a process leaves


def check_devices(kind: Kind, data: Any, settings: RunSettings, losses: dict[str, nn.Module]) -> None:
    """Raises `UserError` where a trial on several devices would not be that on one."""
    count = settings.devices
    if count == 1:
        return
    asked = f"--devices {count}"
    if settings.batch < count:
        raise UserError(f"{asked}: a step has {settings.batch} crops to share; give --batch {count} or more")
    for text, loss in losses.items():
        if not isinstance(loss, Loss):
            raise UserError(f'{asked}: "{text}" of this kind of data divides by counts of its own part; drop --devices')
        for _, term in loss.terms:
            if "images" not in term.splits:
                raise UserError(f'{asked}: "{text}": {term.name} is not exact where a step is split; drop --devices')
    if any(isinstance(part, _BatchNorm) for part in kind.network(data, settings).modules()):
        raise UserError(
            f"{asked}: this network has batch norm, which would see a part of each step only; drop --devices"
        )


def run_on_devices(
    kind: Kind,
    loss: nn.Module,
    trial: Planned,
    data: Any,
    settings: RunSettings,
    watcher: Watcher,
    resume: Path | None = None,
) -> Trained:
    """What `run_trial` does, on `settings.devices` at once."""
    told: Any = get_context("spawn").Queue()
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder), told, kind, loss, trial, data, settings, resume
        start: Any = start_processes  # has no types
        processes = start(_part, given, settings.devices, join=False, start_method="spawn")
        try:
            while not processes.join(SECONDS):  # raises what one of them raised, and ends the others
                tell(waiting(told), watcher)
        except ProcessRaisedException as error:
            fault = Path(folder) / _FAULT
            if fault.exists():
                raise UserError(fault.read_text(encoding="utf-8")) from error
            raise
        except ProcessExitedException as error:
            raise UserError(
                f"--devices {settings.devices}: {error}; what is finished is kept, the same command resumes"
            ) from error
        finally:
            for process in processes.processes:
                process.kill()
        tell(waiting(told), watcher)
        result: Trained = pickle.loads((Path(folder) / _RESULT).read_bytes())
        return result


def _part(
    rank: int,
    folder: Path,
    told: Any,
    kind: Kind,
    loss: nn.Module,
    trial: Planned,
    data: Any,
    settings: RunSettings,
    resume: Path | None,
) -> None:
    """In a process of its own: one device's part of a trial. The first of them tells, and leaves what comes out."""
    os.environ["LOCAL_RANK"] = str(rank)
    if settings.device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.accelerator.set_device_index(rank)
    store = f"file://{folder / 'store'}"  # a port could be taken
    backend = dist.get_default_backend_for_device(settings.device)
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=settings.devices)
    shared = ls.parse(repr(loss), group="world")
    watcher = Relay(told.put) if rank == 0 else Watcher()
    try:
        done = run_trial(kind, shared, trial, data, settings, watcher, resume)
    except UserError as error:
        (folder / _FAULT).write_text(str(error), encoding="utf-8")
        raise
    if rank == 0:
        (folder / _RESULT).write_bytes(pickle.dumps(done))
    dist.destroy_process_group()
