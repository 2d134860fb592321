"""The files of a comparison: a folder that can be stopped, killed, resumed and extended.

    OUT/trials/HASH.json        one finished trial; HASH is of its settings, loss and seed
    OUT/predictions/HASH.npz    the labels it predicted for the held-back images, by stem; "predicted", one per image,
                                where whole images are labelled; the boxes found in each tile where boxes are drawn
    OUT/results.json            the ranking and everything it rests on
    OUT/report.html             the same, to look at
    OUT/figures/                its figures one by one, if they were asked for
    OUT/running/HASH.pt         where a long trial stands, until it is finished (checkpoint.py)
    OUT/weights/NAME.pt         averaged weights that were asked for (kept.py)
    OUT/aside/                  what was damaged: nothing reads it, and nothing deletes it
    OUT/.lock                   held by the process that writes here (lock.py)

Every file appears whole or not at all, and is on the disk before the next one is begun: a trial's predictions before
its JSON, which makes it finished and holds the checksums of both.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab import UserError
from lossmith.lab.run.lock import locked
from lossmith.lab.settings import Planned, RunSettings

_PARTS = ("trials", "predictions", "running")
_UNFINISHED = ".lossmith-"  # what the name of a file begins with until it is whole
_IDENTITY = ("settings", "meaning", *Planned._fields)


@contextmanager
def opened(out: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """A folder to add trials to, for this process alone; what a killed run left half done is put in order first.

    `say` gets a line for each damaged trial, which is set aside and will run again. Raises `UserError` if the folder
    cannot be written to, another process holds it, or its trials are of another version.
    """
    make_folders(out)
    with locked(out):
        for folder in (out, *(out / part for part in _PARTS)):
            for unfinished in folder.glob(f"{_UNFINISHED}*"):
                unfinished.unlink(missing_ok=True)
        for path in _paths(out):
            try:
                _read_trial(out, path)
                (out / "running" / f"{path.stem}.pt").unlink(missing_ok=True)  # killed between its end and this
            except ValueError as error:
                aside = set_aside([path, out / "predictions" / f"{path.stem}.npz"], out)
                say(f"{path}: damaged ({error}); set aside in {aside}, that trial runs again")
        yield


def results_in(out: Path) -> set[Path]:
    """Everything that a comparison may write there."""
    return {out / name for name in (*_PARTS, "weights", "aside", "results.json", "report.html", "figures")}


def read_trials(out: Path) -> list[dict[str, Any]]:
    """The finished trials of a folder, oldest first. Raises `UserError` for a damaged one; `opened` sets it aside."""
    trials = []
    for path in _paths(out):
        try:
            trials.append({**_read_trial(out, path), "hash": path.stem})
        except ValueError as error:
            raise UserError(f"{path}: damaged ({error}); the next comparison in {out} runs that trial again") from error
    return trials


def read_predictions(out: Path, trial: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The predicted labels (see the top of this file); empty if the trial diverged or its file is gone."""
    path = out / "predictions" / f"{trial['hash']}.npz"
    if not path.is_file():
        return {}
    with np.load(path) as stored:
        return {stem: stored[stem] for stem in stored.files}


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, and onto the disk. Raises `UserError` if it cannot be written."""
    raw = content.encode() if isinstance(content, str) else content
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(handle)
            Path(temporary).chmod(0o644)  # mkstemp keeps its files private
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); what was written before is kept, run the same command "
            "again when there is room"
        ) from error


def as_json(content: Any) -> str:
    """JSON text; refuses NaN, which JSON does not know."""
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)


def check_same(trials: list[dict[str, Any]], meanings: dict[str, str], settings: RunSettings, out: Path) -> None:
    """Raises `UserError` if the folder holds trials with other settings, or of losses that meant something else."""
    asked = settings.as_json()
    del asked["data"], asked["unlabelled"]  # the same images under another path are the same: the fingerprint decides
    for trial in trials:
        for name, value in asked.items():
            before = trial["settings"].get(name)
            if before != value and name == "fingerprint":
                raise UserError(
                    f"--out {out}: the data have changed since its trials were made (fingerprint = {before}, now "
                    f"{value}); choose another --out"
                )
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


def set_aside(paths: list[Path], out: Path) -> Path:
    """Moves damaged files to where nothing reads them, under names that are free; returns the folder."""
    aside = out / "aside"
    aside.mkdir(exist_ok=True)
    taken = {path.name.partition(".")[0] for path in aside.iterdir()}
    count = next(n for n in itertools.count(1) if not any(f"{path.stem}-{n}" in taken for path in paths))
    for path in paths:
        if path.exists():
            path.rename(aside / f"{path.stem}-{count}{path.suffix}")
    return aside


def running(trial: dict[str, Any], out: Path) -> Path:
    """Where the checkpoint of a trial lies while it runs; of the trial its settings, loss, meaning, seed and rate."""
    return out / "running" / f"{_name(trial)}.pt"


def save(trial: dict[str, Any], predictions: dict[str, np.ndarray[Any, Any]], out: Path) -> None:
    """Write one finished trial and what it predicted."""
    name, trial = _name(trial), {**trial, "predictions_checksum": None}
    if predictions:
        packed = io.BytesIO()
        np.savez_compressed(packed, **predictions)  # type: ignore[arg-type]
        write(out / "predictions" / f"{name}.npz", packed.getvalue())
        trial["predictions_checksum"] = hashlib.sha256(packed.getvalue()).hexdigest()
    write(out / "trials" / f"{name}.json", as_json({**trial, "checksum": _digest(trial)}))


def make_folders(out: Path) -> None:
    """Raises `UserError` now if the folder cannot be written to, instead of after minutes of work."""
    try:
        for part in _PARTS:
            (out / part).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out / part):
                pass
        _sync(out)
        _sync(out.parent)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror}); choose another folder") from error


def _paths(out: Path) -> list[Path]:
    """Of the finished trials, oldest first."""
    return sorted((out / "trials").glob("[!.]*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name))


def _read_trial(out: Path, path: Path) -> dict[str, Any]:
    """Raises ValueError, with the reason, for what is no whole trial; `UserError` for one of another version."""
    try:
        trial = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # whatever bytes there are, or a disk that fails
        raise ValueError(f"cannot be read: {error}") from error
    if not (isinstance(trial, dict) and isinstance(trial.get("settings"), dict)):
        raise ValueError("its settings are not there")
    version = trial["settings"].get("record")
    if isinstance(version, int) and version != RunSettings.record:
        raise UserError(
            f"--out {out}: holds trials of another version of lossmith (record {version}, now {RunSettings.record}); "
            "choose another --out"
        )
    if trial.pop("checksum", None) != _digest(trial) or path.stem != _name(trial):
        raise ValueError("its checksum is not that of its content")
    predictions = out / "predictions" / f"{path.stem}.npz"
    if predictions.is_file() and _file_checksum(predictions) != trial.get("predictions_checksum"):
        raise ValueError("the checksum of its predictions is not that of their file")
    return trial


def _name(trial: dict[str, Any]) -> str:
    return _digest({name: trial.get(name) for name in _IDENTITY})[:16]


def _digest(content: dict[str, Any]) -> str:
    """Of JSON values, whatever their order and layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Puts the names of a folder's files onto the disk, where the system knows such a thing."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
