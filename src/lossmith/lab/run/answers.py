"""What a network that a comparison trained says of other images: its kept weights, read back, and its answers as files.

FOLDER/a.png          class numbers of an image's pixels, as masks have them
FOLDER/a.nii.gz       the same of a volume, with the place of the image in space
FOLDER/labels.csv     where whole images are labelled: stem, label, and the probability of each class
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image
from torch import nn

from lossmith.lab import UserError
from lossmith.lab.data.faults import raise_first
from lossmith.lab.data.files import FORMATS, read_image
from lossmith.lab.data.index import list_files
from lossmith.lab.data.labelled import Data
from lossmith.lab.data.samples import Sample
from lossmith.lab.kind import Kind
from lossmith.lab.kinds import all_kinds
from lossmith.lab.run import kept
from lossmith.lab.run.predict import predict, predict_labels
from lossmith.lab.run.records import write
from lossmith.lab.settings import FROM_PYTHON, RunSettings

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Winner:
    """A loss, the kept weights of its best seed, and what they are the weights of."""

    loss: str
    path: Path
    kind: Kind
    settings: RunSettings
    classes: list[str]

    def network(self, sample: Sample) -> nn.Module:
        """The trained network, for images like the sample. Raises `UserError` if its images were others."""
        data = Data("", [sample], [sample], self.classes, self.settings.ignore_index, "", "")
        network = self.kind.network(data, self.settings)
        try:
            network.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged file raises whatever it likes
            said = " ".join(str(error).split())[:120]
            raise UserError(
                f"{self.path}: does not fit images {sample.shape}, (channels, height, width) ({said}); "
                "give images like those it was trained on"
            ) from error
        return network.to(self.settings.device)


def winner(out: Path, loss: str | None, device: str) -> Winner:
    """The network to use of a finished comparison, or that of a loss. Raises `UserError` where there is none."""
    try:
        results: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
        found, use = results["settings"], results["decision"]["use"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{out}: holds no finished comparison; run lossmith compare --keep best --out {out} first"
        ) from error
    loss = loss or use
    if loss is None:
        raise UserError(f"{out}: the comparison found no loss to use; name one with --loss")
    kind = next(kind for kind in all_kinds().values() if kind.name == results["kind"])
    if kind.name not in ("segmentation", "classification"):
        raise UserError(f"{out}: was trained on boxes, and only pixels and whole images are predicted")
    paths = kept.found(results["trials"], loss, results["ranked_by"], out)
    if not paths:
        raise UserError(
            f'{out}: no weights of "{loss}" are kept; compare with --keep best, in a new --out where it is finished'
        )
    if FROM_PYTHON in (found["model"] or ""):
        raise UserError(f"{out}: its network was given in Python; build it there and load {paths[0]}")
    known = {name: found[name] for name in (each.name for each in fields(RunSettings)) if name in found}
    known |= {"device": device, "features": tuple(found["features"]), "rates": tuple(found["rates"])}
    return Winner(loss, paths[0], kind, RunSettings(**known), results["classes"])


def answer(winner: Winner, images: Path, to: Path, watch: Callable[[int, int], None]) -> int:
    """Write what the network says of every image of a folder; returns how many there are."""
    if not images.is_dir():
        raise UserError(f"{images}: is no folder of images")
    faults: list[Any] = []
    paths = list_files(images, faults)
    raise_first(faults)
    if not paths:
        raise UserError(f"{images}: no image in it; expected {FORMATS}")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to {to}: cannot be written to ({error.strerror}); choose another folder") from error
    whole = winner.kind.name == "classification"
    network: nn.Module | None = None
    rows = []
    for done, (stem, path) in enumerate(paths.items()):
        watch(done, len(paths))
        image = read_image(path, winner.settings.pages)
        label = np.zeros(() if whole else image.shape[1:], np.int32)
        sample = Sample(stem, image, label)
        network = network or winner.network(sample)
        if whole:
            _, probabilities = predict_labels(network, [sample], winner.settings)
            rows.append([stem, int(probabilities[:, 0].argmax()), *(f"{p:.6g}" for p in probabilities[:, 0])])
        else:
            _write_mask(predict(network, sample, winner.settings).argmax(0), len(winner.classes), path, to / stem)
    if whole:
        write(to / "labels.csv", _table(["stem", "label", *(f"p({name})" for name in winner.classes)], rows))
    return len(paths)


def _write_mask(label: Array, classes: int, image: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)  # images may lie in sub-folders
    label = label.astype(np.uint8 if classes <= 256 else np.uint16)
    if label.ndim == 2:
        packed = io.BytesIO()
        Image.fromarray(label).save(packed, "PNG")
        write(target.with_name(f"{target.name}.png"), packed.getvalue())
        return
    affine: Any = np.eye(4)
    if ".nii" in image.name:
        affine = nibabel.load(image).affine  # type: ignore[attr-defined]
    nibabel.save(nibabel.Nifti1Image(label, affine), target.with_name(f"{target.name}.nii.gz"))  # type: ignore[no-untyped-call]


def _table(header: list[str], rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
