"""What a network says of held-back images: probabilities of their pixels, or of the images as wholes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from lossmith.lab.data.samples import Sample
from lossmith.lab.settings import RunSettings

Array = np.ndarray[Any, Any]

_MULTIPLE = 16  # four times halved by the network
_SMALLEST = 32
_AT_ONCE = 64
_OVERLAP = 0.5


def predict(model: nn.Module, sample: Sample, settings: RunSettings) -> Array:
    """Probabilities (classes, *S) of one whole image; a single-channel network gives background and foreground."""
    return _probabilities(logits_of(model, sample, settings), settings)


@torch.inference_mode()
def logits_of(model: nn.Module, sample: Sample, settings: RunSettings) -> Tensor:
    """What a network gives for one whole image, (channels, *S) float32."""
    space = sample.label.shape
    image = torch.from_numpy(sample.image[None]).to(settings.device)
    model.eval()
    if not space or (settings.model and not settings.crop):
        logits = model(image)
    elif len(space) == 3 or settings.model:
        # Volumes do not fit at once, and a network normalises by what it sees, or takes images of one size alone: it
        # is shown what it was trained on.
        window = [settings.crop] * len(space)
        logits = sliding_window_inference(image, window, settings.batch, model, _OVERLAP, mode="gaussian")
    else:
        missing = [max(_SMALLEST, math.ceil(n / _MULTIPLE) * _MULTIPLE) - n for n in space]
        logits = model(nn.functional.pad(image, (0, missing[1], 0, missing[0]), mode="replicate"))
    model.train()
    inside = tuple(slice(n) for n in space)
    found: Tensor = logits[0][:, *inside].float()
    return found


@torch.inference_mode()
def predict_labels(model: nn.Module, samples: list[Sample], settings: RunSettings) -> tuple[Array, Array]:
    """Labels (n,) and probabilities (classes, n) of images that have one label each, the ignored left out."""
    kept = [s for s in samples if s.label != settings.ignore_index]
    model.eval()
    parts = [
        model(torch.from_numpy(np.stack([s.image for s in kept[i : i + _AT_ONCE]])).to(settings.device)).float()
        for i in range(0, len(kept), _AT_ONCE)
    ]
    model.train()
    return np.stack([s.label for s in kept]), _probabilities(torch.cat(parts).T, settings)


def _probabilities(logits: Tensor, settings: RunSettings) -> Array:
    if settings.task == "binary":
        foreground = logits[0].sigmoid()
        return np.asarray(torch.stack([1 - foreground, foreground]).cpu())
    return np.asarray(logits.softmax(0).cpu())
