"""All trials of a comparison, in a folder that can be stopped, resumed and extended.

    OUT/trials/HASH.json        one finished trial; HASH is of its settings, loss and seed
    OUT/predictions/HASH.npz    the labels it predicted for the held-back images, by stem; "predicted", one per image,
                                where whole images are labelled; the boxes found in each tile where boxes are drawn
    OUT/results.json            the ranking and everything it rests on
    OUT/report.html             the same, to look at

Every file appears whole or not at all. Trials run seed by seed, so that stopping early leaves paired ones.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import platform
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lossmith.lab import UserError
from lossmith.lab.losses import counted_pairs, parse_loss, reads_unlabelled
from lossmith.lab.plan import Settings
from lossmith.lab.train import run_trial

Watch = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Job:
    """How one kind of data is compared: what a loss's text means there, and one trial (see `run_trial`)."""

    parse: Callable[[str, Settings, Any], nn.Module]
    trial: Callable[
        [nn.Module, int, Any, Settings, Callable[[int], None]],
        tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]],
    ]


def run(
    data: Any,
    losses: list[str],
    seeds: int,
    settings: Settings,
    out: Path,
    watch: Watch,
    say: Callable[[str], None] = lambda line: None,
    job: Job | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """Train what `out` does not hold yet. Returns all its trials, and whether Ctrl-C stopped the work.

    On a CPU as many trials run at once as there are cores, each on one: for a small network that is faster than one
    trial on all cores, and the result does not depend on their number. `watch(loss, seed, step)` is called after each
    step, with None when a trial is finished; `say` gets a line for whatever the user should know of
    a loss. Without a job, `data` are labelled images.
    Raises `UserError` if `out` cannot be written to, or holds trials with other settings.
    """
    labelled = job is None
    job = job or Job(parse_loss, run_trial)
    parsed: dict[str, Any] = {text: job.parse(text, settings, data) for text in losses}
    meanings = {text: repr(loss) for text, loss in parsed.items()}
    counted = {text: counted_pairs(text, loss) if labelled else "" for text, loss in parsed.items()}
    for text, found in counted.items():
        if found:
            say(f'--loss "{text}": {found}')
        if labelled and data.unlabelled and not reads_unlabelled(parsed[text]):
            say(f'--loss "{text}": reads labels only; the unlabelled images change nothing for it')
    _make_folders(out)
    finished = read_trials(out)
    _check_same(finished, meanings, settings, out)
    done = {(t["loss"], t["seed"]) for t in finished}
    todo = [(text, seed) for seed in range(seeds) for text in losses if (text, seed) not in done]
    stop = threading.Event()

    def train(text: str, seed: int) -> None:
        def on_step(step: int) -> None:
            watch(text, seed, step)
            if stop.is_set():
                raise CancelledError

        torch.set_num_threads(1 if settings.device == "cpu" else cores)
        loss = copy.deepcopy(parsed[text])  # each trial starts its schedules anew
        record, predictions = job.trial(loss, seed, data, settings, on_step)
        named = {"loss": text, "meaning": meanings[text], "counted": counted[text], "settings": settings.as_json()}
        _save({**named, **record, "machine": machine(settings.device, at_once)}, predictions, out)
        watch(text, seed, None)

    cores = torch.get_num_threads()
    at_once = cores if settings.device == "cpu" else 1
    pool = ThreadPoolExecutor(at_once)
    try:
        for trial in as_completed([pool.submit(train, *each) for each in todo]):
            trial.result()
    except KeyboardInterrupt:
        stop.set()
    finally:
        interrupted = stop.is_set()
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
    return read_trials(out), interrupted


def read_trials(out: Path) -> list[dict[str, Any]]:
    """The finished trials of a folder, oldest first."""
    trials = []
    for path in sorted((out / "trials").glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        try:
            trial = json.loads(path.read_text(encoding="utf-8"))
            if not (isinstance(trial, dict) and trial.keys() >= {"settings", "loss", "meaning", "seed"}):
                raise ValueError("its settings, loss, meaning and seed are not there")
            trials.append({**trial, "hash": path.stem})
        except ValueError as error:
            raise UserError(f"{path}: is no trial ({error}); delete it to run that trial again") from error
    return trials


def read_predictions(out: Path, trial: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The predicted labels (see the top of this file); empty if the trial diverged or its file is gone."""
    path = out / "predictions" / f"{trial['hash']}.npz"
    if not path.is_file():
        return {}
    with np.load(path) as stored:
        return {stem: stored[stem] for stem in stored.files}


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    raw = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        Path(temporary).chmod(0o644)  # mkstemp keeps its files private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def as_json(content: Any) -> str:
    """JSON text; refuses NaN, which JSON does not know."""
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)


def machine(device: str, at_once: int) -> dict[str, Any]:
    """What the times were measured on, and the versions behind the numbers."""
    packages = ("lossmith", "torch", "monai", "lightning-fabric", "numpy", "scipy")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads_per_trial": torch.get_num_threads(),
        "trials_at_once": at_once,
        "accelerator": torch.cuda.get_device_name() if device == "cuda" else "" if device == "cpu" else device,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in packages},
    }


def _make_folders(out: Path) -> None:
    try:
        for part in ("trials", "predictions"):
            (out / part).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out / part):
                pass
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror}); choose another folder") from error


def _check_same(trials: list[dict[str, Any]], meanings: dict[str, str], settings: Settings, out: Path) -> None:
    asked = settings.as_json()
    del asked["data"], asked["unlabelled"]  # the same images under another path are the same: the fingerprint decides
    for trial in trials:
        for name, value in asked.items():
            before = trial["settings"].get(name)
            if before != value:
                raise UserError(
                    f"--out {out}: holds trials with {name} = {before}, this run has {value}; choose another --out"
                )
        text = trial["loss"]
        if meanings.get(text, trial["meaning"]) != trial["meaning"]:
            raise UserError(
                f'--out {out}: holds trials of "{text}" as {trial["meaning"]}, now it means {meanings[text]}; '
                "choose another --out"
            )


def _save(trial: dict[str, Any], predictions: dict[str, np.ndarray[Any, Any]], out: Path) -> None:
    identity = {name: trial[name] for name in ("settings", "loss", "meaning", "seed")}
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    if predictions:
        packed = io.BytesIO()
        np.savez_compressed(packed, **predictions)  # type: ignore[arg-type]
        write(out / "predictions" / f"{name}.npz", packed.getvalue())
    write(out / "trials" / f"{name}.json", as_json(trial))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine())
