"""Predictions over images: both outlines visible, nothing hidden outside the window."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lossmith.lab.data.labelled import Sample
from lossmith.lab.page import pictures


@pytest.fixture
def sample() -> Sample:
    label = np.zeros((200, 300), dtype=np.int32)
    label[40:60, 50:80] = 1
    return Sample("made", np.random.default_rng(0).normal(size=(1, 200, 300)).astype(np.float32), label)


def pixels(uri: str) -> np.ndarray[Any, Any]:
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")).astype(int)


def count(picture: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture - colour).max(-1) <= 12).sum())


def test_window_holds_the_foreground_with_a_margin(sample: Sample) -> None:
    window = pictures.window_around(sample, -100)
    assert window.rows.start < 40
    assert window.rows.stop > 60
    assert window.columns.start < 50
    assert window.columns.stop > 80
    assert window.scale > 1


def test_both_outlines_are_visible_even_where_they_agree(sample: Sample) -> None:
    window = pictures.window_around(sample, -100)
    picture = pixels(pictures.panel(sample, sample.label, window, -100))
    assert count(picture, pictures.TRUTH) > 100
    assert count(picture, pictures.PREDICTION) > 100
    alone = pixels(pictures.panel(sample, None, window, -100))
    assert count(alone, pictures.PREDICTION) == 0


def test_what_the_window_hides_is_counted(sample: Sample) -> None:
    window = pictures.window_around(sample, -100)
    found = sample.label.copy()
    found[190:, 290:] = 1
    assert pictures.outside(sample, found, window, -100) == 100
    assert pictures.outside(sample, sample.label, window, -100) == 0


def test_overview_only_where_it_shows_more(sample: Sample) -> None:
    assert count(pixels(pictures.overview(sample, pictures.window_around(sample, -100), -100)), (255, 255, 255)) > 100
    whole = pictures.Window(slice(0, 200), slice(0, 300), 1)
    assert pictures.overview(sample, whole, -100) == ""


def test_an_image_without_foreground_is_shown_whole(sample: Sample) -> None:
    sample.label[:] = 0
    window = pictures.window_around(sample, -100)
    assert sample.label[window.rows, window.columns].shape == (200, 300)
