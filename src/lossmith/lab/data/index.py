"""What a data folder holds, by its names, headers and tables, before a pixel is read; and what is wrong in it.

Each kind of data makes its own `Index` of this: see labelled.py and scenes.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lossmith.lab.data.faults import Fault, Faulty, raise_first
from lossmith.lab.data.files import FORMATS, stem_of, suffix_of
from lossmith.lab.data.groups import read_groups
from lossmith.lab.data.tables import read_class_names, read_source, read_split

Shape = tuple[int, ...]


@dataclass
class Index:
    """A folder, indexed. `partners` are the masks by stem, or the table that says something of every image."""

    folder: Path
    images: dict[str, Path]
    shapes: dict[str, Shape]  # (channels, *S), of every image whose header can be read
    faults: list[Fault]
    unread: set[str] = field(default_factory=set)  # stems of files in images/ that are no images: one fault is enough
    partners: dict[str, Path] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    split: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)  # stem → patient or the like; {} if nobody said
    source: str = ""

    @property
    def stems(self) -> list[str]:
        """Of all images, sorted by name of file."""
        return list(self.images)

    @property
    def largest(self) -> int:
        """How many numbers the largest image has."""
        return max((math.prod(shape) for shape in self.shapes.values()), default=1)

    def read_tables(self, group_by: str | None = None) -> None:
        """classes.txt, split.csv and SOURCE.txt."""
        self.classes = read_class_names(self.folder, self.faults)
        if self.images:
            self.groups = read_groups(self.folder, self.stems, self.faults, self.unread, group_by)
            self.split = read_split(self.folder, self.stems, self.faults, self.unread, self.groups)
        self.source = read_source(self.folder)

    def check(self) -> None:
        """Raises `UserError` for the first fatal fault."""
        raise_first(self.faults)


def list_part(folder: Path, part: str, faults: list[Fault]) -> dict[str, Path] | None:
    """The files of images/ or masks/ by stem, sorted by name; None if there is no such folder."""
    if (folder / part).is_dir():
        return list_files(folder / part, faults)
    fix = "expected images/ and masks/, paired by stem, or images/ and labels.csv, or images/ and boxes.csv"
    faults.append(Fault(folder, f"there is no folder {part}/ in it", fix))
    return None


def index_images(folder: Path, fix: str = "") -> Index:
    """The images of a folder, their headers still unread. `fix` is said where there is none."""
    faults: list[Fault] = []
    images = list_part(folder, "images", faults)
    unread = unread_in(folder / "images", faults) - (images or {}).keys()
    if images == {} and not unread:
        faults.append(Fault(folder / "images", "no image in it", fix))
    return Index(folder, images or {}, {}, faults, unread)


def unread_in(folder: Path, faults: list[Fault]) -> set[str]:
    """The stems of the files in a folder that are at fault."""
    return {fault.path.stem for fault in faults if fault.path.parent == folder}


def list_files(folder: Path, faults: list[Fault]) -> dict[str, Path]:
    """The files that can be read by stem, sorted by name."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not suffix_of(path):
            what = f"cannot read {path.suffix or 'this'}"
            faults.append(Fault(path, what, f"save it as {FORMATS}, or move it"))
        elif (stem := stem_of(path)) in files:
            faults.append(Fault(path, f"{files[stem].name} has the same stem", "keep one of the two"))
        else:
            files[stem] = path
    return files


def read_headers(paths: dict[str, Path], shape: Callable[[Path], Shape], faults: list[Fault]) -> dict[str, Shape]:
    """The shapes by stem, of those files that have one."""
    found = {}
    for stem, path in paths.items():
        try:
            found[stem] = shape(path)
        except Faulty as error:
            faults.append(error.fault)
    return found
