"""One trial: one loss, one seed. Only the loss differs between the trials of a seed.

The seed alone decides the initial weights and every crop; both leave a checksum in the trial's record.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor, nn

from lossmith.lab.data import Data, Sample
from lossmith.lab.metrics import METRICS, Calibration, dice_per_class, score_image

Array = np.ndarray[Any, Any]

_EPOCHS = 100  # a schedule's epoch is this share of a run, whatever its number of steps
_CHECKPOINTS = 5
_CHECKPOINT_IMAGES = 2
_MOST_POINTS = 200
_WARM_UP_STEPS = 3
_MULTIPLE = 16  # four times halved by the network
_SMALLEST = 32
_RANDOM_STATE = threading.Lock()  # torch's random state is one for all threads


@dataclass(frozen=True)
class Settings:
    """What all trials of one comparison share."""

    data: str
    fingerprint: str
    task: str
    steps: int
    crop: int
    batch: int
    lr: float
    ignore_index: int
    device: str
    features: tuple[int, ...] = (8, 8, 16, 32, 64, 8)

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON would read them back."""
        return {**asdict(self), "features": list(self.features)}


def run_trial(
    loss: nn.Module, seed: int, data: Data, settings: Settings, on_step: Callable[[int], None]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Train with one loss from one seed; several may run at once, in threads.

    Returns the record of the trial (plain JSON values) and the predicted labels of every held-back image by stem.
    A loss or gradient that is not finite ends the training there: `record["diverged"]` says at which step.
    """
    started = time.perf_counter()
    device = torch.device(settings.device)
    fabric = Fabric(accelerator=device.type, devices=1)
    with _RANDOM_STATE:
        torch.manual_seed(seed)
        network = BasicUNet(
            spatial_dims=2,
            in_channels=data.channels,
            out_channels=1 if settings.task == "binary" else len(data.classes),
            features=settings.features,
        )
    weights = checksum(*(p.detach().numpy() for p in network.parameters()))
    model, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=settings.lr))
    # Without a decay the last steps decide too much, and seeds differ more than losses do.
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    loss = loss.to(device)
    next_epoch: Callable[[], None] = getattr(loss, "step", lambda: None)
    crops = Crops(data.train, settings, seed)
    checkpoints = {math.ceil(settings.steps * (i + 1) / _CHECKPOINTS) for i in range(_CHECKPOINTS)}
    watched = _watched(data)
    losses: list[float] = []
    step_times: list[float] = []
    loss_times: list[float] = []
    course: dict[str, list[Any]] = {"step": [], "dice": [], "images": [s.stem for s in watched]}
    start_norm: float | None = None
    diverged: dict[str, Any] | None = None

    for step in range(1, settings.steps + 1):
        image, label = (fabric.to_device(x) for x in crops.batch(step - 1))
        begin = _clock(device)
        logits = model(image)
        before = _clock(device)
        # The backward pass is cut at the logits, where it passes anyway, so that the loss's part can be timed.
        leaf = logits.detach().requires_grad_()
        value = loss(leaf, label)
        value.backward()
        after = _clock(device)
        optimizer.zero_grad()
        fabric.backward(logits, gradient=leaf.grad)
        number = value.item()
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()
        if step == 1:
            start_norm = norm if math.isfinite(norm) else None
        if not (math.isfinite(number) and math.isfinite(norm)):
            diverged = {"step": step, "what": "gradient" if math.isfinite(number) else "loss"}
            break
        optimizer.step()
        decay.step()
        end = _clock(device)
        losses.append(number)
        step_times.append(end - begin)
        loss_times.append(after - before)
        if step * _EPOCHS // settings.steps > (step - 1) * _EPOCHS // settings.steps:
            next_epoch()
        if step in checkpoints and step < settings.steps:
            course["step"].append(step)
            found = ((s.label, predict(model, s, settings).argmax(0)) for s in watched)
            scores = [dice_per_class(label, seen, len(data.classes), settings.ignore_index) for label, seen in found]
            course["dice"].append(float(np.mean(scores)))
        on_step(step)

    evaluation, predictions = (None, {}) if diverged else evaluate(model, data, settings)
    if evaluation:
        course["step"].append(settings.steps)
        course["dice"].append(float(np.mean([evaluation["images"][s.stem]["dice"] for s in watched])))
    elif diverged is None:
        diverged = {"step": settings.steps, "what": "prediction"}
    # The first steps compile, allocate and warm up; they would tell about the machine, not about the loss.
    skip = _WARM_UP_STEPS if len(step_times) > 2 * _WARM_UP_STEPS else 0
    record = {
        "seed": seed,
        "weights_checksum": weights,
        "crops_checksum": crops.checksum,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gradient_norm_at_start": start_norm,
        "diverged": diverged,
        "training": _thinned(losses),
        "validation": course,
        "ms_per_step": 1000 * float(np.median(step_times[skip:])) if step_times else None,
        "ms_in_loss": 1000 * float(np.median(loss_times[skip:])) if loss_times else None,
        "seconds": time.perf_counter() - started,
        **(evaluation or {"metrics": None, "per_class": None, "images": None}),
    }
    return record, predictions


def _watched(data: Data) -> list[Sample]:
    """The held-back images whose Dice is followed during training: two, evenly spread."""
    stride = max(1, len(data.validation) // _CHECKPOINT_IMAGES)
    return data.validation[stride - 1 :: stride][:_CHECKPOINT_IMAGES]


class Crops:
    """The random crops of a run, all planned ahead from the seed: image, top, left, flipped rows, flipped columns."""

    def __init__(self, samples: list[Sample], settings: Settings, seed: int) -> None:
        self._size = settings.crop
        self._samples = [_at_least(s, settings.crop, settings.ignore_index) for s in samples]
        shape = (settings.steps, settings.batch)
        random = np.random.default_rng(seed)
        which = random.integers(len(samples), size=shape)
        room = np.array([np.subtract(s.label.shape, settings.crop) for s in self._samples])[which]
        corner = random.integers(room + 1)
        self.plan = np.concatenate([which[..., None], corner, random.integers(2, size=(*shape, 2))], axis=2)
        self.checksum = checksum(self.plan)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (batch, channels, crop, crop) float32 and labels (batch, crop, crop) int64 of one step."""
        images, labels = [], []
        for which, top, left, flip_rows, flip_columns in self.plan[step]:
            sample = self._samples[which]
            window = np.s_[top : top + self._size, left : left + self._size]
            flips = np.s_[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
            images.append(sample.image[:, *window][:, *flips])
            labels.append(sample.label[window][flips])
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long()


def _at_least(sample: Sample, size: int, ignore_index: int) -> Sample:
    """The sample itself, or padded to the size: with the mean outside the image, and nothing to learn there."""
    missing = [(0, max(0, size - n)) for n in sample.label.shape]
    if not any(after for _, after in missing):
        return sample
    label = np.pad(sample.label, missing, constant_values=ignore_index)
    return Sample(sample.stem, np.pad(sample.image, [(0, 0), *missing]), label)


@torch.inference_mode()
def predict(model: nn.Module, sample: Sample, settings: Settings) -> Array:
    """Probabilities (classes, H, W) of one whole image; a single-channel network gives background and foreground."""
    height, width = sample.label.shape
    missing = [max(_SMALLEST, math.ceil(n / _MULTIPLE) * _MULTIPLE) - n for n in (width, height)]
    image = torch.from_numpy(sample.image[None]).to(settings.device)
    padded = nn.functional.pad(image, (0, missing[0], 0, missing[1]), mode="replicate")
    model.eval()
    logits = model(padded)[0, :, :height, :width].float()
    model.train()
    if settings.task == "binary":
        foreground = logits[0].sigmoid()
        return np.asarray(torch.stack([1 - foreground, foreground]).cpu())
    return np.asarray(logits.softmax(0).cpu())


def evaluate(model: nn.Module, data: Data, settings: Settings) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    """Every metric over the held-back images; None if the network's output is not finite."""
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
    per_class: dict[str, list[float | None]] = {
        name: np.mean([scores[name] for scores in images.values()], axis=0).tolist()
        for name in METRICS
        if name != "calibration_error"
    }
    per_class["calibration_error"] = calibration.errors()
    metrics = {name: _mean(per_class[name]) for name in METRICS}
    return {"metrics": metrics, "per_class": per_class, "images": images}, predictions


def checksum(*arrays: Array) -> str:
    """A short fingerprint of the bytes of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def resolve_device(name: str) -> str:
    """`auto` and the accelerator names of lightning-fabric, as the torch device they mean.

    Raises whatever lightning-fabric raises for an accelerator that is not there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "GPU available but not used" is what the user has just asked for
        return Fabric(accelerator=name, devices=1).device.type


def _clock(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _thinned(values: list[float]) -> dict[str, list[float]]:
    """At most 200 points of a course: means over equal stretches, at their last step."""
    stretches = np.array_split(np.array(values), min(len(values), _MOST_POINTS)) if values else []
    ends = np.cumsum([len(s) for s in stretches]).tolist()
    return {"step": ends, "loss": [float(s.mean()) for s in stretches]}
