"""What a data folder holds, by its names, headers and tables, before a pixel is read; and what is wrong in it.

Each kind of data makes its own `Index` of this: see labelled.py and scenes.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lossmith.lab.data.faults import Fault, Faulty, raise_first
from lossmith.lab.data.files import FORMATS, orientation, stem_of, suffix_of, suffixes_beside
from lossmith.lab.data.groups import read_groups
from lossmith.lab.data.nnunet import DataSet, read_dataset
from lossmith.lab.data.tables import read_class_names, read_source, read_split

Shape = tuple[int, ...]

IMAGES = ("images", "imagesTr", "JPEGImages")
MASKS = ("masks", "labels", "labelsTr")
MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt")
_NO_IMAGES = (
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log"),
    *(".db", ".ini", ".lnk", ".py", ".sh", ".zip", ".gz", ".tar"),
)
_PAPERS = ("README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "CITATION", "CHANGELOG")


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
    pages: str | None = None  # what the pages of a TIFF are, "volume" or "channels"; None if nobody said
    dataset: DataSet = field(default_factory=DataSet)

    @property
    def stems(self) -> list[str]:
        """Of all images, sorted by name of file."""
        return list(self.images)

    @property
    def largest(self) -> int:
        """How many numbers the largest image has."""
        return max((math.prod(shape) for shape in self.shapes.values()), default=1)

    def read_tables(self, group_by: str | None = None) -> None:
        """classes.txt or dataset.json, split.csv and SOURCE.txt."""
        self.classes = read_class_names(self.folder, self.faults) or self.dataset.classes
        if self.images:
            self.groups = read_groups(self.folder, self.stems, self.faults, self.unread, group_by)
            self.split = read_split(self.folder, self.stems, self.faults, self.unread, self.groups)
        self.source = read_source(self.folder)

    def check(self) -> None:
        """Raises `UserError` for the first fatal fault."""
        raise_first(self.faults)


def part_of(folder: Path, names: tuple[str, ...]) -> str:
    """What the folder of images or of masks is called here; the first of its names if there is none."""
    return next((name for name in names if _holds_files(folder / name)), names[0])


def _holds_files(folder: Path) -> bool:
    """Whether there is such a folder; labels/ may hold boxes of YOLO instead."""
    return folder.is_dir() and (folder.name != "labels" or any(suffix_of(path) for path in folder.rglob("*")))


def list_part(folder: Path, part: str, faults: list[Fault]) -> dict[str, Path] | None:
    """The files of images/ or masks/ by stem, sorted by name; None if there is no such folder."""
    if (folder / part).is_dir():
        return list_files(folder / part, faults)
    fix = "expected images/ and masks/, paired by stem, or images/ and labels.csv, or images/ and boxes.csv"
    there = sorted(f"{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    named = f", only {', '.join(there[:4])}{', …' if there[4:] else ''}" if there else ""
    faults.append(Fault(folder, f"there is no folder {part}/ in it{named}", fix))
    return None


def index_images(folder: Path, fix: str = "", pages: str | None = None) -> Index:
    """The images of a folder, their headers still unread. `fix` is said where there is none."""
    faults: list[Fault] = []
    part = part_of(folder, IMAGES)
    images = list_part(folder, part, faults)
    unread = unread_in(folder / part, faults) - (images or {}).keys()
    if images == {} and not unread:
        faults.append(Fault(folder / part, "no image in it", fix))
    index = Index(folder, images or {}, {}, faults, unread, pages=pages)
    if part == "imagesTr":
        index.dataset = read_dataset(folder, faults)
        index.images = _cases(index.images, faults)
    return index


def list_masks(index: Index) -> None:
    """Gives every image its mask: of the same stem, perhaps with an ending such as _mask."""
    part = part_of(index.folder, MASKS)
    found = list_part(index.folder, part, index.faults)
    if found is None:
        return
    masks = _without_endings(found, index.images)
    unread, images = unread_in(index.folder / part, index.faults), index.images.keys() | index.unread
    missing = [(path, "mask", part, s) for s, path in index.images.items() if s not in masks.keys() | unread]
    missing += [(path, "image", part_of(index.folder, IMAGES), s) for s, path in masks.items() if s not in images]
    for path, what, where, stem in missing:
        fix = f"expected {where}/{stem} with {suffixes_beside(path)}"
        index.faults.append(Fault(path, f"no {what} for it", fix))
    index.partners = {stem: masks[stem] for stem in index.images if stem in masks}


def _without_endings(masks: dict[str, Path], images: dict[str, Path]) -> dict[str, Path]:
    """The masks by the stems of their images."""
    named: dict[str, Path] = {}
    for stem, path in masks.items():
        short = next((stem.removesuffix(end) for end in MASK_ENDINGS if stem.endswith(end)), stem)
        taken = stem in images or short not in images or short in masks or short in named
        named[stem if taken else short] = path
    return named


def _cases(files: dict[str, Path], faults: list[Fault]) -> dict[str, Path]:
    """The cases of nnU-Net, each by the file of its first channel; the Decathlon's have no number."""
    cases = {}
    for stem, path in files.items():
        case, _, number = stem.rpartition("_")
        if not (case and len(number) == 4 and number.isdecimal()):
            cases[stem] = path
        elif number == "0000":
            cases[case] = path
        elif f"{case}_{int(number) - 1:04d}" not in files:
            what = f"the channel before it, {case}_{int(number) - 1:04d}, is missing"
            faults.append(Fault(path, what, "give every case all its channels, from _0000 on"))
    return cases


