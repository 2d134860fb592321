"""What is asked of a comparison, and what all its trials then share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Quality = Literal["none", "centerness", "iou"]
Pages = Literal["volume", "channels"]
Precision = Literal["fp32", "bf16", "fp16"]
Keep = Literal["best", "all"]  # of each loss the weights of the seed that scored highest, or of every seed
USUAL_RATE = 3e-3
FROM_PYTHON = "from Python"  # stands in the name of a model that no command line can build
RATES = (1 / 3, 1.0, 3.0)  # what `--lr auto` tries, as multiples of the usual one


class Planned(NamedTuple):
    """One trial: what is trained with, from which seed, at which learning rate."""

    loss: str
    seed: int
    lr: float


@dataclass(frozen=True)
class Asked:
    """The options of `lossmith compare`; None stands for what is usual with the kind of data."""

    data: str
    task: str = "multiclass"
    steps: int | None = None
    crop: int | None = None
    batch: int | None = None
    lr: float | None = USUAL_RATE  # None: of each loss its own, chosen on a seed that serves for nothing else
    ignore_index: int = -100
    device: str = "cpu"
    devices: int = 1
    unlabelled: Path | None = None
    unlabelled_batch: int | None = None
    quality: Quality | None = None
    pages: Pages | None = None  # what the pages of a TIFF are
    group_by: str | None = None
    folds: int | None = None
    model: str | None = None  # see run/model.py
    precision: Precision = "fp32"
    clip: float | None = None


@dataclass(frozen=True)
class RunSettings:
    """What all trials of one comparison share. `crop` is 0 where each image has one label: it is shown whole."""

    data: str
    fingerprint: str
    task: str
    steps: int
    crop: int
    batch: int
    lr: float  # the usual one
    ignore_index: int
    device: str
    features: tuple[int, ...] = (8, 8, 16, 32, 64, 8)
    unlabelled: str | None = None  # a folder of images without masks, and how many crops of them join a step
    unlabelled_batch: int | None = None
    pages: Pages | None = None
    group_by: str | None = None  # how patients are told from names
    folds: int | None = None  # seed s holds back fold s modulo so many
    devices: int = 1  # on how many a trial trains; each has its part of the crops of a step
    model: str | None = None  # None: the network of the kind of data
    optimizer: str = "AdamW"
    precision: Precision = "fp32"
    clip: float | None = None  # the largest norm of a gradient
    rates: tuple[float, ...] = (1.0,)  # multiples of `lr`, of which each loss trains at its best
    record: int = 3  # what a trial's JSON looks like: folders with older ones are refused

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON would read them back."""
        return {**asdict(self), "features": list(self.features), "rates": list(self.rates)}
