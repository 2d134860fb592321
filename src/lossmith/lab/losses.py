"""What the text of a loss means in a run: what is counted from the labels is put in, what cannot train is refused."""

from __future__ import annotations

from typing import Any

import torch

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.data import Data
from lossmith.lab.plan import Settings
from lossmith.lab.weights import with_weights
from lossmith.loss import Loss
from lossmith.losses.dense import Dense
from lossmith.losses.field import NonAdjacencyLoss
from lossmith.losses.information import KLDivergenceLoss

_NEEDS = {
    "box": "pairs of boxes (lossmith lab box-regression compares such losses)",
    "distribution": "the outputs of a detector",
    "regression": "numbers to predict",
}
_NEIGHBOURS = {"boundary_ce", "boundary_f1", "nonadjacency"}  # besides the family "map"


def parse_loss(text: str, settings: Settings, data: Data) -> Loss:
    """The loss that a text means, tried once on labels like those of the run. Raises `UserError` in one line."""
    try:
        loss = _parsed(text, settings, data)
        value = loss(*_trial(settings, data))
        if value.shape != ():
            raise ValueError(f"gives {tuple(value.shape)} values, not one; drop reduction=")
        value.backward()
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f'--loss "{text}" ({settings.task} task): {str(error).splitlines()[0]}') from error
    return loss


def counted_pairs(text: str, loss: Loss) -> str:
    """What `parse_loss` counted for the non-adjacency losses of a text, in words; "" if there is nothing to say."""
    forbidden = [term.forbidden for term in _nonadjacency(loss) if term.forbidden is not None]
    if not forbidden or "forbidden" in text:
        return ""
    window = next(term.window for term in _nonadjacency(loss))
    pairs = int((forbidden[0] > 0).triu().sum())
    if pairs == 0:
        return (
            f"nonadjacency forbids nothing: in the labels to train on all classes lie within {window} px of each other"
        )
    found = f"{pairs} {'pair' if pairs == 1 else 'pairs'} of classes"
    return f"nonadjacency forbids {found} that never lie within {window} px in the labels to train on"


def reads_unlabelled(loss: Loss) -> bool:
    """Whether a term of the loss looks at pixels that are ignored, and so at images without labels."""
    return any(term.sees_ignored for _, term in loss.terms)


def _parsed(text: str, settings: Settings, data: Data) -> Loss:
    weighted = with_weights(text, data)
    shared: dict[str, Any] = {"ignore_index": settings.ignore_index}
    if settings.task != "binary":
        shared["task"] = settings.task
    loss = ls.parse(weighted, **shared)
    _refuse(loss, settings, data)
    windows = {term.window for term in _nonadjacency(loss) if term.forbidden is None}
    if not windows or "forbidden" in text:
        return loss
    if len(windows) > 1:
        raise ValueError("its nonadjacency terms have different windows: give each its forbidden=[[...], ...]")
    labels = (sample.label for sample in data.train)
    counted = NonAdjacencyLoss.from_labels(labels, len(data.classes), windows.pop(), settings.ignore_index)
    return ls.parse(weighted, forbidden=counted.settings()["forbidden"], **shared)


def _refuse(loss: Loss, settings: Settings, data: Data) -> None:
    """Raises `ValueError` for losses that labels of this kind cannot train, or that would silently train nothing."""
    whole = data.kind == "classification"
    for _, addend in loss.addends:
        if not all(isinstance(term, Dense) for _, term in addend.terms):
            needs = _NEEDS.get(addend.family, "another kind of input")
            raise ValueError(f"{addend.name} needs {needs}; this data has labelled {'images' if whole else 'pixels'}")
    terms = [term for _, term in loss.terms if isinstance(term, Dense)]
    for term in terms:
        if isinstance(term, KLDivergenceLoss):
            raise ValueError("kl needs a target of probabilities; with labels it is ce")
        if (term.task or settings.task) not in term.tasks:
            raise ValueError(f"{term.name} takes a yes or no at each pixel: use --task binary")
        if term.task not in (None, settings.task):
            raise ValueError(f"{term.name} has task={term.task!r}; drop that, --task says it for all losses")
        if whole and (term.family == "map" or term.name in _NEIGHBOURS):
            raise ValueError(f"{term.name} looks at neighbouring pixels; this data has one label for each whole image")
    if all(term.target == "none" for term in terms):
        names = " + ".join(term.name for term in terms)
        raise ValueError(f"{names} reads no labels and learns nothing alone; add it to another: ce + 0.1*{names}")


def _trial(settings: Settings, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels like those of the run, but small."""
    channels = 1 if settings.task == "binary" else len(data.classes)
    if data.kind == "classification":
        label = torch.tensor([0, 1])
    else:
        label = torch.zeros(2, *[32] * data.dimensions, dtype=torch.long)
        label[:, 8:16, 8:16] = 1
    return torch.zeros(2, channels, *label.shape[1:], requires_grad=True), label


def _nonadjacency(loss: Loss) -> list[NonAdjacencyLoss]:
    return [term for _, term in loss.terms if isinstance(term, NonAdjacencyLoss)]
