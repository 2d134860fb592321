"""What the text of a loss means for labels: what can be counted from them is put in, what cannot train is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data
from lossmith.lab.kind import ParsedLoss
from lossmith.lab.run.weights import with_weights
from lossmith.lab.settings import RunSettings
from lossmith.loss import Loss
from lossmith.losses.dense import Dense


class Labelling(NamedTuple):
    """What is labelled: pixels, or images as a whole."""

    what: str
    neighbours: bool  # whether what is labelled has any
    example: Tensor  # labels like those of the run, but few
    counts: Callable[[], np.ndarray[Any, Any]]  # for class weights: how many of each class, (images, classes)


def parse_loss(text: str, settings: RunSettings, data: Data, labelling: Labelling) -> ParsedLoss:
    """The loss that a text means, tried once on labels like those of the run. Raises `UserError` in one line."""
    try:
        parsed = _parsed(text, settings, data, labelling)
        label = labelling.example
        channels = 1 if settings.task == "binary" else len(data.classes)
        value = parsed.loss(torch.zeros(2, channels, *label.shape[1:], requires_grad=True), label)
        if value.shape != ():
            raise ValueError(f"gives {tuple(value.shape)} values, not one; drop reduction=")
        value.backward()
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f'--loss "{text}" ({settings.task} task): {str(error).splitlines()[0]}') from error
    return parsed


def reads_unlabelled(loss: Loss) -> bool:
    """Whether a term of the loss looks at pixels that are ignored, and so at images without labels."""
    return any(term.sees_ignored for term in _dense(loss))


def _parsed(text: str, settings: RunSettings, data: Data, labelling: Labelling) -> ParsedLoss:
    weighted = with_weights(text, labelling.counts)
    shared: dict[str, Any] = {"ignore_index": settings.ignore_index}
    if settings.task != "binary":
        shared["task"] = settings.task
    loss = ls.parse(weighted, **shared)
    _refuse(loss, settings, labelling)
    lacking: list[Any] = [t for t in _dense(loss) if "forbidden" in t.counts and t.settings()["forbidden"] is None]
    if not lacking:
        return ParsedLoss(loss)
    name, window = lacking[0].name, lacking[0].window
    if any(term.window != window for term in lacking):
        raise ValueError(f"its {name} terms have different windows: give each its forbidden=[[...], ...]")
    labels = (sample.label for sample in data.train)
    counted = lacking[0].from_labels(labels, len(data.classes), window, settings.ignore_index)
    forbidden = counted.settings()["forbidden"]
    loss = ls.parse(weighted, forbidden=forbidden, **shared)
    return ParsedLoss(loss, _said(name, window, int(np.triu(np.array(forbidden) > 0).sum())))


def _said(name: str, window: int, pairs: int) -> str:
    if pairs == 0:
        return f"{name} forbids nothing: in the labels to train on all classes lie within {window} px of each other"
    found = f"{pairs} {'pair' if pairs == 1 else 'pairs'} of classes"
    return f"{name} forbids {found} that never lie within {window} px in the labels to train on"


def _refuse(loss: Loss, settings: RunSettings, labelling: Labelling) -> None:
    """Raises `ValueError` for losses that labels of this kind cannot train, or that would silently train nothing."""
    for _, addend in loss.addends:
        if any(term.needs for _, term in addend.terms):
            raise ValueError(f"{addend.name} needs {addend.needs}; this data has labelled {labelling.what}")
    terms = _dense(loss)
    for term in terms:
        if term.target == "soft":
            raise ValueError(f"{term.name} needs a target of probabilities; with labels it is ce")
        if (term.task or settings.task) not in term.tasks:
            raise ValueError(f"{term.name} takes a yes or no at each pixel: use --task binary")
        if term.task not in (None, settings.task):
            raise ValueError(f"{term.name} has task={term.task!r}; drop that, --task says it for all losses")
        if term.spatial and not labelling.neighbours:
            raise ValueError(f"{term.name} looks at neighbouring pixels; this data has one label for each whole image")
    if all(term.target == "none" for term in terms):
        names = " + ".join(term.name for term in terms)
        raise ValueError(f"{names} reads no labels and learns nothing alone; add it to another: ce + 0.1*{names}")


def _dense(loss: Loss) -> list[Dense]:
    """The terms of a loss that reads logits and labels."""
    return [cast(Dense, term) for _, term in loss.terms]
