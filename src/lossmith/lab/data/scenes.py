"""Images with boxes: a folder with `images/` and `boxes.csv`, instead of masks.

    mydata/
      images/a.png b.png …     as in labelled.py, 2-D
      boxes.csv                columns stem,x1,y1,x2,y2 in pixels, and optionally ignore: 1 for a box that is neither to
                               be found nor wrong to be found; an image without a row has no object
      annotations.json …       or boxes as COCO, Pascal VOC or YOLO write them: see annotations.py
      split.csv                optional: columns stem,split with split = train, validation or unused
      classes.txt              optional: two names, background and what the boxes hold
      SOURCE.txt               optional: licence and citation

Images are standardised whole. The held-back ones are then cut into tiles of 256 px, which are what is judged. A box
that a cut leaves less than half of is ignored; else its visible part is the box.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossmith.lab.data.annotations import find_annotations, read_annotations
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.files import image_shape, read_image
from lossmith.lab.data.index import MASKS, Index, index_images, part_of, read_headers

Array = np.ndarray[Any, Any]

TILE = 256
_LEAST_VISIBLE = 0.5
_SIDES = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Scene:
    """An image (channels, H, W) float32, its boxes (M, 4) as x1, y1, x2, y2, and which of them are ignored (M,)."""

    stem: str
    image: Array
    boxes: Array
    ignore: Array


@dataclass(frozen=True)
class Scenes:
    """A folder, read: whole images to train on, and the tiles that are held back."""

    name: str
    train: list[Scene]
    validation: list[Scene]
    classes: list[str]
    source: str
    fingerprint: str

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return int(self.train[0].image.shape[0])


def clip_boxes(boxes: Array, ignore: Array, window: tuple[int, int, int, int]) -> tuple[Array, Array]:
    """The boxes that reach into a window (x1, y1, x2, y2), clipped and counted from its corner, and which to ignore."""
    low, high = np.array(window[:2] * 2), np.array(window[2:] * 2)
    clipped = np.clip(boxes, low, high)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    seen = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / area
    inside = seen > 0
    return (clipped - low)[inside], (ignore | (seen < _LEAST_VISIBLE))[inside]


def cut(scene: Scene, window: tuple[int, int, int, int], stem: str) -> Scene:
    """A window of a scene."""
    boxes, ignore = clip_boxes(scene.boxes, scene.ignore, window)
    x1, y1, x2, y2 = window
    return Scene(stem, scene.image[:, y1:y2, x1:x2], boxes, ignore)


def tiles(scene: Scene) -> list[Scene]:
    """The scene in tiles of at most 256 px, row by row."""
    return [cut(scene, window, f"{scene.stem} x{window[0]} y{window[1]}") for window in _windows(scene.image.shape)]


def _windows(shape: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Where the tiles of an image (channels, H, W) lie."""
    height, width = shape[1:]
    return [
        (x, y, min(x + TILE, width), min(y + TILE, height))
        for y in range(0, height, TILE)
        for x in range(0, width, TILE)
    ]


BoxTable = tuple[dict[str, Array], dict[str, Array]]


def holds_boxes(folder: Path) -> bool:
    """Whether a folder says where things lie; with masks too, those are what is asked for."""
    if (folder / "boxes.csv").is_file():
        return True
    others = (folder / part_of(folder, MASKS)).is_dir()
    return not others and not (folder / "labels.csv").is_file() and find_annotations(folder) is not None


def index_scenes(folder: Path) -> tuple[Index, BoxTable]:
    """A folder of images and boxes, indexed; and by stem the boxes (M, 4) and which of them are ignored (M,)."""
    index = index_images(folder)
    faults = index.faults
    index.partners = dict.fromkeys(index.images, folder / "boxes.csv")
    index.shapes = read_headers(index.images, image_shape, faults)
    first = next(iter(index.shapes), "")
    for stem, shape in index.shapes.items():
        if len(shape) != 3 or shape[0] != index.shapes[first][0]:
            what = f"shape {shape}, but {index.images[first].name} has {index.shapes[first]}"
            fix = "boxes need 2-D images with the same number of channels"
            faults.append(Fault(index.images[stem], what, fix))
    table = folder / "boxes.csv"
    read = _read_boxes if table.is_file() else _read_others
    boxes = read(index) if index.images else ({}, {})
    index.read_tables()
    if index.classes and len(index.classes) != 2:
        faults.append(Fault(folder / "classes.txt", "boxes are of one class", "name two, background first"))
    if not any(fault.fatal for fault in faults):  # else there may be boxes in what could not be read
        faults += [
            Fault(table if table.is_file() else folder, f"no box in the images marked {part}")
            for part in ("train", "validation")
            if all(_ignored(stem, index, boxes).all() for stem in index.images if index.split[stem] == part)
        ]
    return index, boxes


