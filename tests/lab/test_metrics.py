"""Metrics against numbers worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from lossmith.lab.say.metrics import METRICS, Calibration, dice_per_class, score_image

Array = np.ndarray[Any, Any]
PERFECT = {"dice_per_image": 1.0, "generalised_dice": 1.0, "iou": 1.0, "hd95": 0.0, "boundary_dice": 1.0}


def square(size: int = 20, top: int = 4, left: int = 4, side: int = 8) -> Array:
    label = np.zeros((size, size + 10), dtype=np.int32)
    label[top : top + side, left : left + side] = 1
    return label


def scores(truth: Array, found: Array, classes: int = 2, ignore_index: int = -100) -> dict[str, float]:
    return {name: values[0] for name, values in score_image(truth, found, classes, ignore_index).items()}


def test_every_metric_is_computed() -> None:
    of_sets = {"dice", "missed", "invented", "calibration_error"}
    assert {*score_image(square(), square(), 2, -100), *of_sets} == set(METRICS)


def test_perfect() -> None:
    assert scores(square(), square()) == pytest.approx(PERFECT)


def test_both_empty() -> None:
    empty = np.zeros_like(square())
    assert scores(empty, empty) == pytest.approx(PERFECT)


@pytest.mark.parametrize("missing", ["truth", "prediction"])
def test_one_empty(missing: str) -> None:
    empty = np.zeros_like(square())
    got = scores(empty, square()) if missing == "truth" else scores(square(), empty)
    assert got["dice_per_image"] == got["iou"] == got["boundary_dice"] == 0
    assert got["hd95"] == pytest.approx(math.hypot(20, 30))


def test_shifted_by_four() -> None:
    # two squares of 8 x 8 that share 8 x 4 pixels
    got = scores(square(left=4), square(left=8))
    assert got["dice_per_image"] == pytest.approx(2 * 32 / 128)
    assert got["iou"] == pytest.approx(32 / 96)
    assert got["hd95"] == pytest.approx(4)
    # Of 28 boundary pixels these are more than 2 px off: the far side (8), its neighbour on top and bottom (2), and the
    # two in the middle of the near side, which lies inside the other square.
    assert got["boundary_dice"] == pytest.approx((28 - 8 - 2 - 2) / 28)


def test_generalised_dice_by_hand() -> None:
    truth, found = square(left=4), square(left=8)
    n, foreground, hit = truth.size, 64, 32
    back = n - foreground
    back_hit = n - 96
    w, v = 1 / foreground**2, 1 / back**2
    expected = 2 * (w * hit + v * back_hit) / (w * 128 + v * 2 * back)
    assert scores(truth, found)["generalised_dice"] == pytest.approx(expected, rel=1e-5)


def test_ignored_pixels_do_not_count() -> None:
    truth, found = square(), square()
    truth[:, 20:] = 255
    found[:, 20:] = 1
    assert scores(truth, found, ignore_index=255) == pytest.approx(PERFECT)


def test_classes_are_apart() -> None:
    truth = square()
    truth[14:, :] = 2
    found = truth.copy()
    found[truth == 2] = 0
    assert dice_per_class(truth, found, 3, -100) == [1.0, 0.0]
    assert score_image(truth, found, 3, -100)["hd95"] == pytest.approx([0, math.hypot(20, 30)])


def probabilities(foreground: Array) -> Array:
    return np.stack([1 - foreground, foreground])


def test_calibration_by_hand() -> None:
    calibration = Calibration(2, -100)
    # 10 pixels say 0.75 and 6 are foreground; 10 say 0.25 and 5 are; 100 say 0.005 and do not count
    p = np.concatenate([np.full(10, 0.75), np.full(10, 0.25), np.full(100, 0.005)])[None]
    y = np.concatenate([np.arange(10) < 6, np.arange(10) < 5, np.ones(100)]).astype(np.int32)[None]
    calibration.add(y, probabilities(p))
    assert calibration.errors()[1] == pytest.approx((10 * 0.15 + 10 * 0.25) / 20)


def test_calibration_over_images_and_ignored_pixels() -> None:
    calibration = Calibration(2, 255)
    calibration.add(np.array([[1, 255]], dtype=np.int32), probabilities(np.array([[1.0, 0.4]])))
    calibration.add(np.array([[0, 255]], dtype=np.int32), probabilities(np.array([[1.0, 0.4]])))
    assert calibration.errors()[1] == pytest.approx(0.5)


def test_calibration_without_a_pixel() -> None:
    calibration = Calibration(2, -100)
    calibration.add(np.zeros((2, 2), dtype=np.int32), probabilities(np.full((2, 2), 0.001)))
    assert calibration.errors()[1] is None
