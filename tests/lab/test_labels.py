"""Images with a label each: reading, metrics by hand, training, the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from balls import make_labelled
from PIL import Image

from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data, read_labels
from lossmith.lab.run.crops import Crops
from lossmith.lab.say.metrics import CLASSIFICATION, score_classes
from lossmith.lab.settings import RunSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_labelled(tmp_path / "labelled")


def read(folder: Path, task: str = "multiclass") -> Data:
    return read_labels(folder, "labelled", task, -100)


def test_reads_labels(folder: Path) -> None:
    data = read(folder)
    assert (data.dimensions, len(data.train), len(data.validation)) == (2, 18, 6)
    assert data.classes == ["class 0", "class 1", "class 2"]
    assert data.counts(data.train + data.validation).sum(0).tolist() == [12, 8, 4]
    binary = read(folder, "binary")
    assert binary.counts(binary.train + binary.validation).sum(0).tolist() == [12, 12]


def test_fingerprint_sees_a_label(folder: Path) -> None:
    before = read(folder).fingerprint
    path = folder / "labels.csv"
    path.write_text(path.read_text().replace("i00,0", "i00,1"))
    assert read(folder).fingerprint != before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("i00,0", "i00,-1", r"labels.csv, line 2: '-1' is no label"),
        ("i00,0", "i00,half", r"labels.csv, line 2: 'half' is no label"),
        ("i00,0\n", "", r"labels.csv: 'i00' is not listed; give it a label$"),
        ("i00,0", "i99,0", r"labels.csv, line 2: there is no image with the stem 'i99'"),
        ("i00,0", "i00,0\ni00,0", r"labels.csv, line 3: 'i00' is listed twice"),
        ("stem,label", "stem,class", r"the first line must be stem,label"),
        ("i00,0", "i00,50", r"labels go up to 50 and label 3 is missing"),
    ],
)
def test_labels_csv(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "labels.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read(folder)


def test_images_of_two_sizes(folder: Path) -> None:
    Image.fromarray(np.zeros((32, 40), dtype=np.uint8)).save(folder / "images" / "i03.png")
    with pytest.raises(UserError, match=r"i03\.png: is 40 x 32 pixels, but i00\.png is 32 x 32"):
        read(folder)


def test_whole_images_are_shown(folder: Path) -> None:
    data = read(folder)
    settings = RunSettings("labelled", data.fingerprint, "multiclass", 2, 0, 5, 1e-2, -100, "cpu", (4, 4))
    image, label = Crops(data.train, settings, 0).batch(1)
    assert image.shape == (5, 1, 32, 32)
    assert label.shape == (5,)
    # Standardised, the label cannot be read off the middle's brightness alone, but 0 has no bright middle at all.
    assert ((image[:, 0, 12:20, 12:20].mean((1, 2)) > 0.5) == (label > 0)).all()


def one_hot(predicted: list[int], classes: int) -> np.ndarray[Any, Any]:
    return np.eye(classes)[predicted].T


def test_metrics_by_hand() -> None:
    label = np.array([0, 0, 0, 0, 1, 1, 2])
    metrics, per_class, confusion = score_classes(label, one_hot([0, 0, 0, 1, 1, 0, 1], 3))
    assert set(metrics) == set(CLASSIFICATION.titles)
    assert confusion.tolist() == [[3, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert per_class["recall"] == pytest.approx([3 / 4, 1 / 2, 0])
    assert per_class["precision"] == pytest.approx([3 / 4, 1 / 3, 0])
    assert per_class["f1"] == pytest.approx([3 / 4, 2 / 5, 0])
    assert metrics["f1"] == pytest.approx((3 / 4 + 2 / 5) / 3)
    assert metrics["accuracy"] == pytest.approx(4 / 7)
    # Σ (i − j)² of the table is 3; of the margins (4, 2, 1) x (4, 3, 0) it is 4·3 + 2·4 + 4·4 + 3 = 39, over 7 images
    assert metrics["kappa"] == pytest.approx(1 - 3 / (39 / 7))
    assert per_class["calibration_error"] == pytest.approx([1 / 4, 2 / 3, None])


def test_a_class_without_images_does_not_count() -> None:
    metrics, per_class, _ = score_classes(np.array([0, 1]), one_hot([0, 1], 3))
    assert per_class["f1"] == [1.0, 1.0, None]
    assert metrics["f1"] == metrics["recall"] == metrics["precision"] == metrics["kappa"] == 1


def test_one_class_only_has_no_kappa() -> None:
    assert score_classes(np.array([0, 0]), one_hot([0, 0], 2))[0]["kappa"] is None


def test_compare(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = ["ce", 'ce(class_weight="inverse")', 'focal(class_weight="median")']
    words = [word for loss in losses for word in ("--loss", loss)]
    options = ["--seeds", "1", "--steps", "4", "--batch", "4", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["compare", str(folder), *words, *options]) == 0
    assert "Macro F1" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["ranked_by"] == "f1"
    assert "--crop" not in results["command"]
    meanings = {t["loss"]: t["meaning"] for t in results["trials"]}
    assert len(set(meanings.values())) == 3
    # 9, 6 and 3 of the 18 images to train on
    assert meanings[losses[1]] == "CrossEntropyLoss(class_weight=[2.0, 3.0, 6.0], task='multiclass')"
    for trial in results["trials"]:
        assert np.sum(trial["confusion"]) == 6
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("called class 2") == 3
    assert "MONAI Classifier, 2-D" in page


def test_binary(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seeds", "1", "--steps", "2", "--batch", "4", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["compare", str(folder), "--task", "binary", "--loss", "bce", *options, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert np.shape(results["trials"][0]["confusion"]) == (2, 2)


def test_no_crops(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(folder), "--loss", "ce", "--crop", "32", "--out", str(tmp_path / "out")]) == 2
    assert "has a label for each whole image; drop --crop" in capsys.readouterr().err
