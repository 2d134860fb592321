"""A trial on two devices is the trial on one; where it would not be, one line says why."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from advice import Said, follows

from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data
from lossmith.lab.kinds.pixels import KIND
from lossmith.lab.run.comparison import Comparison
from lossmith.lab.run.local import LocalEngine
from lossmith.lab.settings import RunSettings

LOSS = "dice(per_image=false) + 0.5*focal + ce"  # ratios over the batch: apart, two halves train with another loss


@pytest.mark.slow
def test_two_devices_train_as_one(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    settings = replace(settings, steps=6, batch=3, ignore_index=0)  # parts of one and two crops, of few valid pixels
    one, two = (
        Comparison(KIND, data, replace(settings, devices=count)).run([LOSS], tmp_path / str(count), 1)[0][0]
        for count in (1, 2)
    )
    assert two["settings"]["devices"] == 2
    for name in ("weights_checksum", "crops_checksum", "parameters"):
        assert one[name] == two[name]
    assert two["training"]["loss"] == pytest.approx(one["training"]["loss"], rel=1e-5)
    assert two["gradient_norm_at_start"] == pytest.approx(one["gradient_norm_at_start"], rel=1e-5)
    assert two["validation"]["step"] == one["validation"]["step"]
    assert two["validation"]["score"] == pytest.approx(one["validation"]["score"], abs=1e-3)
    assert two["metrics"]["dice"] == pytest.approx(one["metrics"]["dice"], abs=1e-3)


@follows("give --batch {} or more")
def test_more_devices_than_crops(discs: Path, said: Said) -> None:
    line = said("compare", discs, "--devices", 4, "--batch", 2)
    assert line == "--devices 4: a step has 2 crops to share; give --batch 4 or more"
    assert said("compare", discs, "--devices", 4, "--batch", 4) == ""


@follows("drop --devices")
def test_what_several_devices_would_change(labelled: Path, boxes: Path, said: Said) -> None:
    for folder, what in ((labelled, "batch norm"), (boxes, "counts of its own part")):
        line = said("compare", folder, "--devices", 2)
        assert what in line
        assert line.endswith("; drop --devices")
        assert said("compare", folder) == ""


def test_a_loss_that_is_not_exact_apart(data: Data, settings: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossmith import DiceLoss

    comparison = Comparison(KIND, data, replace(settings, devices=2))
    monkeypatch.setattr(DiceLoss, "splits", frozenset())
    with pytest.raises(UserError, match=r'"ce \+ dice": dice is not exact where a step is split; drop --devices'):
        comparison.run(["ce", "ce + dice"], Path("never"), 1)


@follows("give that many")
def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(UserError, match="--devices 3: this machine has 2; give that many"):
        LocalEngine("cuda", 3)
    assert LocalEngine("cuda", 2).at_once == 1
