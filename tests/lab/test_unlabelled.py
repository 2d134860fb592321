"""Images without masks: losses that read no labels learn from them, all others train exactly as without them."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discs import make_folder

import lossmith as ls
from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data, add_unlabelled
from lossmith.lab.kinds.images import KIND as IMAGES
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.run import comparison
from lossmith.lab.run.crops import Crops
from lossmith.lab.run.losses import reads_unlabelled
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Asked, RunSettings

APART = "nonadjacency(forbidden=[[0, 1], [1, 0]])"
DENSE = {"pixel", "region", "sorted", "map", "field", "sum", "information"}
READ_LABELS = [row.name for row in ls.catalogue() if row.family in DENSE and row.name != "nonadjacency"]


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images, brighter to the right."""
    folder = tmp_path_factory.mktemp("data") / "extra"
    folder.mkdir()
    for i in range(5):
        np.save(folder / f"extra{i}.npy", np.tile(np.arange(40.0), (50 + i, 1)))
    return folder


@pytest.fixture(scope="module")
def more(data: Data, extra: Path) -> Data:
    return add_unlabelled(data, extra)


@pytest.fixture
def asked(settings: RunSettings, more: Data, extra: Path) -> RunSettings:
    return replace(settings, fingerprint=more.fingerprint, unlabelled=str(extra), unlabelled_batch=3)


def train(data: Data, losses: list[str], settings: RunSettings, out: Path) -> dict[str, dict[str, Any]]:
    trials, stopped = comparison.Comparison(PIXELS, data, settings).run(losses, out, 1)
    assert not stopped
    return {t["loss"]: t for t in trials}


def test_every_pixel_is_ignored(data: Data, more: Data) -> None:
    assert [s.stem for s in more.unlabelled] == [f"extra{i}" for i in range(5)]
    assert all((s.label == -100).all() and s.label.shape == s.image.shape[1:] for s in more.unlabelled)
    assert more.train == data.train
    assert more.shares() == data.shares()
    assert more.fingerprint != data.fingerprint


def test_losses_that_read_labels_train_as_without(
    data: Data, more: Data, settings: RunSettings, asked: RunSettings, tmp_path: Path
) -> None:
    losses = ["dice + ce", "ce + 0.1*entropy"]
    before = train(data, losses, settings, tmp_path / "before")
    after = train(more, losses, asked, tmp_path / "after")
    for loss in losses:
        assert after[loss]["training"]["loss"] == pytest.approx(before[loss]["training"]["loss"], rel=1e-4)
        assert after[loss]["weights_checksum"] == before[loss]["weights_checksum"]
        assert after[loss]["crops_checksum"] != before[loss]["crops_checksum"]


def test_a_loss_that_reads_none_sees_them(
    data: Data, more: Data, settings: RunSettings, asked: RunSettings, tmp_path: Path
) -> None:
    text = f"ce + {APART}"
    before = train(data, [text], settings, tmp_path / "before")[text]
    after = train(more, [text, "ce"], asked, tmp_path / "after")
    assert abs(after[text]["training"]["loss"][0] - before["training"]["loss"][0]) > 1e-4
    assert after[text]["crops_checksum"] == after["ce"]["crops_checksum"]


@pytest.mark.parametrize("name", READ_LABELS)
def test_wholly_ignored_images_change_no_other_loss(name: str) -> None:
    """An image more leaves the loss and its gradient as they were."""
    task = "binary" if name in ("dice2", "lovasz_hinge") else "multiclass"
    loss = ls.parse(name, **({} if task == "binary" else {"task": task}))
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1 if task == "binary" else 2, 16, 16, generator=random)
    label = torch.zeros(3, 16, 16, dtype=torch.long)
    label[:2, 4:9, 4:12] = 1
    label[2] = -100
    few, all_of_them = (x.clone().requires_grad_() for x in (logits[:2], logits))
    expected, value = loss(few, label[:2]), loss(all_of_them, label)
    expected.backward()
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert few.grad is not None
    assert all_of_them.grad is not None
    torch.testing.assert_close(all_of_them.grad[:2], few.grad, rtol=1e-4, atol=1e-7)
    assert not all_of_them.grad[2].any()
    assert not reads_unlabelled(loss)


def test_the_user_hears_which_losses_see_nothing_of_them(more: Data, asked: RunSettings, tmp_path: Path) -> None:
    said: list[str] = []
    watcher = Watcher()
    watcher.said = said.append  # type: ignore[method-assign]
    comparison.Comparison(PIXELS, more, asked).run(["ce", f"ce + {APART}"], tmp_path, 1, watcher=watcher)
    assert said == ['--loss "ce": reads labels only; the unlabelled images change nothing for it']


def test_their_crops(more: Data, asked: RunSettings) -> None:
    crops = Crops(more.unlabelled, asked, (3, 1), asked.unlabelled_batch)
    image, label = crops.batch(0)
    assert image.shape == (3, 1, 32, 32)
    assert (label == -100).all()
    assert crops.checksum != Crops(more.unlabelled, asked, (4, 1), asked.unlabelled_batch).checksum


def test_from_the_command_line(folder: Path, extra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "2", "--crop", "32", "--batch", "2", "--seeds", "1", "--device", "cpu"]
    command = ["compare", str(folder), "--loss", "ce + nonadjacency", *small, "--out", str(tmp_path / "out")]
    assert main([*command, "--unlabelled", str(extra), "--json"]) == 0
    captured = capsys.readouterr()
    assert "nonadjacency forbids nothing" in captured.err
    results = json.loads(captured.out)
    assert results["settings"]["unlabelled_batch"] == 2
    assert results["images"]["unlabelled"] == 5
    again = shlex.split(results["command"])[1:]
    assert main([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == results["trials"]
    assert "2 labelled and 2 unlabelled crops" in (tmp_path / "out" / "report.html").read_text()
    assert main(command) == 2
    assert "the data have changed since its trials were made" in capsys.readouterr().err
    assert main([*command, "--unlabelled-batch", "2"]) == 2
    assert "--unlabelled FOLDER" in capsys.readouterr().err


def test_what_is_refused(data: Data, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        add_unlabelled(data, tmp_path / "nowhere")
    with pytest.raises(UserError, match="no image in it; expected PNG"):
        add_unlabelled(data, tmp_path)
    np.save(tmp_path / "colour.npy", np.zeros((9, 9, 3)))
    with pytest.raises(UserError, match=r"colour\.npy: 2-D with 3 channels, but the images of discs are 2-D with 1"):
        add_unlabelled(data, tmp_path)
    with pytest.raises(UserError, match=r"disc0\.png: is the image 'disc0', which is held back"):
        add_unlabelled(data, folder / "images")


def test_images_with_one_label_each_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "labelled")
    (folder / "masks").rename(tmp_path / "masks")
    (folder / "labels.csv").write_text("stem,label\n" + "".join(f"disc{i},{i % 2}\n" for i in range(8)))
    asked = Asked("labelled", unlabelled=tmp_path)
    with pytest.raises(UserError, match="has a label for each whole image, no masks; drop it"):
        IMAGES.read(folder, asked)
