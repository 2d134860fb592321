"""Tiles with the boxes found in them, as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossmith.lab.data.scenes import Scene, Scenes
from lossmith.lab.kind import Predictions, Trials
from lossmith.lab.page import pictures
from lossmith.lab.say.ranking import LossRanking

Array = np.ndarray[Any, Any]

_MOST_TILES = 3
_ENLARGED = 2
_LINE = 2


def tile_examples(ranking: LossRanking, trials: Trials, data: Scenes, predictions: Predictions) -> list[dict[str, Any]]:
    """The tiles at the quarters of the number of boxes, so that none is picked for its result; first common seed."""
    shown = {t["loss"]: t for t in trials if t["hash"] in predictions and t["seed"] in ranking.seeds[:1]}
    full = sorted((s for s in data.validation if not s.ignore.all()), key=lambda s: int((~s.ignore).sum()))
    places = sorted({round(share * (len(full) - 1)) for share in np.linspace(0.25, 1, _MOST_TILES)})
    return [
        {
            "stem": full[i].stem,
            "boxes": int((~full[i].ignore).sum()),
            "panels": [
                {
                    "loss": row.loss,
                    "uri": _drawn(full[i], predictions[shown[row.loss]["hash"]][full[i].stem]),
                }
                for row in ranking.rows
                if row.loss in shown
            ],
        }
        for i in places
        if shown
    ]


def _drawn(scene: Scene, found: Array) -> str:
    """A tile with the frames of the truth and of as many of the best-scored boxes found, as a PNG data URI."""
    picture = pictures.grey(scene.image).repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)
    for box, ignore in zip(scene.boxes, scene.ignore, strict=True):
        _frame(picture, box, tuple(v // 2 for v in pictures.TRUTH) if ignore else pictures.TRUTH)
    for row in found[: int((~scene.ignore).sum())]:
        _frame(picture, row[:4], pictures.PREDICTION)
    return pictures.data_uri(picture)


def _frame(picture: Array, box: Array, colour: tuple[int, ...]) -> None:
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in np.round(np.asarray(box) * _ENLARGED))
    x1, x2 = (min(max(x, 0), width - 1) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), height - 1) for y in (y1, y2))
    for inset in range(_LINE):
        left, right, top, bottom = x1 + inset, x2 - inset, y1 + inset, y2 - inset
        if left <= right and top <= bottom:
            picture[[top, bottom], left : right + 1] = colour
            picture[top : bottom + 1, [left, right]] = colour
