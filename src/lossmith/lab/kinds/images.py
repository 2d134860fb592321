"""Images with a label each, in labels.csv: they are classified as wholes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets.classifier import Classifier
from torch import nn

from lossmith.lab import UserError
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.index import MASKS, part_of
from lossmith.lab.data.labelled import Data, faults_of_labels, read_labels
from lossmith.lab.data.samples import Sample
from lossmith.lab.data.stored import Watch
from lossmith.lab.kind import Judgement, Predictions
from lossmith.lab.kinds.pixels import PixelKind
from lossmith.lab.page.examples import class_row, confusion, tables
from lossmith.lab.run.losses import Labelling
from lossmith.lab.run.predict import predict_labels
from lossmith.lab.say import curves
from lossmith.lab.say.metrics import CLASSIFICATION, score_classes
from lossmith.lab.say.ranking import LossRanking
from lossmith.lab.settings import Asked, RunSettings

Array = np.ndarray[Any, Any]


class ImageKind(PixelKind):
    """A label without axes is read, counted, shown and taught like a map of them; what differs stands here."""

    name = "classification"
    metrics = CLASSIFICATION
    template = '{% extends "images.html" %}'

    def recognises(self, folder: Path) -> bool:
        return (folder / "labels.csv").is_file() and not (folder / part_of(folder, MASKS)).is_dir()

    def faults(self, folder: Path, asked: Asked) -> list[Fault]:
        return faults_of_labels(folder, asked.task, asked.ignore_index, asked.group_by)

    def read(self, folder: Path, asked: Asked, watch: Watch = lambda *_: None) -> Data:
        self.check(asked)
        data = read_labels(folder, asked.data, asked.task, asked.ignore_index, asked.group_by, watch)
        if asked.unlabelled:
            raise UserError(
                f"--unlabelled {asked.unlabelled}: {asked.data} has a label for each whole image, no masks; drop it"
            )
        if asked.crop:
            raise UserError(f"--crop {asked.crop}: {asked.data} has a label for each whole image; drop --crop")
        return data

    def sizes(self, data: Data) -> tuple[int, int, tuple[int, ...]]:
        return 0, 32, (8, 16, 32, 64)

    def labelling(self, data: Data) -> Labelling:
        # An image holds one class only: frequencies per image would say nothing.
        return Labelling("images", False, torch.tensor([0, 1]), lambda: data.counts(data.train).sum(0, keepdims=True))

    def network(self, data: Data, settings: RunSettings) -> nn.Module:
        if settings.model:
            return self.own_network(data, settings)
        shape, strides = data.train[0].shape, [2] * len(settings.features)
        channels = self.channels(data, settings)
        return Classifier(shape, channels, settings.features, strides, num_res_units=1, norm="batch")

    def trivial(self, data: Data) -> dict[str, float]:
        """`nothing` says the commonest class of the training images of all, `everything` draws at random by shares."""
        label = np.stack([s.label for s in data.validation if s.label != data.ignore_index])
        shares = self.labelling(data).counts().sum(0) / self.labelling(data).counts().sum()
        commonest = np.zeros((len(data.classes), len(label)))
        commonest[shares.argmax()] = 1
        constant, _, _ = score_classes(label, commonest)
        here = np.bincount(label, minlength=len(shares)) / len(label)
        drawn = [2 * a * b / (a + b) for a, b in zip(shares, here, strict=True) if a + b > 0]
        return {"nothing": constant["f1"] or 0.0, "everything": float(np.mean(drawn))}

    def watched(self, data: Data) -> list[Sample]:
        return data.validation

    def quick_score(self, model: nn.Module, loss: nn.Module, data: Data, settings: RunSettings) -> float:
        metrics, _, _ = score_classes(*predict_labels(model, data.validation, settings))
        return float(metrics["f1"] or 0.0)

    def last_score(self, evaluation: dict[str, Any], data: Data) -> float:
        return float(evaluation["metrics"]["f1"])

    def judge(self, model: nn.Module, loss: nn.Module, data: Data, settings: RunSettings) -> Judgement:
        label, probabilities = predict_labels(model, data.validation, settings)
        if not np.isfinite(probabilities).all():
            return None, {}
        metrics, per_class, confusions = score_classes(label, probabilities)
        evaluation = {"metrics": metrics, "per_class": per_class, "confusion": confusions.tolist()}
        return evaluation, {"predicted": probabilities.argmax(0)}

    def cases(self, data: Data, samples: Sequence[Sample]) -> list[str]:
        return [""] * len(samples)

    def counts(self, trial: dict[str, Any], predictions: Predictions, data: Data) -> dict[str, Any]:
        folds = trial["settings"]["folds"]
        held_back = data.fold(trial["seed"] % folds, folds).validation if folds else data.validation
        kept = [s for s in held_back if s.label != data.ignore_index]
        stored = predictions.get(trial["hash"])
        if stored is None or len(stored["predicted"]) != len(kept):
            return {}
        truth, found = np.eye(len(data.classes), dtype=bool)[
            np.stack([np.array([s.label for s in kept]), stored["predicted"]])
        ]
        counts = np.stack([truth & found, found & ~truth, truth & ~found], 2)
        return dict(zip([s.stem for s in kept], counts, strict=True))

    def curve(self, loss: nn.Module, data: Data, settings: RunSettings) -> curves.Curve | None:
        return curves.sample(loss, self.channels(data, settings), pixels=False)

    def page(
        self, ranking: LossRanking, results: dict[str, Any], predictions: Predictions, data: Data
    ) -> dict[str, Any]:
        finished = [row for row in ranking.rows if row.seeds]
        return {
            "judged": data.classes,
            "per_class": [class_row(row, results["trials"], ranking) for row in finished],
            "tables": tables(data, *self.counted(ranking, results["trials"], predictions, data)),
            "confusions": [confusion(row, results["trials"]) for row in finished],
        }


KIND = ImageKind()