def _ignored(stem: str, index: Index, boxes: BoxTable) -> Array:
    """Which boxes of an image are ignored: of a held-back one, in all its tiles."""
    found, ignore = boxes[0][stem], boxes[1][stem]
    if index.split[stem] == "train":
        return ignore
    return np.concatenate([clip_boxes(found, ignore, window)[1] for window in _windows(index.shapes[stem])])


def read_scenes(folder: Path, name: str) -> Scenes:
    """Read a folder of images and boxes (see the top of this file). Raises `UserError` naming the file and the fix."""
    index, (boxes, ignore) = index_scenes(folder)
    index.check()
    scenes = {s: Scene(s, read_image(path), boxes[s], ignore[s]) for s, path in index.images.items()}
    train = [scenes[s] for s in scenes if index.split[s] == "train"]
    validation = [tile for s in scenes if index.split[s] == "validation" for tile in tiles(scenes[s])]
    return Scenes(
        name=name,
        train=train,
        validation=validation,
        classes=index.classes or ["background", "object"],
        source=index.source,
        fingerprint=_fingerprint([(index.split[s], scene) for s, scene in scenes.items()]),
    )


def _read_boxes(index: Index) -> BoxTable:
    path = index.folder / "boxes.csv"
    boxes: dict[str, list[list[float]]] = {stem: [] for stem in index.images}
    ignore: dict[str, list[bool]] = {stem: [] for stem in index.images}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"stem", *_SIDES} <= set(rows.fieldnames or ()):
            what = "the first line must be stem,x1,y1,x2,y2 or stem,x1,y1,x2,y2,ignore"
            index.faults.append(Fault(path, what))
            return {}, {}
        for row in rows:
            wrong = _wrong_row(row, index)
            if wrong:
                index.faults.append(Fault(path, wrong, line=rows.line_num))
            if wrong or row["stem"] in index.unread:
                continue
            boxes[row["stem"]].append([float(row[side]) for side in _SIDES])
            ignore[row["stem"]].append(row.get("ignore") == "1")
    return _as_arrays(boxes, ignore)


def _read_others(index: Index) -> BoxTable:
    boxes: dict[str, list[tuple[float, ...]]] = {stem: [] for stem in index.images}
    ignore: dict[str, list[bool]] = {stem: [] for stem in index.images}
    for box in read_annotations(index):
        boxes[box.stem].append(box.sides)
        ignore[box.stem].append(box.ignore)
    return _as_arrays(boxes, ignore)


def _as_arrays(boxes: Mapping[str, Sequence[Sequence[float]]], ignore: dict[str, list[bool]]) -> BoxTable:
    return (
        {stem: np.array(found, dtype=np.float64).reshape(-1, 4) for stem, found in boxes.items()},
        {stem: np.array(found, dtype=bool) for stem, found in ignore.items()},
    )


def _wrong_row(row: dict[str, str], index: Index) -> str:
    """What is wrong with a row of boxes.csv; "" if nothing is."""
    if row["stem"] not in index.images and row["stem"] not in index.unread:
        return f"there is no image with the stem {row['stem']!r}"
    try:
        box = [float(row[side]) for side in _SIDES]
    except (TypeError, ValueError):
        return "x1, y1, x2, y2 must be numbers"
    shape = index.shapes.get(row["stem"], ())
    if len(shape) == 3:  # of an image that cannot be read nobody knows whether the box lies inside
        height, width = shape[1:]
        if not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            return f"the box {box} must have x1 < x2 and y1 < y2 inside its {width} x {height} image"
    if (row.get("ignore") or "0") not in ("0", "1"):
        return f"ignore must be 0 or 1, got {row['ignore']!r}"
    return ""


def _fingerprint(scenes: list[tuple[str, Scene]]) -> str:
    """Changes when any pixel, box, name or split changes."""
    digest = hashlib.sha256()
    for part, scene in scenes:
        digest.update(f"{scene.stem} {part} {scene.image.shape}".encode())
        for array in (scene.image, scene.boxes, scene.ignore):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]
