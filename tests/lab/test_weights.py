"""Class weights by name, counted from the images to train on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import make_folder

from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data, read_pixels
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.run.weights import NAMES, with_weights
from lossmith.lab.settings import RunSettings


def data_with(tmp_path: Path, counts: list[list[int]]) -> Data:
    """Images of 10 x 10 px with so many pixels of each class; the last image is held back."""
    folder = make_folder(tmp_path / "data", images=len(counts), size=30)
    rows = [f"disc{i},{'train' if i + 1 < len(counts) else 'validation'}" for i in range(len(counts))]
    (folder / "split.csv").write_text("\n".join(["stem,split", *rows]) + "\n")
    (folder / "classes.txt").write_text("\n".join("abcdefgh"[: len(counts[0])]) + "\n")
    for i, row in enumerate(counts):
        (folder / "masks" / f"disc{i}.png").unlink()
        (folder / "images" / f"disc{i}.png").unlink()
        np.save(folder / "masks" / f"disc{i}.npy", np.repeat(range(len(row)), row).reshape(10, 10))
        np.save(folder / "images" / f"disc{i}.npy", np.zeros((10, 10)))
    return read_pixels(folder, "made", "multiclass", -100)


def weights(name: str, data: Data) -> list[float]:
    text = with_weights(f"ce(class_weight='{name}')", lambda: data.counts(data.train))
    assert text.startswith("ce(class_weight=[")
    return [float(w) for w in text.removeprefix("ce(class_weight=[").removesuffix("])").split(",")]


def share(values: list[float]) -> list[float]:
    return [v / sum(values) for v in values]


COUNTS = [[80, 20, 0], [70, 30, 0], [60, 30, 10], [100, 0, 0]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inverse", [300 / 210, 300 / 80, 300 / 10]),
        ("median", [8 / 21, 1.0, 8 / 3]),
        ("enet", [1 / np.log(1.02 + n / 300) for n in (210, 80, 10)]),
        ("effective", [1 / (1 - 0.999**n) for n in (210, 80, 10)]),
    ],
)
def test_weights_by_hand_up_to_their_scale(tmp_path: Path, name: str, expected: list[float]) -> None:
    assert share(weights(name, data_with(tmp_path, COUNTS))) == pytest.approx(share(expected), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_never_occurs_weighs_nothing(tmp_path: Path, name: str) -> None:
    assert weights(name, data_with(tmp_path, [[60, 40, 0], [60, 40, 0]]))[2] == 0


def test_only_names_are_replaced(data: Data) -> None:
    for text in ("dice + ce", "ce(class_weight=[1, 2])", 'gdl(weighting="square")'):
        assert with_weights(text, lambda: data.counts(data.train)) == text
    both = with_weights(
        'ce(class_weight="inverse", label_smoothing=0.1) + dice(class_weight = "enet")', lambda: data.counts(data.train)
    )
    assert both.count("[") == 2
    assert "label_smoothing=0.1" in both


def test_an_unknown_name_gets_one_line(data: Data, settings: RunSettings) -> None:
    with pytest.raises(UserError, match=r"no class_weight is called 'invers'; did you mean 'inverse'\?$"):
        PIXELS.parse('ce(class_weight="invers")', settings, data)


def test_a_binary_loss_takes_the_weights_of_background_and_foreground(folder: Path, settings: RunSettings) -> None:
    data = read_pixels(folder, "discs", "binary", -100)
    loss = PIXELS.parse('ce(class_weight="inverse")', replace(settings, task="binary"), data).loss
    n = data.counts(data.train).sum(0)
    assert loss.class_weight.tolist() == pytest.approx((n.sum() / n).tolist(), rel=1e-5)
