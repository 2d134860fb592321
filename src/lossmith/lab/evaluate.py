"""The network's answers on the held-back images, and what they are worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from lossmith.lab.data import Data, Sample
from lossmith.lab.metrics import Calibration, dice_per_class, score_classes, score_image, scores_of
from lossmith.lab.plan import Settings

Array = np.ndarray[Any, Any]

_CHECKPOINT_IMAGES = 2
_MULTIPLE = 16  # four times halved by the network
_SMALLEST = 32
_AT_ONCE = 64
_OVERLAP = 0.5


def watched(data: Data) -> list[Sample]:
    """The held-back images that are followed during training: two, evenly spread; all if each has one label."""
    if data.kind == "classification":
        return data.validation
    stride = max(1, len(data.validation) // _CHECKPOINT_IMAGES)
    return data.validation[stride - 1 :: stride][:_CHECKPOINT_IMAGES]


def quick_score(model: nn.Module, data: Data, settings: Settings) -> float:
    """The metric that losses are ranked by, on the watched images."""
    samples, classes = watched(data), len(data.classes)
    if data.kind == "classification":
        label, probabilities = predict_labels(model, samples, settings)
        metrics, _, _ = score_classes(label, probabilities)
        return float(metrics["f1"] or 0.0)
    found = ((s.label, predict(model, s, settings).argmax(0)) for s in samples)
    return float(np.mean([dice_per_class(label, seen, classes, settings.ignore_index) for label, seen in found]))


def last_score(evaluation: dict[str, Any], data: Data) -> float:
    """The same out of a finished evaluation."""
    if data.kind == "classification":
        return float(evaluation["metrics"]["f1"])
    return float(np.mean([evaluation["images"][s.stem]["dice"] for s in watched(data)]))


def evaluate(model: nn.Module, data: Data, settings: Settings) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    """Every metric over the held-back images, and the predicted labels by stem; None if an output is not finite."""
    return (_evaluate_labels if data.kind == "classification" else _evaluate_pixels)(model, data, settings)


@torch.inference_mode()
def predict(model: nn.Module, sample: Sample, settings: Settings) -> Array:
    """Probabilities (classes, *S) of one whole image; a single-channel network gives background and foreground."""
    space = sample.label.shape
    image = torch.from_numpy(sample.image[None]).to(settings.device)
    model.eval()
    if len(space) == 3:
        # Volumes do not fit at once, and the network normalises by what it sees: it is shown what it was trained on.
        logits = sliding_window_inference(image, [settings.crop] * 3, settings.batch, model, _OVERLAP, mode="gaussian")
    else:
        missing = [max(_SMALLEST, math.ceil(n / _MULTIPLE) * _MULTIPLE) - n for n in space]
        logits = model(nn.functional.pad(image, (0, missing[1], 0, missing[0]), mode="replicate"))
    model.train()
    inside = tuple(slice(n) for n in space)
    return _probabilities(logits[0][:, *inside].float(), settings)


@torch.inference_mode()
def predict_labels(model: nn.Module, samples: list[Sample], settings: Settings) -> tuple[Array, Array]:
    """Labels (n,) and probabilities (classes, n) of images that have one label each, the ignored left out."""
    kept = [s for s in samples if s.label != settings.ignore_index]
    model.eval()
    parts = [
        model(torch.from_numpy(np.stack([s.image for s in kept[i : i + _AT_ONCE]])).to(settings.device)).float()
        for i in range(0, len(kept), _AT_ONCE)
    ]
    model.train()
    return np.stack([s.label for s in kept]), _probabilities(torch.cat(parts).T, settings)


def _probabilities(logits: Tensor, settings: Settings) -> Array:
    if settings.task == "binary":
        foreground = logits[0].sigmoid()
        return np.asarray(torch.stack([1 - foreground, foreground]).cpu())
    return np.asarray(logits.softmax(0).cpu())


def _evaluate_pixels(
    model: nn.Module, data: Data, settings: Settings
) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    classes = len(data.classes)
    calibration = Calibration(classes, settings.ignore_index)
    images: dict[str, dict[str, list[float]]] = {}
    predictions: dict[str, Array] = {}
    for sample in data.validation:
        probabilities = predict(model, sample, settings)
        if not np.isfinite(probabilities).all():
            return None, {}
        predictions[sample.stem] = probabilities.argmax(0).astype(np.uint8 if classes <= 256 else np.int32)
        images[sample.stem] = score_image(sample.label, predictions[sample.stem], classes, settings.ignore_index)
        calibration.add(sample.label, probabilities)
    names = scores_of(data.kind).titles
    per_class: dict[str, list[float | None]] = {
        name: np.mean([scores[name] for scores in images.values()], axis=0).tolist()
        for name in names
        if name != "calibration_error"
    }
    per_class["calibration_error"] = calibration.errors()[1:]
    metrics = {name: _mean(per_class[name]) for name in names}
    return {"metrics": metrics, "per_class": per_class, "images": images}, predictions


def _evaluate_labels(
    model: nn.Module, data: Data, settings: Settings
) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    label, probabilities = predict_labels(model, data.validation, settings)
    if not np.isfinite(probabilities).all():
        return None, {}
    metrics, per_class, confusion = score_classes(label, probabilities)
    evaluation = {"metrics": metrics, "per_class": per_class, "confusion": confusion.tolist()}
    return evaluation, {"predicted": probabilities.argmax(0)}


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
