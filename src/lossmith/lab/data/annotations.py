"""Boxes as other tools write them: COCO's JSON, Pascal VOC's XML, YOLO's text. All are found as things of one class.

annotations.json, annotations/*.json   COCO: images by file_name, bbox = [x, y, width, height]; iscrowd is ignored
Annotations/a.xml …                    Pascal VOC: bndbox, counted from 1; difficult is ignored
labels/a.txt …                         YOLO: class, middle, width and height as shares of the image; or a polygon
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

from lossmith.lab.data.faults import Fault, Faulty
from lossmith.lab.data.files import stem_of, suffix_of
from lossmith.lab.data.index import Index
from lossmith.lab.data.nnunet import read_json

_MOST_BYTES = 2**24  # of one image's XML or text
_SLACK = 1.0  # pixels that rounding may push a box over the edge


class Box(NamedTuple):
    """One box, x1, y1, x2, y2 in pixels, and where it was found."""

    stem: str
    sides: tuple[float, ...]
    name: str
    ignore: bool
    path: Path
    line: int | None = None


def find_annotations(folder: Path) -> Callable[[Index], Iterator[Box]] | None:
    """What reads the boxes of a folder without boxes.csv; None if there are none."""
    if any(_files(folder, ("Annotations", "annotations"), ".xml")):
        return _read_voc
    if any(_json_files(folder)):
        return _read_coco
    if any(_files(folder, ("labels",), ".txt")):
        return _read_yolo
    return None


def read_annotations(index: Index) -> list[Box]:
    """All boxes that lie inside their image, clipped by what rounding is; the rest are faults of the index."""
    read = find_annotations(index.folder)
    boxes = []
    for box in read(index) if read else ():
        height, width = index.shapes.get(box.stem, (0, 0, 0))[1:]
        x1, y1, x2, y2 = box.sides
        if box.stem in index.unread or box.stem not in index.shapes:
            continue
        clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        moved = max(abs(a - b) for a, b in zip(box.sides, clipped, strict=True))
        if not (moved <= _SLACK and clipped[0] < clipped[2] and clipped[1] < clipped[3]):
            sides = [round(side, 2) for side in box.sides]
            what = f"the box {sides} of {box.stem!r} must have x1 < x2 and y1 < y2 inside its {width} x {height} image"
            index.faults.append(Fault(box.path, what, line=box.line))
            continue
        boxes.append(box._replace(sides=clipped))
    names = sorted({box.name for box in boxes})
    if len(names) > 1:
        named = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        what = f"holds boxes of {len(names)} classes ({named}); all are found as things of one class"
        fix = "for one of them alone, keep only its boxes"
        index.faults.append(Fault(boxes[0].path.parent, what, fix, fatal=False))
    return boxes


def _files(folder: Path, parts: tuple[str, ...], suffix: str) -> Iterator[Path]:
    for part in parts:
        if (folder / part).is_dir():
            yield from sorted(p for p in (folder / part).rglob(f"*{suffix}") if not p.name.startswith("."))
            return


def _json_files(folder: Path) -> list[Path]:
    beside = [path for path in sorted(folder.glob("*.json")) if path.name != "dataset.json"]
    return beside + list(_files(folder, ("annotations",), ".json"))


def _stem(index: Index, name: str) -> str:
    """Of the image that a file's name means, with its folders or without."""
    path = PurePosixPath(name.replace("\\", "/"))
    whole = path.with_name(stem_of(Path(path.name)) if suffix_of(Path(path.name)) else path.stem).as_posix()
    return whole if whole in index.images or whole in index.unread else PurePosixPath(whole).name


def _report(index: Index, path: Path, listed: set[str], absent: list[str]) -> None:
    """Images that no file speaks of may hold things; and files may speak of images that are not there."""
    fix = "an image without things is to be listed too; else move it"
    index.faults += [
        Fault(image, "has no annotation", fix) for stem, image in index.images.items() if stem not in listed
    ]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        index.faults.append(Fault(path, f"skipped {absent[0]!r}{more}: there is no such image", fatal=False))


# ------------------------------------------------------------------------------------------------------------- formats


