"""Kinds of data with parts of the user's own: network, data sets, optimizer, metrics, losses. See python.py."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossmith.lab import UserError
from lossmith.lab.kind import CropPlan, Judgement, ParsedLoss
from lossmith.lab.kinds.images import ImageKind
from lossmith.lab.kinds.pixels import PixelKind
from lossmith.lab.run.given import GivenCrops, Source
from lossmith.lab.run.model import Factory, build
from lossmith.lab.run.predict import logits_of
from lossmith.lab.say import curves
from lossmith.lab.say.own import Metric, evaluate, with_own
from lossmith.lab.settings import Asked, RunSettings
from lossmith.loss import Loss

OptimizerFactory = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]

_SURE = 20.0  # the logit of what is certain
_PAGE = """{%% extends "%s" %%}
{%% block crops %%}batches of the data set that was given{%% endblock %%}
{%% block shares %%}Of the held-back {{ "images" if results.kind == "classification" else "pixels" }}:
{%% for class in results.classes %%}{{ class }} {{ "%%.2f" | format(100 * results.class_shares[loop.index0]) }} %%
{{- ", " if not loop.last }}{%% endfor %%}.{%% endblock %%}
{%% block shown %%}images as the data set gives them{%% endblock %%}
{%% block prepared %%}; a schedule's epoch is a hundredth of the run{%% endblock %%}"""
_RANKED = "{% block ranked_by %}By {{ metrics.title }}, as it was given.{% endblock %}"


@dataclass(frozen=True)
class Parts:
    """What the user gave; None and empty for what is usual."""

    model: Factory | None = None
    model_name: str = ""
    optimizer: OptimizerFactory | None = None
    optimizer_name: str = ""
    metrics: dict[str, Metric] = field(default_factory=dict)
    losses: dict[str, nn.Module] = field(default_factory=dict)
    train: Source | None = None
    task: str = "multiclass"
    call: str = ""  # what makes the comparison again


class Own(PixelKind):
    """What the user gave in the place of what is usual with labelled pixels, or labelled images."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.call = parts, parts.call
        self.metrics = with_own(parts.metrics, self.metrics)
        if parts.train is not None:
            self.template = _PAGE % self.template.split('"')[1]
        if parts.metrics:
            self.template += _RANKED
        self._trivial: dict[tuple[str, ...], dict[str, float]] = {}  # by the images that are held back

    def sizes(self, data: Any) -> tuple[int, int, tuple[int, ...]]:
        crop, batch, features = super().sizes(data)
        if self.parts.train is None:
            return crop, batch, features
        loader = self.parts.train.loader
        batch = getattr(loader, "batch_size", None) or batch
        return (crop if data.dimensions == 3 and not self.parts.model else 0), batch, features

    def settings(self, data: Any, asked: Asked) -> RunSettings:
        asked = replace(asked, model=self.parts.model_name or asked.model)
        if self.parts.train is not None and self.parts.train.loader is not None:
            asked = replace(asked, batch=None)  # which is the loader's
        settings = super().settings(data, asked)
        return replace(settings, optimizer=self.parts.optimizer_name or settings.optimizer)

    def parse(self, text: str, settings: RunSettings, data: Any) -> ParsedLoss:
        if text not in self.parts.losses:
            return super().parse(text, settings, data)
        loss, label = copy.deepcopy(self.parts.losses[text]), self.labelling(data).example
        try:
            value = loss(torch.zeros(2, self.channels(data, settings), *label.shape[1:], requires_grad=True), label)
            if value.shape != ():
                raise ValueError(f"gives {tuple(value.shape)} values, not one")
            value.backward()
        except Exception as error:  # whatever the code of the loss raises
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"loss {text!r}: cannot be trained with ({said})") from error
        return ParsedLoss(loss)

    def remarks(self, parsed: ParsedLoss, data: Any) -> list[str]:
        return super().remarks(parsed, data) if isinstance(parsed.loss, Loss) else []

    def model_name(self, settings: RunSettings) -> str:
        return "model" if self.parts.model else super().model_name(settings)

    def own_network(self, data: Any, settings: RunSettings) -> nn.Module:
        if self.parts.model is None:
            return super().own_network(data, settings)
        return build(self.parts.model, "model", data.channels, self.channels(data, settings), data.dimensions)

    def optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return (self.parts.optimizer or super().optimizer)(parameters, lr)

    def crops(self, data: Any, settings: RunSettings, seed: int) -> CropPlan:
        if self.parts.train is None:
            return super().crops(data, settings, seed)
        return GivenCrops(self.parts.train, settings, seed)

    def judge(self, model: nn.Module, loss: nn.Module, data: Any, settings: RunSettings) -> Judgement:
        evaluation, predictions = super().judge(model, loss, data, settings)
        if evaluation and self.parts.metrics:
            own = self._measured(model, data.validation, settings)
            evaluation["metrics"] = {**evaluation["metrics"], **own}
            evaluation["watched"] = self._watched_score(model, data, settings)
        return evaluation, predictions

    def quick_score(self, model: nn.Module, loss: nn.Module, data: Any, settings: RunSettings) -> float:
        if not self.parts.metrics:
            return super().quick_score(model, loss, data, settings)
        return self._watched_score(model, data, settings)

    def last_score(self, evaluation: dict[str, Any], data: Any) -> float:
        return float(evaluation["watched"]) if self.parts.metrics else super().last_score(evaluation, data)

    def _watched_score(self, model: nn.Module, data: Any, settings: RunSettings) -> float:
        return self._measured(model, self.watched(data), settings)[self.metrics.ranked_by] or 0.0

    def _measured(self, model: nn.Module, samples: Sequence[Any], settings: RunSettings) -> dict[str, float | None]:
        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for sample in samples:
                yield logits_of(model, sample, settings)[None].cpu(), _batch_of(sample.label)

        return evaluate(self.parts.metrics, pairs())

    def trivial(self, data: Any) -> dict[str, float]:
        """`nothing` says class 0 everywhere, `everything` whichever other class scores best."""
        if not self.parts.metrics:
            return super().trivial(data)
        held_back = tuple(sample.stem for sample in data.validation)
        if held_back not in self._trivial:
            channels = 1 if self.parts.task == "binary" else len(data.classes)
            scores = []
            for k in range(max(2, channels)):

                def pairs(k: int = k) -> Iterator[tuple[Tensor, Tensor]]:
                    for sample in data.validation:
                        label = _batch_of(sample.label)
                        sure = torch.full((1, channels, *label.shape[1:]), -_SURE)
                        if channels > 1 or k:
                            sure[:, k % channels] = _SURE
                        yield sure, label

                scores.append(evaluate(self.parts.metrics, pairs())[self.metrics.ranked_by] or 0.0)
            self._trivial[held_back] = {"nothing": scores[0], "everything": max(scores[1:])}
        return self._trivial[held_back]

    def curve(self, loss: nn.Module, data: Any, settings: RunSettings) -> curves.Curve | None:
        return super().curve(loss, data, settings) if isinstance(loss, Loss) else None


class OwnPixels(Own):
    """Labelled pixels."""


class OwnImages(Own, ImageKind):
    """Images with a label each."""


def _batch_of(label: Any) -> Tensor:
    return torch.from_numpy(np.asarray(label)).long()[None]


def own_kind(kind: PixelKind, parts: Parts) -> PixelKind:
    """A kind of data with the parts that were given."""
    return OwnImages(parts) if isinstance(kind, ImageKind) else OwnPixels(parts)
