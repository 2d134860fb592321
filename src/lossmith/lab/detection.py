"""A trial with drawn boxes: the crops, what the detector says about the held-back tiles, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.average_precision import average_precision
from lossmith.lab.compare import Job
from lossmith.lab.detect import STRIDE, DetectionLoss, Detector, Quality, assign, decode
from lossmith.lab.metrics import Scores
from lossmith.lab.plan import Settings, checksum
from lossmith.lab.scenes import TILE, Scene, Scenes, cut
from lossmith.lab.train import Task, run_trial

Array = np.ndarray[Any, Any]

_BATCH = 4
_STEPS = 600
_FEATURES = (16, 32, 64)
SCORES = Scores(
    {
        "ap50": "AP50",
        "ap": "AP50:95",
        "ap50_class": "AP50 by class score alone",
        "ar": "AR",
        "ar_small": "AR small",
        "ar_medium": "AR medium",
        "ar_large": "AR large",
    },
    "ap50",
    frozenset(),
)


@dataclass(frozen=True)
class DetectionSettings(Settings):
    """And what the extra branch of the detector says; losses whose score is a quality never have it."""

    quality: Quality = "centerness"


def settings(
    data: Scenes,
    steps: int | None,
    crop: int | None,
    batch: int | None,
    lr: float,
    device: str,
    quality: Quality | None,
) -> DetectionSettings:
    """The settings of a comparison; None means the usual, for minutes on a CPU."""
    return DetectionSettings(
        data=data.name,
        fingerprint=data.fingerprint,
        task="detection",
        steps=steps or _STEPS,
        crop=crop or TILE,
        batch=batch or _BATCH,
        lr=lr,
        ignore_index=-100,
        device=device,
        features=_FEATURES,
        quality=quality or "centerness",
    )


class BoxCrops:
    """The random crops of a run, all planned ahead from the seed: image, corner, and the axes that are flipped."""

    def __init__(self, scenes: list[Scene], settings: Settings, seed: int) -> None:
        self._scenes = [_at_least(scene, settings.crop) for scene in scenes]
        self._size = settings.crop
        space = np.array([scene.image.shape[1:] for scene in self._scenes])
        shape = (settings.steps, settings.batch)
        random = np.random.default_rng(seed)
        which = random.integers(len(scenes), size=shape)
        corner = random.integers((space - self._size)[which] + 1)
        flips = random.integers(2, size=(*shape, 2))
        self.plan = np.concatenate([which[..., None], corner, flips], axis=2)
        self.checksum = checksum(self.plan)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (batch, channels, crop, crop), and what each point is to say (batch, 5, crop/8, crop/8)."""
        images, targets = [], []
        for which, y, x, flip_y, flip_x in self.plan[step].tolist():
            part = cut(self._scenes[which], (x, y, x + self._size, y + self._size), "")
            image, boxes = part.image, part.boxes.copy()
            if flip_x:
                image, boxes[:, [0, 2]] = image[:, :, ::-1], self._size - boxes[:, [2, 0]]
            if flip_y:
                image, boxes[:, [1, 3]] = image[:, ::-1], self._size - boxes[:, [3, 1]]
            images.append(image)
            in_strides = torch.from_numpy(boxes / STRIDE).float()
            targets.append(assign(in_strides, torch.from_numpy(part.ignore), *[self._size // STRIDE] * 2))
        return torch.from_numpy(np.stack(images)), torch.stack(targets)


def _at_least(scene: Scene, size: int) -> Scene:
    """The scene itself, or padded to the size with its mean."""
    missing = [max(0, size - n) for n in scene.image.shape[1:]]
    if not any(missing):
        return scene
    image = np.pad(scene.image, [(0, 0), *((0, n) for n in missing)])
    return Scene(scene.stem, image, scene.boxes, scene.ignore)


def parse_loss(text: str, settings: Settings, data: Scenes) -> DetectionLoss:
    """The loss that a text means, tried once on two boxes. Raises `UserError` in one line."""
    try:
        loss = _parse(text)
        slots = {term.slot for _, term in loss.terms}
        if not {"score", "box"} <= slots:
            raise ValueError('boxes need a term on scores and one on boxes, as in "focal + giou"')
        for _, term in loss.terms:
            if term.slot not in ("score", "box", "edge") or "denominator" not in term.takes:
                raise ValueError(f"{term.name} is no loss of single scores, boxes or edges")
        assert isinstance(settings, DetectionSettings)
        whole = DetectionLoss(loss, settings.quality)
        boxes = torch.tensor([[0.5, 0.5, 5.0, 5.0], [2.0, 3.0, 8.0, 7.5]])
        target = assign(boxes, torch.tensor([False, False]), 8, 8)[None]
        output = torch.zeros(1, 74, 8, 8, requires_grad=True)
        whole(output, target).backward()
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f'--loss "{text}" (boxes): {str(error).splitlines()[0]}') from error
    return whole


def _parse(text: str) -> ls.Loss:
    """Scores of one class are a binary task, for the losses that ask."""
    loss = ls.parse(text)
    asks = any("task" in term.fields for _, term in loss.terms)
    return ls.parse(text, task="binary") if asks else loss


@torch.inference_mode()
def predict(model: nn.Module, scene: Scene, loss: DetectionLoss, settings: Settings) -> Array | None:
    """The boxes found in one tile (see `decode`); None if an output is not finite."""
    missing = [-n % STRIDE for n in scene.image.shape[1:]]
    image = np.pad(scene.image, [(0, 0), *((0, n) for n in missing)])
    model.eval()
    output = model(torch.from_numpy(image[None]).to(settings.device))[0].float()
    model.train()
    return decode(output, loss) if bool(output.isfinite().all()) else None


def _quick_score(loss: DetectionLoss, model: nn.Module, data: Scenes, settings: Settings) -> float:
    found = [predict(model, scene, loss, settings) for scene in data.validation]
    answers = [np.zeros((0, 6)) if boxes is None else boxes for boxes in found]
    return average_precision(data.validation, answers)["ap50"] or 0.0


def _evaluate(
    loss: DetectionLoss, model: nn.Module, data: Scenes, settings: Settings
) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    found = []
    for scene in data.validation:
        boxes = predict(model, scene, loss, settings)
        if boxes is None:
            return None, {}
        found.append(boxes)
    scores = average_precision(data.validation, found)
    metrics = {**scores, "ap50_class": average_precision(data.validation, found, column=5)["ap50"]}
    named = {scene.stem: boxes.astype(np.float32) for scene, boxes in zip(data.validation, found, strict=True)}
    return {"metrics": metrics, "per_class": None, "evaluator": f"pycocotools {version('pycocotools')}"}, named


def _run_trial(
    loss: nn.Module, seed: int, data: Scenes, settings: Settings, on_step: Callable[[int], None]
) -> tuple[dict[str, Any], dict[str, Array]]:
    assert isinstance(loss, DetectionLoss)
    task = Task(
        network=lambda data, settings: Detector(data.channels, settings.features),
        crops=lambda data, settings, seed: BoxCrops(data.train, settings, seed),
        watched=lambda data: data.validation,
        quick_score=partial(_quick_score, loss),
        last_score=lambda evaluation, data: evaluation["metrics"]["ap50"],
        evaluate=partial(_evaluate, loss),
    )
    return run_trial(loss, seed, data, settings, on_step, task)


JOB = Job(parse_loss, _run_trial)
