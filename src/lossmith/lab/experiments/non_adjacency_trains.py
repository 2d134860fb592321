"""Claim 12: non-adjacency drives forbidden contacts of labels down, and does so on images without labels too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lossmith as ls
from lossmith.lab.experiment import Data, Finding, Table, Work
from lossmith.lab.experiments.training.claim import SMALL, Array, Pair, Run, Trained, paired
from lossmith.lab.experiments.training.folders import HELD_BACK, TRAIN, frames, read_masks, write_frames
from lossmith.lab.say.decision import LEARNT

_OUTSIDE, _INSIDE, _BOUNDARY = range(3)
_NO_LABEL = 255
_FORBIDDEN = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
_WEIGHT = 3.0  # with 10 and with 30 one class won nearly everywhere


class _OnSome(nn.Module):
    """Cross-entropy of the labels, and non-adjacency of those images alone that have labels, or have none."""

    def __init__(self, labelled: bool) -> None:
        super().__init__()
        self.labelled = labelled
        self.ce = ls.CrossEntropyLoss(ignore_index=_NO_LABEL)
        self.term = ls.NonAdjacencyLoss(forbidden=_FORBIDDEN)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        seen = (labels != _NO_LABEL).flatten(1).any(1) == self.labelled
        value: Tensor = self.ce(logits, labels)
        return value + _WEIGHT * self.term(logits[seen]) if bool(seen.any()) else value


class NonAdjacencyTrains(Trained):
    """The lab's own comparison on windows of 320 px around the colony of `bacteria3`, whose cells have an inside and a
    ring around it, here all pixels with the background among their eight neighbours: inside and background never
    touch. Half of the frames have labels, the others have none. Cross-entropy reads the labels; to it is added 3 times
    the non-adjacency loss (10 times ended with one class nearly everywhere), once of the labelled images alone and once
    of the others alone. In what is predicted for held-back frames, the sides that pixels of the background share with
    pixels of a cell are counted: F forbidden ones, with its inside, and P proper ones, with its ring; the labels have L
    proper ones and no forbidden one. Judged is the score L / (L + F + what P has more than L): 1 without a
    wrong contact, near 0 for noise, which touches everywhere, and 0 by rule if the Dice is that of what knows nothing.
    The lab's decision rule compares it, paired by seed, each of two differences with half of the error of 5 %; the
    mean number of forbidden contacts has to say the same. In full 4 seeds of 80 steps, judged on six frames; the short
    form, 2 seeds of 10 steps on 256 px of fewer frames, shows how it is done.
    """

    name = "non-adjacency-trains"
    title = "Non-adjacency in training"
    claims = (12,)
    claim = "Non-adjacency drives forbidden label contacts down, on unlabelled images too."
    document = "003"
    seconds = (10, 70)
    losses = ("ce + non-adjacency where labelled", "ce + non-adjacency where unlabelled", "ce")
    ignore_index = _NO_LABEL
    measure = "contact score of {n} held-back frame"
    full = Run(seeds=4, steps=80, crop=96, batch=4)
    fast = Trained.fast._replace(steps=10)

    def data(self, work: Work) -> str | Path:
        side = SMALL if work.fast else 320
        train, held_back = (TRAIN[::3], HELD_BACK[:1]) if work.fast else (TRAIN, HELD_BACK)
        seen, judged = (_ringed(frames("bacteria3", of, work.say, side)) for of in (train, held_back))
        for stem in list(seen)[1::2]:
            seen[stem] = seen[stem][0], np.full_like(seen[stem][1], _NO_LABEL)
        return write_frames(work.folder / "data", "bacteria3", seen, judged, work.say)

    def trained(self) -> dict[str, nn.Module]:
        ce = ls.CrossEntropyLoss(ignore_index=_NO_LABEL)
        return dict(zip(self.losses, (_OnSome(True), _OnSome(False), ce), strict=True))

    def record(self, trial: dict[str, Any], predicted: Mapping[str, Array]) -> Data:
        forbidden, proper = (sum(_contacts(labels, k) for labels in predicted.values()) for k in (_INSIDE, _BOUNDARY))
        return {**super().record(trial, predicted), "forbidden": forbidden, "proper": proper}

    def compute(self, work: Work) -> Data:
        data, held_back = super().compute(work), read_masks(work.folder / "data", work.say)["validation"]
        forbidden, proper = (sum(_contacts(labels, of) for labels in held_back) for of in (_INSIDE, _BOUNDARY))
        for trial in (trial for trials in data["trials"].values() for trial in trials):
            trial["dice"], learnt = trial["score"], trial["score"] > data["trivial"] + LEARNT
            trial["score"] = _score(trial["forbidden"], trial["proper"], proper) if learnt else 0.0
        labels = {"forbidden": forbidden, "proper": proper}
        return {**data, "labels": labels, "trivial": 0.0, "trivial_dice": data["trivial"]}

    def pairs(self, data: Data) -> list[Pair]:
        scores = self.scores(data)
        *terms, ce = self.losses
        two = [{loss: scores[loss] for loss in (term, ce)} for term in terms]
        return [paired(of, data["trivial"], 1 / len(terms)) for of in two]

    def judge(self, data: Data) -> Finding:
        finding = super().judge(data)
        *terms, ce = (np.mean(of) for of in self.scores(data, "forbidden").values())
        if finding.verdict not in ("confirmed", "refuted") or (finding.verdict == "confirmed") == (max(terms) < ce):
            return finding
        return Finding(
            "no difference seen", f"Undecided: score and forbidden contacts do not say the same. {finding.sentence}"
        )

    def seen(self, data: Data) -> str:
        forbidden, proper = (self.scores(data, key) for key in ("forbidden", "proper"))
        means = [f"{np.mean(forbidden[loss]):.0f} and {np.mean(proper[loss]):.0f} with {loss}" for loss in self.losses]
        labels = f"{data['labels']['forbidden']} and {data['labels']['proper']} in the labels"
        return f"{super().seen(data)}, and forbidden and proper contacts are {', '.join([*means, labels])}"

    def tables(self, data: Data) -> list[Table]:
        rows = [
            [loss, *(f"{t['forbidden']}, {t['proper']}, {t['dice']:.3f}" for t in trials)]
            for loss, trials in data["trials"].items()
        ]
        counts = f"{data['labels']['forbidden']}, {data['labels']['proper']}, 1.000"
        rows.append(["the labels", *[counts] * data["seeds"]])
        head = ["", *(f"seed {k}" for k in range(data["seeds"]))]
        nothing = f"what knows nothing: {data['trivial_dice']:.3f}"
        caption = f"Forbidden contacts, proper ones, and the mean Dice of both classes ({nothing})"
        return [*super().tables(data), Table(caption, head, rows)]


def _score(forbidden: int, proper: int, labels: int) -> float:
    """1 without a forbidden contact and with no more proper ones than the labels have, near 0 for noise."""
    return round(labels / (labels + forbidden + max(0, proper - labels)), 6)


def _ringed(found: dict[str, tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
    """The same frames, where every pixel of a cell that has the background beside it, by a corner too, is its ring."""
    rings = {}
    for stem, (grey, labels) in found.items():
        outside = torch.from_numpy(labels == _OUTSIDE)[None].float()
        near = nn.functional.max_pool2d(outside, 3, 1, 1)[0].numpy() > 0
        rings[stem] = grey, np.where(near & (labels == _INSIDE), _BOUNDARY, labels).astype(labels.dtype)
    return rings


def _contacts(labels: Array, of: int) -> int:
    """How many sides pixels of a class share with pixels of the background."""
    count = 0
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        count += int((((a == of) & (b == _OUTSIDE)) | ((a == _OUTSIDE) & (b == of))).sum())
    return count


EXPERIMENT = NonAdjacencyTrains()
