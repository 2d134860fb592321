"""The files of a comparison: a folder that can be stopped, resumed and extended.

    OUT/trials/HASH.json        one finished trial; HASH is of its settings, loss and seed
    OUT/predictions/HASH.npz    the labels it predicted for the held-back images, by stem; "predicted", one per image,
                                where whole images are labelled; the boxes found in each tile where boxes are drawn
    OUT/results.json            the ranking and everything it rests on
    OUT/report.html             the same, to look at

Every file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab import UserError
from lossmith.lab.settings import RunSettings


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


def make_folders(out: Path) -> None:
    """Raises `UserError` now if the folder cannot be written to, instead of after minutes of work."""
    try:
        for part in ("trials", "predictions"):
            (out / part).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out / part):
                pass
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror}); choose another folder") from error


def check_same(trials: list[dict[str, Any]], meanings: dict[str, str], settings: RunSettings, out: Path) -> None:
    """Raises `UserError` if the folder holds trials with other settings, or of losses that meant something else."""
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


def save(trial: dict[str, Any], predictions: dict[str, np.ndarray[Any, Any]], out: Path) -> None:
    """Write one finished trial and what it predicted."""
    identity = {name: trial[name] for name in ("settings", "loss", "meaning", "seed")}
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    if predictions:
        packed = io.BytesIO()
        np.savez_compressed(packed, **predictions)  # type: ignore[arg-type]
        write(out / "predictions" / f"{name}.npz", packed.getvalue())
    write(out / "trials" / f"{name}.json", as_json(trial))
