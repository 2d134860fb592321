"""Images with boxes: things of one class are detected."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.labelled import unreadable
from lossmith.lab.data.scenes import TILE, Scene, Scenes, cut, holds_boxes, index_scenes, read_scenes
from lossmith.lab.data.stored import Watch
from lossmith.lab.kind import Judgement, Kind, ParsedLoss, Predictions, Trials
from lossmith.lab.page import pictures
from lossmith.lab.page.tiles import tile_examples
from lossmith.lab.run.crops import checksum
from lossmith.lab.run.detector import STRIDE, DetectionLoss, Detector, assign, decode
from lossmith.lab.say.average_precision import average_precision
from lossmith.lab.say.bootstrap import BOOTSTRAP, RESAMPLES, bootstrap, headline
from lossmith.lab.say.metrics import MetricSet
from lossmith.lab.say.ranking import LossRanking
from lossmith.lab.settings import Asked, Quality, RunSettings

Array = np.ndarray[Any, Any]

AVERAGE_PRECISION = MetricSet(
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
)


@dataclass(frozen=True)
class DetectionSettings(RunSettings):
    """And what the extra branch of the detector says; losses whose score is a quality never have it."""

    quality: Quality = "centerness"


class BoxCrops:
    """The random crops of a run, all planned ahead from the seed: image, corner, and the axes that are flipped."""

    def __init__(self, scenes: list[Scene], settings: RunSettings, seed: int) -> None:
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


class BoxKind(Kind):
    """A small detector of boxes in tiles."""

    name = "detection"
    metrics = AVERAGE_PRECISION
    template = '{% extends "boxes.html" %}'
    options = (*Kind.options, "quality")
    steps = 600

    def recognises(self, folder: Path) -> bool:
        return holds_boxes(folder)

    def faults(self, folder: Path, asked: Asked) -> list[Fault]:
        index, _ = index_scenes(folder)
        return [*index.faults, *unreadable(index)]

    def read(self, folder: Path, asked: Asked, watch: Watch = lambda *_: None) -> Scenes:
        if asked.model:
            raise UserError(
                f"--model {asked.model}: {asked.data} has boxes, which train their own detector; drop --model"
            )
        if asked.folds or asked.group_by:
            raise UserError(
                f"--folds, --group-by: {asked.data} has boxes; drop them, and say in split.csv who is held back"
            )
        if asked.task != "multiclass" or asked.ignore_index != -100 or asked.unlabelled or asked.unlabelled_batch:
            raise UserError(
                f"--task, --ignore-index, --unlabelled[-batch]: {asked.data} has boxes, not labelled pixels; drop them"
            )
        return read_scenes(folder, asked.data)

    def sizes(self, data: Scenes) -> tuple[int, int, tuple[int, ...]]:
        return TILE, 4, (16, 32, 64)

    def settings(self, data: Scenes, asked: Asked) -> DetectionSettings:
        shared = {**asdict(super().settings(data, asked)), "task": "detection"}
        return DetectionSettings(**shared, quality=asked.quality or "centerness")

    def parse(self, text: str, settings: RunSettings, data: Scenes) -> ParsedLoss:
        try:
            loss = _parse(text)
            slots = {term.slot for _, term in loss.terms}
            if not {"score", "box"} <= slots:
                raise ValueError('boxes need a term on scores and one on boxes, as in "focal + giou"')
            for _, term in loss.terms:
                if term.slot not in ("score", "box", "edge") or "denominator" not in term.takes:
                    raise ValueError(f"{term.name} is no loss of single scores, boxes or edges")
            whole = DetectionLoss(loss, cast(DetectionSettings, settings).quality)
            boxes = torch.tensor([[0.5, 0.5, 5.0, 5.0], [2.0, 3.0, 8.0, 7.5]])
            target = assign(boxes, torch.tensor([False, False]), 8, 8)[None]
            output = torch.zeros(1, 74, 8, 8, requires_grad=True)
            whole(output, target).backward()
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f'--loss "{text}" (boxes): {str(error).splitlines()[0]}') from error
        return ParsedLoss(whole)

    def network(self, data: Scenes, settings: RunSettings) -> nn.Module:
        return Detector(data.channels, settings.features)

    def crops(self, data: Scenes, settings: RunSettings, seed: int) -> BoxCrops:
        return BoxCrops(data.train, settings, seed)

    def quick_score(self, model: nn.Module, loss: nn.Module, data: Scenes, settings: RunSettings) -> float:
        found = [predict(model, scene, cast(DetectionLoss, loss), settings) for scene in data.validation]
        answers = [np.zeros((0, 6)) if boxes is None else boxes for boxes in found]
        return average_precision(data.validation, answers)["ap50"] or 0.0

    def judge(self, model: nn.Module, loss: nn.Module, data: Scenes, settings: RunSettings) -> Judgement:
        found = []
        for scene in data.validation:
            boxes = predict(model, scene, cast(DetectionLoss, loss), settings)
            if boxes is None:
                return None, {}
            found.append(boxes)
        scores = average_precision(data.validation, found)
        metrics = {**scores, "ap50_class": average_precision(data.validation, found, column=5)["ap50"]}
        named = {scene.stem: boxes.astype(np.float32) for scene, boxes in zip(data.validation, found, strict=True)}
        return {"metrics": metrics, "per_class": None, "evaluator": f"pycocotools {version('pycocotools')}"}, named

    def trivial(self, data: Scenes) -> dict[str, float]:
        whole = [np.array([[0, 0, *s.image.shape[:0:-1], 1, 1]], dtype=np.float64) for s in data.validation]
        return {"nothing": 0.0, "everything": average_precision(data.validation, whole)["ap50"] or 0.0}

    def facts(self, data: Scenes) -> dict[str, Any]:
        facts = super().facts(data)
        boxes = {"train": _count(data.train), "validation": _count(data.validation)}
        return {"classes": facts["classes"], "images": facts["images"], "boxes": boxes, "kind": facts["kind"]}

    def verdict(
        self, ranking: LossRanking, trials: Trials, predictions: Predictions, data: Scenes
    ) -> tuple[str, dict[str, Any]]:
        over_tiles = bootstrap(ranking, trials, predictions, data)
        return headline(ranking, over_tiles), {"tiles": over_tiles}

    def page(
        self, ranking: LossRanking, results: dict[str, Any], predictions: Predictions, data: Scenes
    ) -> dict[str, Any]:
        return {
            "bootstrap": BOOTSTRAP,
            "resamples": RESAMPLES,
            "examples": tile_examples(ranking, results["trials"], data, predictions),
            "truth": f"rgb{pictures.TRUTH}",
            "prediction": f"rgb{pictures.PREDICTION}",
        }


def _parse(text: str) -> ls.Loss:
    """Scores of one class are a binary task, for the losses that ask."""
    loss = ls.parse(text)
    asks = any("task" in term.fields for _, term in loss.terms)
    return ls.parse(text, task="binary") if asks else loss


@torch.inference_mode()
def predict(model: nn.Module, scene: Scene, loss: DetectionLoss, settings: RunSettings) -> Array | None:
    """The boxes found in one tile (see `decode`); None if an output is not finite."""
    missing = [-n % STRIDE for n in scene.image.shape[1:]]
    image = np.pad(scene.image, [(0, 0), *((0, n) for n in missing)])
    model.eval()
    output = model(torch.from_numpy(image[None]).to(settings.device))[0].float()
    model.train()
    return decode(output, loss) if bool(output.isfinite().all()) else None


def _count(scenes: list[Scene]) -> int:
    """Boxes that are not ignored."""
    return sum(int((~scene.ignore).sum()) for scene in scenes)


KIND = BoxKind()
