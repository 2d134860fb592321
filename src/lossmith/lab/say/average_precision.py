"""COCO's average precision and recall, by pycocotools; and their bootstrap over images."""

from __future__ import annotations

import threading
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

from lossmith.lab.data.scenes import Scene

Array = np.ndarray[Any, Any]

MOST_BOXES = 100
_QUIET = threading.Lock()  # pycocotools prints, and standard output is one for all threads
_SMALL, _LARGE, _HUGE = 32.0**2, 96.0**2, 1e10
_AREAS = {"all": (0.0, _HUGE), "small": (0.0, _SMALL), "medium": (_SMALL, _LARGE), "large": (_LARGE, _HUGE)}


def average_precision(scenes: list[Scene], found: list[Array], column: int = 4) -> dict[str, float | None]:
    """ap50, ap, and the average recall ar, ar_small, ar_medium, ar_large of COCO; None where there is nothing to find.

    `found`: for each scene, rows of x1, y1, x2, y2 and scores, of which `column` ranks. Ignored boxes are crowds.
    """
    with _QUIET, redirect_stdout(StringIO()):
        judge = _judge(scenes, found, column, np.linspace(0.5, 0.95, 10), list(_AREAS))
        judge.accumulate()
    precision, recall = judge.eval["precision"], judge.eval["recall"]
    scores = {"ap50": _mean(precision[0, :, 0, 0, 0]), "ap": _mean(precision[:, :, 0, 0, 0])}
    for i, area in enumerate(_AREAS):
        scores["ar" if area == "all" else f"ar_{area}"] = _mean(recall[:, 0, i, 0])
    return scores


def resampled_ap50(scenes: list[Scene], found: list[Array], draws: Array) -> Array:
    """AP50 of every resample of the scenes: `draws` (resamples, scenes) holds their numbers; NaN for one without boxes.

    What is matched in an image does not depend on the others, so each image is matched once.
    """
    with _QUIET, redirect_stdout(StringIO()):
        judge = _judge(scenes, found, 4, np.array([0.5]), ["all"])
        matched, values = judge.evalImgs, []
        for draw in draws:
            judge.evalImgs = [matched[i] for i in draw]
            judge.accumulate()
            value = _mean(judge.eval["precision"])
            values.append(np.nan if value is None else value)
    return np.array(values)


def _judge(scenes: list[Scene], found: list[Array], column: int, overlaps: Array, areas: list[str]) -> Any:
    truth = [
        {
            "id": 0,
            "image_id": i,
            "category_id": 1,
            "bbox": _as_xywh(box),
            "area": float(np.prod(box[2:] - box[:2])),
            "iscrowd": int(ignore),
        }
        for i, scene in enumerate(scenes)
        for box, ignore in zip(scene.boxes, scene.ignore, strict=True)
    ]
    answers = [
        {
            "image_id": i,
            "category_id": 1,
            "bbox": _as_xywh(row[:4]),
            "area": float(np.prod(row[2:4] - row[:2])),
            "score": float(row[column]),
        }
        for i, rows in enumerate(found)
        for row in rows
    ]
    judge = COCOeval(_index(truth, len(scenes)), _index(answers, len(scenes)), "bbox")
    judge.params.iouThrs = overlaps
    judge.params.maxDets = [MOST_BOXES]
    judge.params.areaRng = [list(_AREAS[area]) for area in areas]
    judge.params.areaRngLbl = areas
    judge.evaluate()
    return judge


def _index(boxes: list[dict[str, Any]], images: int) -> Any:
    """COCO's table of boxes; ids start at 1, since 0 means unmatched there."""
    table = COCO()
    table.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": 1}],
        "annotations": [{**box, "id": n} for n, box in enumerate(boxes, start=1)],
    }
    table.createIndex()
    return table


def _as_xywh(box: Array) -> list[float]:
    return [float(v) for v in (*box[:2], *(box[2:] - box[:2]))]


def _mean(values: Array) -> float | None:
    known = values[values > -1]  # −1: nothing to find
    return float(known.mean()) if known.size else None
