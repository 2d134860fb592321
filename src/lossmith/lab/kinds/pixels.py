"""Images or volumes with masks: a label for each pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from lossmith.lab import UserError
from lossmith.lab.data.classes import one_sided
from lossmith.lab.data.faults import Fault, raise_first
from lossmith.lab.data.index import MASKS, part_of
from lossmith.lab.data.labelled import Data, add_unlabelled, faults_of_pixels, read_pixels
from lossmith.lab.data.samples import Sample
from lossmith.lab.data.stored import Watch
from lossmith.lab.kind import CropPlan, Judgement, Kind, ParsedLoss, Predictions, Trials
from lossmith.lab.page.examples import class_row, median_example, tables
from lossmith.lab.run.crops import LabelledCrops
from lossmith.lab.run.losses import Labelling, parse_loss, reads_unlabelled
from lossmith.lab.run.model import build, check, from_text
from lossmith.lab.run.owners import owners, parts
from lossmith.lab.run.predict import predict
from lossmith.lab.say import curves
from lossmith.lab.say.bootstrap import by_image, over_images
from lossmith.lab.say.metrics import (
    SEGMENTATION,
    Calibration,
    confusions,
    pooled_dice,
    score_image,
    trivial_dice,
)
from lossmith.lab.say.ranking import LossRanking
from lossmith.lab.settings import Asked, RunSettings
from lossmith.loss import Loss

Array = np.ndarray[Any, Any]

_CHECKPOINT_IMAGES = 2


class PixelKind(Kind):
    """Images or volumes with masks; and what they share with images that have one label each."""

    name = "segmentation"
    metrics = SEGMENTATION
    template = '{% extends "pixels.html" %}'
    options = (
        *("task", "model", "steps", "crop", "batch", "lr", "ignore_index", "device", "devices", "precision", "clip"),
        *("unlabelled", "unlabelled_batch", "pages", "group_by", "folds"),
    )

    def recognises(self, folder: Path) -> bool:
        return (folder / part_of(folder, MASKS)).is_dir()

    def faults(self, folder: Path, asked: Asked) -> list[Fault]:
        return faults_of_pixels(folder, asked.task, asked.ignore_index, asked.group_by, asked.pages)

    def read(self, folder: Path, asked: Asked, watch: Watch = lambda *_: None) -> Data:
        self.check(asked)
        data = read_pixels(folder, asked.data, asked.task, asked.ignore_index, asked.group_by, watch, asked.pages)
        for part in [data.fold(k, asked.folds) for k in range(asked.folds)] if asked.folds else [data]:
            sides = {"train": part.train, "validation": part.validation}
            seen = {side: [set(s.pixels) for s in samples] for side, samples in sides.items()}
            faults = one_sided(folder, seen, asked.ignore_index)
            if faults and asked.folds:
                both = part.train + part.validation
                holding = {data.groups.get(x.stem, x.stem) for x in both if set(x.pixels) - {0, asked.ignore_index}}
                fix = f"give {len(holding)} at most" if len(holding) > 1 else "drop --folds"
                raise UserError(f"--folds {asked.folds}: some hold no class but the background; {fix}")
            raise_first(faults)
        if not asked.folds:  # with folds each image is held back once
            fix = "choose both sides in split.csv so that each holds it"
            said = [Fault(folder, f"{name!r} {where}", fix, fatal=False) for name, where in data.one_sided().items()]
            data = replace(data, notices=[*data.notices, *map(str, said)])
        return add_unlabelled(data, asked.unlabelled, watch) if asked.unlabelled else data

    def check(self, asked: Asked) -> None:
        """Raises `UserError` for an option that means nothing here."""
        if asked.quality:
            raise UserError(f"--quality {asked.quality}: {asked.data} has no boxes.csv; drop --quality")
        if asked.unlabelled_batch and not asked.unlabelled:
            raise UserError(f"--unlabelled-batch {asked.unlabelled_batch}: give the folder too: --unlabelled FOLDER")

    def sizes(self, data: Data) -> tuple[int, int, tuple[int, ...]]:
        return (128, 8, RunSettings.features) if data.dimensions == 2 else (32, 4, (16, 32, 64, 128))

    def settings(self, data: Data, asked: Asked) -> RunSettings:
        settings = super().settings(data, asked)
        if asked.folds:
            data.fold(0, asked.folds)  # says now if that are too many
        if asked.unlabelled:
            batch = asked.unlabelled_batch or settings.batch
            settings = replace(settings, unlabelled=str(asked.unlabelled), unlabelled_batch=batch)
        if settings.model:
            image, label = (x[:2] for x in self.crops(data, replace(settings, steps=1), 0).batch(0))
            expected = (len(label), self.channels(data, settings), *label.shape[1:])
            check(lambda: self.own_network(data, settings), self.model_name(settings), image, expected)
        return settings

    def parse(self, text: str, settings: RunSettings, data: Data) -> ParsedLoss:
        return parse_loss(text, settings, data, self.labelling(data))

    def labelling(self, data: Data) -> Labelling:
        """What is labelled."""
        label = torch.zeros(2, *[32] * data.dimensions, dtype=torch.long)
        label[:, 8:16, 8:16] = 1
        return Labelling("pixels", True, label, lambda: data.counts(data.train))

    def remarks(self, parsed: ParsedLoss, data: Data) -> list[str]:
        said = super().remarks(parsed, data)
        if data.unlabelled and not reads_unlabelled(cast(Loss, parsed.loss)):
            said.append("reads labels only; the unlabelled images change nothing for it")
        return said

    def network(self, data: Data, settings: RunSettings) -> nn.Module:
        if settings.model:
            return self.own_network(data, settings)
        channels, strides = self.channels(data, settings), [2] * (len(settings.features) - 1)
        if data.dimensions == 3:  # wide but coarse: in a volume the full resolution costs the time
            return UNet(3, data.channels, channels, settings.features, strides, num_res_units=1)
        return BasicUNet(2, data.channels, channels, settings.features)

    def own_network(self, data: Data, settings: RunSettings) -> nn.Module:
        """What `--model` means."""
        channels = self.channels(data, settings)
        return build(
            from_text(str(settings.model)), self.model_name(settings), data.channels, channels, data.dimensions
        )

    def model_name(self, settings: RunSettings) -> str:
        """What errors call it."""
        return f"--model {settings.model}"

    def channels(self, data: Data, settings: RunSettings) -> int:
        """Of the network's output."""
        return 1 if settings.task == "binary" else len(data.classes)

    def crops(self, data: Data, settings: RunSettings, seed: int) -> CropPlan:
        return LabelledCrops(data, settings, seed)

    def watched(self, data: Data) -> list[Sample]:
        """Two, evenly spread over those that hold a class."""
        holds: Array = data.counts(data.validation)[:, 1:].sum(1) > 0
        images = [s for s, held in zip(data.validation, holds, strict=True) if held] or data.validation
        stride = max(1, len(images) // _CHECKPOINT_IMAGES)
        return images[stride - 1 :: stride][:_CHECKPOINT_IMAGES]

    def quick_score(self, model: nn.Module, loss: nn.Module, data: Data, settings: RunSettings) -> float:
        classes, watched = len(data.classes), self.watched(data)
        found = ((s.label, predict(model, s, settings).argmax(0)) for s in watched)
        return _pooled([confusions(a, b, classes, settings.ignore_index) for a, b in found], self.cases(data, watched))

    def last_score(self, evaluation: dict[str, Any], data: Data) -> float:
        watched = self.watched(data)
        return _pooled([evaluation["images"][s.stem]["counts"] for s in watched], self.cases(data, watched))

    def judge(self, model: nn.Module, loss: nn.Module, data: Data, settings: RunSettings) -> Judgement:
        classes = len(data.classes)
        calibration = Calibration(classes, settings.ignore_index)
        images: dict[str, dict[str, Any]] = {}
        predictions: dict[str, Array] = {}
        for sample in data.validation:
            probabilities = predict(model, sample, settings)
            if not np.isfinite(probabilities).all():
                return None, {}
            seen = probabilities.argmax(0).astype(np.uint8 if classes <= 256 else np.int32)
            predictions[sample.stem] = seen
            images[sample.stem] = {
                **score_image(sample.label, seen, classes, settings.ignore_index),
                "counts": confusions(sample.label, seen, classes, settings.ignore_index).tolist(),
            }
            calibration.add(sample.label, probabilities)
        per_class = _per_class(images, self.cases(data, data.validation))
        per_class["calibration_error"] = calibration.errors()[1:]
        metrics = {name: _mean(per_class[name]) for name in self.metrics.titles if name in per_class}
        return {"metrics": metrics, "per_class": per_class, "images": images}, predictions

    def cases(self, data: Data, samples: list[Sample]) -> list[str]:
        """What each image is counted together with: its patient, itself if it is a volume, else all the others."""
        return [data.groups.get(s.stem, s.stem if data.dimensions == 3 else "") for s in samples]

    def gradient(self, loss: nn.Module, output: Tensor, target: Tensor, settings: RunSettings) -> dict[str, Any]:
        assert output.grad is not None
        shares = owners(output, output.grad, target, settings.ignore_index)
        return {**shares, "parts": parts(loss, output, target)}

    def trivial(self, data: Data) -> dict[str, float]:
        labels = (s.label for s in data.validation)
        return trivial_dice(labels, self.cases(data, data.validation), len(data.classes), data.ignore_index)

    def verdict(
        self, ranking: LossRanking, trials: Trials, predictions: Predictions, data: Data
    ) -> tuple[str, dict[str, Any]]:
        stems, counts = self.counted(ranking, trials, predictions, data)
        units, what = [data.groups.get(stem, stem) for stem in stems], "patients" if data.groups else "images"
        together = len(set(self.cases(data, data.validation))) == 1
        return ranking.headline, {"over_images": over_images(ranking, counts, units, together, what)}

    def counted(
        self, ranking: LossRanking, trials: Trials, predictions: Predictions, data: Data
    ) -> tuple[list[str], dict[str, list[Array]]]:
        """The held-back images, and of every loss that is ranked what its seeds found in them; see `by_image`."""
        found: dict[str, list[dict[str, Any]]] = {row.loss: [] for row in ranking.rows}
        for trial in trials:
            if trial["seed"] in ranking.seeds and trial["metrics"]:
                found[trial["loss"]].append(self.counts(trial, predictions, data))
        return by_image(found)

    def counts(self, trial: dict[str, Any], predictions: Predictions, data: Data) -> dict[str, Any]:
        """By held-back image the hits, false alarms and misses of a trial, (classes, 3); {} if they are not known."""
        return {stem: image["counts"] for stem, image in trial["images"].items()}

    def facts(self, data: Data) -> dict[str, Any]:
        facts = super().facts(data)
        facts["images"]["unlabelled"] = len(data.unlabelled)
        return {**facts, "dimensions": data.dimensions, "class_shares": data.shares(), "one_sided": data.one_sided()}

    def curve(self, loss: nn.Module, data: Data, settings: RunSettings) -> curves.Curve | None:
        return curves.sample(loss, self.channels(data, settings))

    def page(
        self, ranking: LossRanking, results: dict[str, Any], predictions: Predictions, data: Data
    ) -> dict[str, Any]:
        trials, ignored = results["trials"], results["settings"]["ignore_index"]
        return {
            "judged": data.classes[1:],
            "case": "patient" if data.groups else "volume" if data.dimensions == 3 else "set of held-back images",
            "per_class": [class_row(row, trials, ranking) for row in ranking.rows if row.seeds],
            "tables": tables(data, *self.counted(ranking, trials, predictions, data)),
            "example": median_example(ranking, trials, data, predictions, ignored),
        }


def _per_class(images: dict[str, dict[str, Any]], cases: list[str]) -> dict[str, list[float | None]]:
    """The metrics of each class from those of the images; None for a class without a number."""
    counts = np.array([image["counts"] for image in images.values()])
    holds, found = counts[..., 0] + counts[..., 2] > 0, counts[..., 0] + counts[..., 1] > 0
    per_class: dict[str, list[float | None]] = {
        "dice": [_number(v) for v in pooled_dice(counts, cases)],
        "missed": [_share(holds[:, k] & ~found[:, k], holds[:, k]) for k in range(holds.shape[1])],
        "invented": [_share(~holds[:, k] & found[:, k], ~holds[:, k]) for k in range(holds.shape[1])],
    }
    for name in ("dice_per_image", "iou", "hd95", "boundary_dice"):
        values = np.array([image[name] for image in images.values()])
        per_class[name] = [
            _number(values[holds[:, k], k].mean()) if holds[:, k].any() else None for k in range(holds.shape[1])
        ]
    whole = [image["generalised_dice"][0] for image, here in zip(images.values(), holds.any(1), strict=True) if here]
    per_class["generalised_dice"] = [float(np.mean(whole)) if whole else None]
    return per_class


def _share(part: Array, whole: Array) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _pooled(counts: list[Any], cases: list[str]) -> float:
    return _mean([_number(v) for v in pooled_dice(np.array(counts), cases)]) or 0.0


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


KIND = PixelKind()
