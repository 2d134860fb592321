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


@torch.inference_mode()
def predict(model: nn.Module, sample: Sample, settings: RunSettings) -> Array:
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
