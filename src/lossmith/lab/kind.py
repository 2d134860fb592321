"""Kind: all that the lab asks of a kind of data. The kinds themselves are in kinds/, one a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.stored import Watch
from lossmith.lab.say.curves import Curve
from lossmith.lab.say.metrics import MetricSet
from lossmith.lab.say.ranking import LossRanking
from lossmith.lab.settings import USUAL_RATE, Asked, RunSettings

Array = np.ndarray[Any, Any]
Trials = list[dict[str, Any]]
Predictions = dict[str, dict[str, Array]]  # by trial hash, then by image stem
Judgement = tuple[dict[str, Any] | None, dict[str, Array]]


class ParsedLoss(NamedTuple):
    """What the text of a loss means in a run, and in words what was counted from the data for it; "" for nothing."""

    loss: nn.Module
    counted: str = ""


class CropPlan(Protocol):
    """What each step of a trial shows, drawn from the seed alone."""

    checksum: str

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Images, and what the loss is called with beside the network's output for them."""


class Kind:
    """A kind of data: how a folder of it is read, what trains on it, how that is judged, what its page says.

    `data` is whatever `read` gives, with `train`, `validation` (a list of things with a `stem`), `classes`, `source`
    and `fingerprint`. A kind must say what stands without a default; the rest is what most want.
    """

    name: ClassVar[str]  # in results.json
    metrics: MetricSet
    template: str = '{% extends "compare.html" %}'  # the page, in Jinja; see page/compare.html
    # What is repeated on the page, beside the losses and how many seeds they get.
    options: ClassVar[tuple[str, ...]] = ("steps", "crop", "batch", "lr", "device", "precision", "clip")
    steps: ClassVar[int] = 200
    call: str = ""  # what makes the comparison again, where no command line does

    def recognises(self, folder: Path) -> bool:
        """Whether a folder holds this kind of data."""
        raise NotImplementedError

    def faults(self, folder: Path, asked: Asked) -> list[Fault]:
        """Everything that is wrong in a folder, of which `read` raises the first that is fatal."""
        raise NotImplementedError

    def read(self, folder: Path, asked: Asked, watch: Watch = lambda *_: None) -> Any:
        """The data; `watch(done, total)` hears of each image. Raises `UserError` for a fatal fault, and for an option
        that means nothing here.
        """
        raise NotImplementedError

    def sizes(self, data: Any) -> tuple[int, int, tuple[int, ...]]:
        """The usual side of the crops, crops in a step and features of the network, for minutes on a CPU."""
        raise NotImplementedError

    def settings(self, data: Any, asked: Asked) -> RunSettings:
        """What all trials share: what was asked, else what is usual."""
        crop, batch, features = self.sizes(data)
        return RunSettings(
            data=asked.data,
            fingerprint=data.fingerprint,
            task=asked.task,
            steps=asked.steps or self.steps,
            crop=asked.crop or crop,
            batch=asked.batch or batch,
            lr=asked.lr or USUAL_RATE,
            ignore_index=asked.ignore_index,
            pages=asked.pages,
            group_by=asked.group_by,
            folds=asked.folds,
            device=asked.device,
            devices=asked.devices,
            model=asked.model,
            precision=asked.precision,
            clip=asked.clip,
            features=features,
        )

    def parse(self, text: str, settings: RunSettings, data: Any) -> ParsedLoss:
        """What the text of a loss means here. Raises `UserError` in one line for one that cannot train."""
        try:
            return ParsedLoss(ls.parse(text))
        except (ValueError, TypeError) as error:
            raise UserError(f'--loss "{text}": {str(error).splitlines()[0]}') from error

    def remarks(self, parsed: ParsedLoss, data: Any) -> list[str]:
        """What the user should know of a loss before it trains."""
        return [parsed.counted] if parsed.counted else []

    def network(self, data: Any, settings: RunSettings) -> nn.Module:
        """Built anew for every trial; the seed of torch is set."""
        raise NotImplementedError

    def held_back_by(self, seed: int, data: Any, settings: RunSettings) -> Any:
        """The data as a seed splits them: in folds if they were asked for."""
        return data.fold(seed % settings.folds, settings.folds) if settings.folds else data

    def optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """What moves the weights, built anew for every trial."""
        return torch.optim.AdamW(parameters, lr=lr)

    def crops(self, data: Any, settings: RunSettings, seed: int) -> CropPlan:
        """What each step shows."""
        raise NotImplementedError

    def watched(self, data: Any) -> list[Any]:
        """The held-back images that are followed during training."""
        return list(data.validation)

    def judge(self, model: nn.Module, loss: nn.Module, data: Any, settings: RunSettings) -> Judgement:
        """The trial's record of the held-back images, with `metrics` and `per_class`, and predictions by stem.

        None where an output is not finite.
        """
        raise NotImplementedError

    def quick_score(self, model: nn.Module, loss: nn.Module, data: Any, settings: RunSettings) -> float:
        """The metric that losses are ranked by, on the watched images."""
        evaluation, _ = self.judge(model, loss, data, settings)
        return self.last_score(evaluation, data) if evaluation else 0.0

    def last_score(self, evaluation: dict[str, Any], data: Any) -> float:
        """The same out of a finished judgement."""
        return float(evaluation["metrics"][self.metrics.ranked_by])

    def gradient(self, loss: nn.Module, output: Tensor, target: Tensor, settings: RunSettings) -> dict[str, Any]:
        """What is recorded of a few steps: who owns the gradient, `output.grad`; see run/owners.py."""
        return {}

    def trivial(self, data: Any) -> dict[str, float]:
        """What those score that know nothing: `nothing` finds nothing anywhere, `everything` all that there is."""
        raise NotImplementedError

    def facts(self, data: Any) -> dict[str, Any]:
        """What results.json says of the data."""
        images = {"train": len(data.train), "validation": len(data.validation)}
        return {"classes": data.classes, "images": images, "kind": self.name}

    def verdict(
        self, ranking: LossRanking, trials: Trials, predictions: Predictions, data: Any
    ) -> tuple[str, dict[str, Any]]:
        """The headline, and what results.json gets beside the ranking."""
        return ranking.headline, {}

    def curve(self, loss: nn.Module, data: Any, settings: RunSettings) -> Curve | None:
        """The loss itself, to be drawn; None where there is nothing to draw."""
        return None

    def page(
        self, ranking: LossRanking, results: dict[str, Any], predictions: Predictions, data: Any
    ) -> dict[str, Any]:
        """What the template needs beside what every page has."""
        return {}