def _read_coco(index: Index) -> Iterator[Box]:
    listed: set[str] = set()
    absent: list[str] = []
    paths = _json_files(index.folder)
    for path in paths:
        try:
            found = read_json(path)
            if not isinstance(found, dict) or not {"images", "annotations"} <= found.keys():
                continue
            names = {category["id"]: str(category["name"]) for category in found.get("categories", [])}
            stems = {image["id"]: _stem(index, str(image["file_name"])) for image in found["images"]}
        except Faulty as error:
            index.faults.append(error.fault)
            continue
        except (KeyError, TypeError) as error:
            index.faults.append(Fault(path, f"is no COCO file ({error!r})", "each image needs id and file_name"))
            continue
        absent += [stem for stem in stems.values() if stem not in index.images and stem not in index.unread]
        listed |= set(stems.values())
        yield from _coco_boxes(index, path, found["annotations"], stems, names)
    _report(index, paths[0], listed, absent)


def _coco_boxes(index: Index, path: Path, rows: Any, stems: dict[Any, str], names: dict[Any, str]) -> Iterator[Box]:
    for number, row in enumerate(rows):
        try:
            x, y, width, height = (float(side) for side in row["bbox"])
            stem, name = stems[row["image_id"]], names.get(row.get("category_id"), "object")
        except (KeyError, TypeError, ValueError) as error:
            what = f"annotation {number} cannot be read ({error!r})"
            fix = "each needs image_id and bbox = [x, y, width, height]"
            index.faults.append(Fault(path, what, fix))
            continue
        yield Box(stem, (x, y, x + width, y + height), name, bool(row.get("iscrowd")), path)


class _NoDoctype(ElementTree.TreeBuilder):
    """A document type is where entities are declared that grow without bound, or read other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type")


def _read_voc(index: Index) -> Iterator[Box]:
    folder, listed, absent = index.folder, set(), []
    for path in _files(folder, ("Annotations", "annotations"), ".xml"):
        stem = _stem(index, path.relative_to(folder).as_posix().partition("/")[2])
        if stem not in index.images and stem not in index.unread:
            absent.append(stem)
            continue
        listed.add(stem)
        try:
            root = ElementTree.fromstring(_text(path), ElementTree.XMLParser(target=_NoDoctype()))
            for thing in root.iter("object"):
                name, difficult = thing.findtext("name") or "object", thing.findtext("difficult") == "1"
                box = thing.find("bndbox")
                texts = ["" if box is None else box.findtext(s) or "" for s in ("xmin", "ymin", "xmax", "ymax")]
                x1, y1, x2, y2 = (float(text) for text in texts)
                yield Box(stem, (x1 - 1, y1 - 1, x2, y2), name, difficult, path)
        except (ElementTree.ParseError, ValueError) as error:
            index.faults.append(
                Fault(path, f"is no Pascal VOC file ({error})", "each object needs a bndbox of numbers")
            )
    _report(index, folder, listed, absent)


def _read_yolo(index: Index) -> Iterator[Box]:
    folder, absent = index.folder, []
    for path in _files(folder, ("labels",), ".txt"):
        if path.name == "classes.txt":
            continue
        stem = _stem(index, path.relative_to(folder / "labels").as_posix())
        if stem not in index.images and stem not in index.unread:
            absent.append(stem)
            continue
        shape = index.shapes.get(stem, ())
        for number, line in enumerate(_text(path).splitlines() if len(shape) == 3 else (), 1):
            box = _yolo_sides(line)
            if box is None:
                what, fix = f"{line[:40]!r} is no box of YOLO", "write class, x, y, width and height, each from 0 to 1"
                index.faults.append(Fault(path, what, fix, line=number))
            elif box:
                height, width = shape[1:]
                sides = tuple(share * side for share, side in zip(box, (width, height) * 2, strict=True))
                yield Box(stem, sides, f"class {line.split()[0]}", False, path, number)
    _report(index, folder, set(index.images), absent)  # an image without things has no file


def _yolo_sides(line: str) -> tuple[float, ...] | None:
    """x1, y1, x2, y2 as shares of the image; () for an empty line, None for what is no box."""
    try:
        shares = [float(word) for word in line.split()[1:]]
    except ValueError:
        return None
    if not line.split():
        return ()
    if not all(map(math.isfinite, shares)):
        return None
    if len(shares) == 4:
        x, y, width, height = shares
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(shares) >= 6 and len(shares) % 2 == 0:  # a polygon
        return min(shares[::2]), min(shares[1::2]), max(shares[::2]), max(shares[1::2])
    return None


def _text(path: Path) -> str:
    """What a file holds; nothing that is a box, if it is larger than those of one image are."""
    if path.stat().st_size > _MOST_BYTES:
        return f"more than {_MOST_BYTES / 1e6:.0f} MB"
    return path.read_text(encoding="utf-8-sig", errors="replace")