def unread_in(folder: Path, faults: list[Fault]) -> set[str]:
    """The stems of the files in a folder that are at fault."""
    paths = [fault.path for fault in faults if fault.fatal and folder in fault.path.parents]
    return {path.relative_to(folder).with_suffix("").as_posix() for path in paths}


def list_files(folder: Path, faults: list[Fault]) -> dict[str, Path]:
    """The files that can be read by stem, sorted by name. The stem of one in a sub-folder is patient/name."""
    files: dict[str, Path] = {}
    stray = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_dir() or any(part.startswith((".", "__MACOSX")) for part in inside.parts):
            continue
        stem = inside.with_name(stem_of(path)).as_posix() if stem_of(path) else path.name
        if not suffix_of(path) and (path.suffix.lower() in _NO_IMAGES or path.stem.upper() in _PAPERS):
            stray.append(inside.as_posix())
        elif not suffix_of(path):
            what = f"cannot read {path.suffix or 'this'}"
            faults.append(Fault(path, what, f"save it as {FORMATS}, or move it"))
        elif stem in files:
            faults.append(Fault(path, f"{files[stem].name} has the same stem", "keep one of the two"))
        else:
            files[stem] = path
    if stray:
        named = ", ".join(stray[:3]) + (f" and {len(stray) - 3} more" if len(stray) > 3 else "")
        faults.append(Fault(folder, f"skipped what is no image: {named}", fatal=False))
    return files


def turned(index: Index) -> None:
    """Says once that images are turned upright where the shape of their masks does not tell which way these lie."""
    unsure = [
        path
        for stem, path in index.images.items()
        if stem in index.shapes and stem in index.partners and orientation(path) != orientation(index.partners[stem])
    ]
    if unsure:
        more = f", and so are {len(unsure) - 1} more" if len(unsure) > 1 else ""
        what = f"its orientation tag is not that of its mask; it is shown upright{more}"
        fix = "if the mask was drawn on the pixels as they are stored, remove the tag"
        index.faults.append(Fault(unsure[0], what, fix, fatal=False))


def read_headers(paths: dict[str, Path], shape: Callable[[Path], Shape], faults: list[Fault]) -> dict[str, Shape]:
    """The shapes by stem, of those files that have one."""
    found = {}
    for stem, path in paths.items():
        try:
            found[stem] = shape(path)
        except Faulty as error:
            faults.append(error.fault)
    return found
