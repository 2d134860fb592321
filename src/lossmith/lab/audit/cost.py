"""What a comparison of this data would need: a few steps of its network are timed, the rest is arithmetic."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lossmith.lab.audit.survey import Survey
from lossmith.lab.data.classes import often_unlabelled
from lossmith.lab.data.samples import Sample
from lossmith.lab.kind import Kind
from lossmith.lab.settings import Asked

_TIMED = 3  # steps, after one that warms up
_CHECKPOINTS, _WATCHED = 4, 2  # during a trial some images are predicted some times


@dataclass(frozen=True)
class Outline:
    """As much of a data set as its network and its sizes are made from."""

    channels: int
    dimensions: int
    classes: list[str]
    train: list[Sample]
    fingerprint: str = ""


def estimate(found: Survey, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Seconds of a trial on one core, and bytes; None where nothing can be trained."""
    shapes = found.index.shapes
    labels = {each["label"] for each in facts.get("classes", [])}
    odd = often_unlabelled(labels, len(found.index.classes))
    classes = 2 if labels == {0, odd} else max(labels - {odd}, default=0) + 1
    if not shapes or classes < 2 or (facts.get("numbered") and found.asked.task != "binary"):
        return None
    example = Sample("", np.zeros(next(iter(shapes.values())), np.float32), np.zeros((), np.int32))
    outline = Outline(found.channels, found.dimensions, [str(k) for k in range(classes)], [example])
    held_as = np.dtype(facts["dtypes"][0]["value"] if facts["dtypes"] else np.float32)
    step, forward, steps = _timed(found.kind, outline, found.asked)
    pixels = {s: found.pixels(s) for s in shapes}
    held = [n for s, n in pixels.items() if found.index.split.get(s) == "validation"]
    judged = sum(held) + _CHECKPOINTS * _WATCHED * (sum(held) / len(held) if held else 0)
    return {
        "seconds_per_step": step,
        "steps": steps,
        "seconds_per_trial": steps * step + judged * forward,
        "at_once": torch.get_num_threads(),
        "bytes": sum(pixels.values()) * (found.channels * held_as.itemsize + 1),
        "how": f"the quickest of {_TIMED} training steps on one core of this machine; held-back images by pixels; "
        f"pixels as {held_as}, labels in one byte; what memory has no room for streams from disk",
    }


def _timed(kind: Kind, outline: Outline, asked: Asked) -> tuple[float, float, int]:
    """Seconds of a training step, and of predicting one pixel, on one core; and the steps of a trial."""
    settings = kind.settings(outline, asked)
    space = [settings.crop] * outline.dimensions if settings.crop else list(outline.train[0].image.shape[1:])
    image = torch.zeros(settings.batch, outline.channels, *space)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            model = kind.network(outline, settings)
        steps, forwards = zip(*(_step(model, image) for _ in range(1 + _TIMED)), strict=True)
    finally:
        torch.set_num_threads(threads)
    return min(steps[1:]), min(forwards[1:]) / image[:, 0].numel(), settings.steps


def _step(model: nn.Module, image: torch.Tensor) -> tuple[float, float]:
    begin = time.process_time()
    output = model(image)
    middle = time.process_time()
    output.square().mean().backward()
    return time.process_time() - begin, middle - begin
