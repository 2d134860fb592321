"""Volumes take the path that images take: reading, crops, training, metrics, pictures."""

import math
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from balls import make_volumes
from PIL import Image

from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data, Sample, read_pixels
from lossmith.lab.data.sets import group_regions, interior_and_boundary
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.page import pictures, report
from lossmith.lab.run import comparison, records
from lossmith.lab.run.crops import Crops
from lossmith.lab.run.predict import predict
from lossmith.lab.say.metrics import score_image
from lossmith.lab.settings import RunSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_volumes(tmp_path_factory.mktemp("data") / "balls")


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return read_pixels(folder, "balls", "multiclass", -100)


@pytest.fixture
def settings(data: Data) -> RunSettings:
    return RunSettings("balls", data.fingerprint, "multiclass", 3, 32, 2, 1e-2, -100, "cpu", (4, 4, 4))


def test_reads_volumes(data: Data) -> None:
    assert (data.dimensions, data.channels) == (3, 1)
    assert data.train[0].image.shape == (1, 32, 36, 40)
    assert data.train[0].image.std() == pytest.approx(1, abs=1e-4)
    assert data.classes == ["background", "class 1", "class 2"]
    assert data.counts(data.train)[0, 2] == 2 * 26 * 2
    assert sum(data.shares()) == pytest.approx(1)
    assert PIXELS.sizes(data)[0] == 32


def test_axes_stored_in_another_direction_are_turned(folder: Path, data: Data, tmp_path: Path) -> None:
    make_volumes(tmp_path / "turned")
    for path in tmp_path.rglob("*.nii.gz"):
        volume = np.asarray(nibabel.load(path).dataobj)
        backwards = nibabel.Nifti1Image(volume[::-1], np.diag([-1.0, 1, 1, 1]))
        nibabel.save(backwards, path)
    assert read_pixels(tmp_path / "turned", "balls", "multiclass", -100).fingerprint == data.fingerprint


def test_images_and_volumes_do_not_mix(tmp_path: Path) -> None:
    folder = make_volumes(tmp_path / "mixed")
    for part in ("images", "masks"):
        Image.fromarray(np.eye(32, dtype=np.uint8)).save(folder / part / "c.png")
    (folder / "split.csv").unlink()
    with pytest.raises(UserError, match=r"c\.png: is 2-D, but a\.nii\.gz is 3-D"):
        read_pixels(folder, "mixed", "multiclass", -100)


def test_a_series_is_no_volume(tmp_path: Path) -> None:
    folder = make_volumes(tmp_path / "series")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2, 9), np.float32), np.eye(4)), folder / "images" / "a.nii.gz")
    with pytest.raises(UserError, match=r"a\.nii\.gz: shape \(4, 4, 4, 2, 9\) is no volume"):
        read_pixels(folder, "series", "multiclass", -100)


def test_crops_of_volumes_are_not_flipped(data: Data, settings: RunSettings) -> None:
    crops = Crops(data.train, settings, seed=3)
    image, label = crops.batch(0)
    assert image.shape == (2, 1, 32, 32, 32)
    assert label.shape == (2, 32, 32, 32)
    sample = data.train[0]
    for i, (_, x, y, z, *flips) in enumerate(crops.plan[0]):
        assert flips == [0, 0, 0]
        window = np.s_[x : x + 32, y : y + 32, z : z + 32]
        assert np.array_equal(image[i, 0], sample.image[0][window])
        assert np.array_equal(label[i], sample.label[window])


def test_predictions_keep_their_place(data: Data, settings: RunSettings) -> None:
    """A network that answers with its input: windows and padding must not move anything."""

    class Echo(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(x), x, -x], 1)

    sample = data.validation[0]
    probabilities = predict(Echo(), sample, settings)
    assert probabilities.shape == (3, *sample.label.shape)
    assert np.array_equal(probabilities.argmax(0), np.where(sample.image[0] > 0, 1, 2))


def test_metrics_of_shifted_cubes() -> None:
    truth = np.zeros((20, 24, 28), dtype=np.int32)
    truth[4:12, 4:12, 4:12] = 1
    found = np.roll(truth, 4, axis=2)
    scores = {name: values[0] for name, values in score_image(truth, found, 2, -100).items()}
    assert scores["dice_per_image"] == pytest.approx(0.5)
    assert scores["iou"] == pytest.approx(1 / 3)
    assert scores["hd95"] == pytest.approx(4)
    assert 0 < scores["boundary_dice"] < 1
    assert score_image(truth, truth, 2, -100)["boundary_dice"] == [1.0]
    missed = score_image(truth, np.zeros_like(truth), 2, -100)
    assert missed["hd95"] == [pytest.approx(math.hypot(20, 24, 28))]


def test_slices_show_the_rarest_class(data: Data) -> None:
    sample = data.train[0]
    views = pictures.views(sample, -100)
    assert [v.title for v in views] == ["slice x = 4", "slice y = 4", "slice z = 4"]
    for view in views:
        flat = view.sample(sample)
        assert (flat.label == 2).any()
        assert flat.image.shape == (1, *flat.label.shape)
    upright = views[0].of(sample.label)
    assert upright.shape == (40, 36)
    assert np.array_equal(upright[::-1].T, sample.label[4])
    assert len(pictures.views(Sample("flat", np.zeros((1, 8, 8)), np.zeros((8, 8), int)), -100)) == 1


def test_compare(data: Data, settings: RunSettings, tmp_path: Path) -> None:
    losses = ["ce", 'dice + ce(class_weight="median")']
    whole = comparison.Comparison(PIXELS, data, settings)
    trials, _ = whole.run(losses, tmp_path, 1)
    assert {t["loss"] for t in trials} == set(losses)
    for t in trials:
        assert len(t["per_class"]["hd95"]) == 2
        assert records.read_predictions(tmp_path, t)["b"].shape == (32, 36, 40)
    report.write_report(whole, trials, losses, tmp_path, 1)
    page = (tmp_path / "report.html").read_text()
    assert len(re.findall(r"slice [xyz] = \d+</strong>", page)) == 3
    assert page.count('<img src="data:image/png;base64,') == 3 * (len(losses) + 1)
    assert "MONAI UNet, 3-D" in page
    assert "crops of 32 × 32 × 32 px, not flipped" in page


def test_regions_of_the_brain() -> None:
    labels = group_regions(np.array([0, 1, 90, 91, 116, 78, 74, 72, 38, 76, 42]))
    assert labels.tolist() == [0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8]


def test_boundary_of_touching_cells() -> None:
    cells = np.zeros((5, 10), dtype=np.uint16)
    cells[:, 1:5], cells[:, 5:9] = 7, 9
    assert interior_and_boundary(cells)[2].tolist() == [0, 2, 1, 1, 2, 2, 1, 1, 2, 0]
