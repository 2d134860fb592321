"""The boxes of boxes.csv as other tools write them; boxes.csv goes."""

import csv
import json
from pathlib import Path

from PIL import Image


def rows(folder: Path) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {path.stem: [] for path in sorted((folder / "images").iterdir())}
    with (folder / "boxes.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["stem"]].append([float(row[side]) for side in ("x1", "y1", "x2", "y2")])
    (folder / "boxes.csv").unlink()
    return found


def write_coco(folder: Path) -> Path:
    images, annotations = [], []
    for number, (stem, boxes) in enumerate(rows(folder).items(), 7):
        images.append({"id": number, "file_name": f"{stem}.png"})
        for x1, y1, x2, y2 in boxes:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, "bbox": bbox})
    categories = [{"id": 1, "name": "crown"}, {"id": 2, "name": "bush"}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def write_voc(folder: Path) -> Path:
    (folder / "Annotations").mkdir()
    for stem, boxes in rows(folder).items():
        things = "".join(
            f"<object><name>crown</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for x1, y1, x2, y2 in boxes
        )
        path = folder / "Annotations" / f"{stem}.xml"
        path.write_text(f"<annotation><filename>{stem}.png</filename>{things}</annotation>")
    return path


def write_yolo(folder: Path) -> Path:
    (folder / "labels").mkdir()
    for stem, boxes in rows(folder).items():
        with Image.open(folder / "images" / f"{stem}.png") as picture:
            width, height = picture.size
        lines = [
            f"0 {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}"
            for x1, y1, x2, y2 in boxes
        ]
        path = folder / "labels" / f"{stem}.txt"
        path.write_text("\n".join(lines) + "\n")
    return path
