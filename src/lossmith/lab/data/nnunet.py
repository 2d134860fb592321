"""dataset.json of nnU-Net and of the Medical Segmentation Decathlon: what classes and channels are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from lossmith.lab.data.faults import Fault, Faulty

_MOST_BYTES = 2**30  # COCO's own largest has 0.45 · 10⁹


class DataSet(NamedTuple):
    """What dataset.json says: nothing if there is none."""

    classes: list[str] = []  # noqa: RUF012  # of a tuple, which nobody changes
    ignored: int | None = None
    channels: int | None = None


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `Faulty`."""
    if path.stat().st_size > _MOST_BYTES:
        raise Faulty(path, f"is larger than {_MOST_BYTES / 1e9:.1f} GB", "keep what the images need in it")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Faulty(path, f"cannot be read as JSON ({error})") from error


def read_dataset(folder: Path, faults: list[Fault]) -> DataSet:
    """What dataset.json says."""
    path = folder / "dataset.json"
    if not path.is_file():
        return DataSet()
    try:
        found = read_json(path)
        labels = found.get("labels") if isinstance(found, dict) else None
        if not isinstance(labels, dict) or not labels:
            raise Faulty(path, "has no labels", 'name them: "labels": {"background": 0, "tumour": 1}')
        numbers = _numbers(path, labels)
    except Faulty as error:
        faults.append(error.fault)
        return DataSet()
    ignored = next((k for k, name in numbers.items() if name.lower() == "ignore"), None)
    classes = [name for k, name in sorted(numbers.items()) if k != ignored]
    if sorted(numbers.keys() - {ignored}) != list(range(len(classes))) or len(classes) < 2:
        faults.append(Fault(path, f"its labels are {sorted(numbers)}", "number them 0, 1, 2 … without gaps"))
        return DataSet()
    channels = found.get("channel_names", found.get("modality"))
    return DataSet(classes, ignored, len(channels) if isinstance(channels, dict) else None)


def _numbers(path: Path, labels: dict[str, Any]) -> dict[int, str]:
    """The names by number: nnU-Net says {"tumour": 1}, the Decathlon {"1": "tumour"}."""
    numbers = {}
    for name, value in labels.items():
        if isinstance(value, list):
            what = f"the label {name!r} is a region of {value}: regions overlap, and here a pixel has one class"
            raise Faulty(path, what, "give each label its own number")
        key, called = (value, name) if isinstance(value, int) else (name, value)
        if not str(key).isdecimal() or not isinstance(called, str):
            raise Faulty(path, f"the label {name!r} is {value!r}", "give each label its own number")
        numbers[int(key)] = called
    return numbers
