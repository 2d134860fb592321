"""Every loss of the catalogue goes into a comparison or is refused, and what the lab counts for it is what it says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import make_folder

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data, read_labels, read_pixels
from lossmith.lab.kinds.images import KIND as IMAGES
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.run import comparison
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import RunSettings

SUPERVISED = {"pixel", "region", "sorted", "map", "field", "sum", "information"}
NEED_LABELS_OF_OTHERS = {"entropy", "nonadjacency"}
YES_OR_NO = {"dice2", "lovasz_hinge"}
NEED_NEIGHBOURS = {
    *("boundary", "hausdorff", "boundary_ce", "boundary_f1", "border_ce"),
    *("active_contour", "distance_penalty", "nonadjacency"),
}
NAMES = [row.name for row in ls.catalogue() if row.family in SUPERVISED and row.name != "kl"]


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Discs (2) inside a ring (1) on the ground (0): 0 and 2 never touch."""
    folder = make_folder(tmp_path_factory.mktemp("data") / "rings", images=4)
    for path in (folder / "masks").iterdir():
        path.unlink()
        rows, columns = np.mgrid[:48, :48]
        distance = np.hypot(rows - 24, columns - 20)
        np.save(path.with_suffix(".npy"), (distance < 16).astype(int) + (distance < 10))
    return read_pixels(folder, "rings", "multiclass", -100)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The discs with one label for each image."""
    folder = make_folder(tmp_path_factory.mktemp("data") / "labelled", size=32)
    for path in (folder / "masks").iterdir():
        path.unlink()
    (folder / "masks").rmdir()
    (folder / "labels.csv").write_text("stem,label\n" + "".join(f"disc{i},{i % 2}\n" for i in range(8)))
    return read_labels(folder, "labelled", "multiclass", -100)


def text_of(name: str) -> str:
    return f"ce + 0.1*{name}" if name in NEED_LABELS_OF_OTHERS else name


@pytest.mark.parametrize("name", NAMES)
def test_every_supervised_loss_trains(
    name: str, rings: Data, folder: Path, settings: RunSettings, tmp_path: Path
) -> None:
    task = "binary" if name in YES_OR_NO else "multiclass"
    data = read_pixels(folder, "discs", "binary", -100) if task == "binary" else rings
    few = replace(settings, task=task, steps=2, fingerprint=data.fingerprint)
    (trial,), stopped = comparison.Comparison(PIXELS, data, few).run([text_of(name)], tmp_path, 1)
    assert not stopped
    assert trial["diverged"] is None
    assert trial["gradient_norm_at_start"] > 0
    assert 0 <= trial["metrics"]["dice"] <= 1


def test_facts_of_losses() -> None:
    """What the lab asks of a class instead of its name."""
    facts = {row.name: row.cls for row in ls.catalogue()}
    assert {name for name, cls in facts.items() if cls.spatial} == NEED_NEIGHBOURS
    assert {name for name, cls in facts.items() if not cls.needs} == {*NAMES, "kl"}
    for name, cls in facts.items():
        fillable = cls.fields.keys() & {"class_weight", "forbidden"}
        assert cls.counts == fillable, name


@pytest.mark.parametrize("row", ls.catalogue(), ids=lambda row: str(row.name))
def test_all_others_are_refused(row: ls.names.Row, data: Data, settings: RunSettings) -> None:
    if row.name in NAMES and row.name not in YES_OR_NO:
        PIXELS.parse(text_of(row.name), settings, data)
        return
    with pytest.raises(UserError, match=rf'^--loss "{row.name}" \(multiclass task\): {row.name} (needs|takes)'):
        PIXELS.parse(row.name, settings, data)


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_whole_images(name: str, labelled: Data, settings: RunSettings) -> None:
    task = "binary" if name in YES_OR_NO else "multiclass"
    whole = replace(settings, task=task, crop=0)
    if name in NEED_NEIGHBOURS:
        with pytest.raises(UserError, match=f"{name} looks at neighbouring pixels"):
            IMAGES.parse(text_of(name), whole, labelled)
        return
    loss = IMAGES.parse(text_of(name), whole, labelled).loss
    logits = torch.randn(6, 1 if task == "binary" else 2, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    loss(logits, torch.tensor([0, 1, 1, 0, 0, 1])).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_forbidden_pairs_are_counted_and_said(rings: Data, settings: RunSettings, tmp_path: Path) -> None:
    settings = replace(settings, fingerprint=rings.fingerprint)
    said: list[str] = []
    watcher = Watcher()
    watcher.said = said.append  # type: ignore[method-assign]
    text = "dice + 0.5*nonadjacency"
    (trial,), _ = comparison.Comparison(PIXELS, rings, settings).run([text], tmp_path, 1, watcher=watcher)
    found = "nonadjacency forbids 1 pair of classes that never lie within 3 px in the labels to train on"
    assert said == [f'--loss "{text}": {found}']
    assert trial["counted"] == found
    assert "forbidden=[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]" in trial["meaning"]


def test_given_pairs_stay(rings: Data, settings: RunSettings) -> None:
    text = "ce + nonadjacency(forbidden=[[0, 2, 0], [2, 0, 0], [0, 0, 0]])"
    loss, counted = PIXELS.parse(text, settings, rings)
    assert loss.terms[1][1].settings()["forbidden"] == [[0, 2, 0], [2, 0, 0], [0, 0, 0]]
    assert counted == ""


def test_a_window_in_which_all_meet_forbids_nothing(rings: Data, settings: RunSettings) -> None:
    text = "ce + nonadjacency(window=21)"
    assert PIXELS.parse(text, settings, rings).counted == (
        "nonadjacency forbids nothing: in the labels to train on all classes lie within 21 px of each other"
    )


def test_pairs_of_background_and_foreground(folder: Path, settings: RunSettings) -> None:
    data = read_pixels(folder, "discs", "binary", -100)
    loss = PIXELS.parse("ce + nonadjacency", replace(settings, task="binary"), data).loss
    assert loss.terms[1][1].settings()["forbidden"] == [[0, 0], [0, 0]]
