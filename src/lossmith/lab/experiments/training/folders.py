"""Folders that experiments make out of the built-in sets: parts of them, which the lab reads like any other folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lossmith.lab.data.builtin import Say, find_folder
from lossmith.lab.data.scenes import clip_boxes
from lossmith.lab.data.sets import finish_folder

Array = np.ndarray[Any, Any]
Frames = Mapping[str, tuple[Array, Array]]  # by stem: the grey values, and the labels
Window = tuple[int, int, int, int]  # x1, y1, x2, y2

TRAIN, HELD_BACK = range(12), range(14, 20)  # of the frames of the bacteria, as the built-in set has them


def frames(name: str, numbers: Iterable[int], say: Say, side: int = 0) -> dict[str, tuple[Array, Array]]:
    """Frames of `bacteria` or `bacteria3`; with a side, of each the window of so many pixels around its colony."""
    source = find_folder(name, say)
    found = {}
    for stem in (f"frame_{number:02d}" for number in numbers):
        grey, labels = (np.asarray(Image.open(source / part / f"{stem}.png")) for part in ("images", "masks"))
        cells = np.argwhere(labels).mean(0)
        corner = [int(np.clip(at - side / 2, 0, n - side)) for at, n in zip(cells, labels.shape, strict=True)]
        window = tuple(slice(at, at + side) if side else slice(None) for at in corner)
        found[stem] = grey[window], labels[window]
    return found


def write_frames(folder: Path, name: str, train: Frames, held_back: Frames, say: Say) -> Path:
    """A folder of frames of `name`, these to train on and those to judge by."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    split = {}
    for side, samples in (("train", train), ("validation", held_back)):
        for stem, (grey, labels) in samples.items():
            Image.fromarray(grey).save(folder / "images" / f"{stem}.png")
            Image.fromarray(labels).save(folder / "masks" / f"{stem}.png")
            split[stem] = side
    return _finished(folder, find_folder(name, say), split)


def read_masks(data: str | Path, say: Say) -> dict[str, list[Array]]:
    """The masks of a folder by the side of its split, "train" or "validation"; none if it has none."""
    folder = find_folder(str(data), say)
    if not (folder / "masks").is_dir():
        return {}
    found: dict[str, list[Array]] = {"train": [], "validation": []}
    with (folder / "split.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] in found:
                found[row["split"]].append(np.asarray(Image.open(folder / "masks" / f"{row['stem']}.png")))
    return found


def foreground(data: str | Path, ignore_index: int, say: Say) -> dict[str, float]:
    """The share of all pixels with a label that is not the background, by the side of the split."""
    shares = {}
    for side, masks in read_masks(data, say).items():
        pixels = np.concatenate([mask.ravel() for mask in masks])
        shares[side] = float((pixels[pixels != ignore_index] > 0).mean())
    return shares


def write_trees(folder: Path, windows: Mapping[str, Window], say: Say) -> Path:
    """A folder of windows of `trees`, by the stems of its images."""
    source = find_folder("trees", say)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (source / "boxes.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    with (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(head)
        for stem, window in windows.items():
            with Image.open(source / "images" / f"{stem}.png") as picture:
                picture.crop(window).save(folder / "images" / f"{stem}.png")
            boxes = np.array([row[1:] for row in rows if row[0] == stem], dtype=np.float64)
            inside, ignore = clip_boxes(boxes[:, :4], boxes[:, 4] > 0, window)
            table.writerows([stem, *box, int(cut)] for box, cut in zip(inside.tolist(), ignore.tolist(), strict=True))
    return _finished(folder, source, {"left": "train", "right": "validation"})


def _finished(folder: Path, source: Path, split: Mapping[str, str]) -> Path:
    classes: Sequence[str] = (source / "classes.txt").read_text(encoding="utf-8").splitlines()
    said = (source / "SOURCE.txt").read_text(encoding="utf-8").strip()
    finish_folder(folder, list(classes), dict(split), f"Parts of: {said}")
    return folder
