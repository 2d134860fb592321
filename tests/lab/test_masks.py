"""Masks that read as floats: whole numbers are labels, all else is refused, and the advice gives the right labels."""

import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import scipy.ndimage
import tifffile
from advice import follows

from lossmith.lab import UserError
from lossmith.lab.data.files import read_mask

LABELS = np.random.default_rng(0).integers(0, 4, (8, 8, 8))
FLOATS = ("float16", "float32", "float64")
IN_BRACKETS = re.compile(r"(?:numpy|scipy): (.+?)\)?$")


def save(path: Path, array: np.ndarray[Any, Any], stored: Any = None) -> Path:
    """`stored` is the type of a NIfTI file; nibabel chooses a slope if the array has another."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        volume = nibabel.Nifti1Image(array, np.diag([-1.0, 1, 1, 1]))
        volume.set_data_dtype(stored or array.dtype)
        nibabel.save(volume, path)
    return path


def refusal(path: Path, ignore_index: int = -100) -> str:
    with pytest.raises(UserError) as caught:
        read_mask(path, ignore_index)
    message = str(caught.value)
    assert message.startswith(f"{path}: holds ")
    assert "\n" not in message
    return message


def advised(message: str, **names: Any) -> np.ndarray[Any, Any]:
    """What the expression in a message gives."""
    found = IN_BRACKETS.search(message)
    assert found is not None
    expression = found[1] if found[1].count("(") == found[1].count(")") else f"{found[1]})"
    return np.asarray(eval(expression, {"numpy": np, "scipy": scipy, **names}))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_whole_floats_are_labels(suffix: str, dtype: str, tmp_path: Path) -> None:
    found = read_mask(save(tmp_path / f"a{suffix}", LABELS[0].astype(dtype)), -100)
    assert found.dtype == np.int32
    assert np.array_equal(found, LABELS[0])


@pytest.mark.parametrize("dtype", FLOATS[1:])
def test_whole_floats_in_nifti_are_labels(dtype: str, tmp_path: Path) -> None:
    found = read_mask(save(tmp_path / "a.nii.gz", LABELS.astype(dtype)), -100)
    assert np.array_equal(found, LABELS[::-1])


@pytest.mark.parametrize("lowest", [0, -1, -100])
@pytest.mark.parametrize("highest", [1, 3, 7, 60, 116, 1000])
@pytest.mark.parametrize("stored", [np.uint8, np.int16, np.uint16, np.int32])
def test_labels_behind_a_slope_are_those_that_were_saved(
    stored: Any, highest: int, lowest: int, tmp_path: Path
) -> None:
    labels = np.random.default_rng(highest).integers(0, highest + 1, (8, 8, 8)).astype(float)
    labels[0, 0, 0], labels[0, 0, 1] = highest, lowest
    path = save(tmp_path / "a.nii", labels, stored)
    step = abs(nibabel.load(path).dataobj.slope)
    assert step != 1
    if step < 0.5:
        assert np.array_equal(read_mask(path, lowest), labels[::-1])
    else:  # 256 values cannot hold them
        assert "labels are whole numbers" in refusal(path, lowest)


def set_slope(path: Path, slope: float, inter: float) -> None:
    """Writes scl_slope and scl_inter into the header; nibabel chooses its own."""
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(raw)


@follows("labels are whole numbers")
@pytest.mark.parametrize(("slope", "inter"), [(0.2, 0), (0.25, 0), (0.5, 0), (1, 0.5), (0.9, 0.45)])
@pytest.mark.parametrize("stored", [np.uint8, np.float32])
def test_no_slope_lets_halves_pass(stored: Any, slope: float, inter: float, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.resize(np.arange(11), (4, 4, 4)).astype(stored))
    set_slope(path, slope, inter)
    assert "labels are whole numbers" in refusal(path)


def test_floats_have_no_step_whatever_the_slope(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.resize(np.float32([0, 5, 9.9]), (4, 4, 4)))
    set_slope(path, 0.2, 0)
    assert "holds 1.97999" in refusal(path)


@follows("Threshold them (numpy: (mask > 0.5).astype(numpy.uint8))")
@pytest.mark.parametrize("suffix", [".npy", ".tif", ".nii"])
def test_probabilities_are_thresholded(suffix: str, tmp_path: Path) -> None:
    mask = np.random.default_rng(1).random((8, 8, 8), np.float32)
    mask = mask if suffix == ".nii" else mask[0]
    message = refusal(save(tmp_path / f"a{suffix}", mask))
    value = float(re.search(r"holds (\S+);", message)[1])  # type: ignore[index]
    assert np.abs(mask - value).min() < 1e-6
    assert 0.4 < value < 0.6
    mended = read_mask(save(tmp_path / f"b{suffix}", advised(message, mask=mask)), -100)
    assert np.array_equal(mended, (mask > 0.5)[::-1] if suffix == ".nii" else mask > 0.5)


@follows("Class numbers divided by 255? numpy: numpy.rint(255 * mask).astype(numpy.uint8)")
@pytest.mark.parametrize("dtype", FLOATS[1:])
@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 3], [0, 1, 255], [0, 200]])
def test_class_numbers_divided_by_255_come_back(labels: list[int], dtype: str, tmp_path: Path) -> None:
    before = np.resize(labels, (8, 8))
    mask = (before / 255).astype(dtype)
    mended = advised(refusal(save(tmp_path / "a.npy", mask)), mask=mask)
    assert np.array_equal(read_mask(save(tmp_path / "b.npy", mended), -100), before)


@follows("Resample the labels with nearest neighbours (scipy: scipy.ndimage.zoom(labels, 0.5, order=0))")
@pytest.mark.parametrize("values", [2, 4])
def test_an_interpolated_mask_is_resampled_again(values: int, tmp_path: Path) -> None:
    labels = (LABELS[0] % values).repeat(3, 0).repeat(3, 1)
    blurred = scipy.ndimage.zoom(labels.astype(float), 0.5, order=1) * (1 if values == 4 else 0.4)
    message = refusal(save(tmp_path / "a.npy", blurred))
    assert "> 0.5" not in message
    mended = read_mask(save(tmp_path / "b.npy", advised(message, labels=labels)), -100)
    assert np.array_equal(np.unique(mended), np.arange(values))


@follows(
    "if those pixels are unlabelled, save what is ignored there (numpy: numpy.where(numpy.isfinite(mask), mask, {}))"
)
@pytest.mark.parametrize("ignore_index", [-100, 255])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_becomes_what_is_ignored(value: float, ignore_index: int, tmp_path: Path) -> None:
    mask = LABELS[0].astype(np.float32)
    mask[3, 4] = value
    message = refusal(save(tmp_path / "a.npy", mask), ignore_index)
    assert f"holds {value}, no label" in message
    mended = read_mask(save(tmp_path / "b.npy", advised(message, mask=mask)), ignore_index)
    assert mended[3, 4] == ignore_index
    assert np.array_equal(np.delete(mended, 28), np.delete(LABELS[0], 28))


@follows("Then save 1 for all (numpy: (mask != 0).astype(numpy.uint8))")
@pytest.mark.parametrize("dtype", ["float64", "uint32", "int64", "uint64"])
def test_labels_that_int32_cannot_hold(dtype: str, tmp_path: Path) -> None:
    mask = np.zeros((8, 8), dtype)
    mask[2, 3], mask[4, 4] = 2**31, 2
    message = refusal(save(tmp_path / "a.npy", mask))
    assert "holds the label 2147483648" in message
    mended = read_mask(save(tmp_path / "b.npy", advised(message, mask=mask)), -100)
    assert np.array_equal(mended, mask > 0)
    mask[2, 3] = 2**31 - 1
    assert read_mask(save(tmp_path / "c.npy", mask), -100)[2, 3] == 2**31 - 1


def test_a_float_below_zero_is_a_negative_label(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", LABELS[0] - 1.0)
    assert "holds the label -1; labels start at 0 (to ignore it: --ignore-index -1)" in refusal(path)
    assert np.array_equal(read_mask(path, -1), LABELS[0] - 1)
