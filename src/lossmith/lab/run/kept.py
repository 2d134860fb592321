"""Weights that are kept on request, in OUT/weights: what `torch.load(path, weights_only=True)` gives is a state dict.

They are the averaged weights that the trial was judged with; the trial's record names its file.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossmith.lab.run.race import RATES_SEED, score_of
from lossmith.lab.run.records import write
from lossmith.lab.settings import Planned

FOLDER = "weights"
_LONGEST = 40


def save(weights: dict[str, Tensor], trial: Planned, out: Path) -> str | None:
    """Write the weights of a trial; returns the file's name in `out`, or None for a trial that only chose a rate."""
    if not weights or trial.seed == RATES_SEED:
        return None
    packed = io.BytesIO()
    torch.save(weights, packed)
    plain = re.sub(r"[^a-z0-9]+", "-", trial.loss.lower()).strip("-")[:_LONGEST]
    known = hashlib.sha256(f"{trial.loss} {trial.lr}".encode()).hexdigest()[:8]  # of losses that look alike
    name = f"{FOLDER}/{plain}-{known}-seed{trial.seed}.pt"
    (out / FOLDER).mkdir(exist_ok=True)
    write(out / name, packed.getvalue())
    return name


def found(trials: list[dict[str, Any]], loss: str, ranked_by: str, out: Path) -> list[Path]:
    """The kept weights of a loss, the highest score first."""
    mine = [t for t in trials if t["loss"] == loss and t.get("weights") and (out / t["weights"]).is_file()]
    return [out / t["weights"] for t in sorted(mine, key=lambda t: -score_of(t, ranked_by))]


def drop_all_but_best(trials: list[dict[str, Any]], ranked_by: str, out: Path) -> None:
    """Of each loss only the weights with the highest score stay."""
    for loss in {t["loss"] for t in trials}:
        for path in found(trials, loss, ranked_by, out)[1:]:
            path.unlink()
