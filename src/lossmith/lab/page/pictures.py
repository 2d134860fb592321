"""Predictions drawn over their image, in a window around what is to be found.

One class is drawn as the outlines of truth and prediction at once; several are painted, each in its colour.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from lossmith.lab.data.samples import Sample

Array = np.ndarray[Any, Any]

TRUTH = (0, 190, 255)
PREDICTION = (255, 120, 0)
CLASSES = (  # the colours of the classes from 1 up, over again after the eighth
    (61, 133, 198),
    (221, 132, 32),
    (42, 157, 118),
    (194, 84, 157),
    (200, 190, 50),
    (208, 82, 74),
    (79, 205, 220),
    (140, 114, 214),
)
_OPACITY = 0.6
_PANEL = 640
_LEAST_WINDOW = 64
_MARGIN = 24


@dataclass(frozen=True)
class View:
    """What is drawn of an image, or of a volume: all of it, or the slice `at` along an axis, turned upright."""

    title: str
    axis: int | None = None
    at: int = 0

    def of(self, array: Array) -> Array:
        """The 2-D part of labels `(*S)`."""
        return array if self.axis is None else np.rot90(array.take(self.at, self.axis))

    def sample(self, sample: Sample) -> Sample:
        """The 2-D part of an image with its labels."""
        return Sample(sample.stem, np.stack([self.of(channel) for channel in sample.image]), self.of(sample.label))


def views(sample: Sample, ignore_index: int) -> list[View]:
    """An image as it is; of a volume the slice along each axis that shows most of its rarest class."""
    if sample.label.ndim == 2:
        return [View("")]
    label = _valid(sample.label, sample.label, ignore_index)
    classes, sizes = np.unique(label[label > 0], return_counts=True)
    chosen = label == (classes[sizes.argmin()] if classes.size else 0)
    found = []
    for axis, name in enumerate("xyz"):
        at = int(chosen.sum(tuple(other for other in range(3) if other != axis)).argmax())
        found.append(View(f"slice {name} = {at}", axis, at))
    return found


@dataclass(frozen=True)
class Window:
    """A part of an image, and how many times it is enlarged."""

    rows: slice
    columns: slice
    scale: int


def window_around(sample: Sample, ignore_index: int) -> Window:
    """The labelled foreground with a margin, or the whole image if it has none."""
    rows, columns = np.nonzero((sample.label > 0) & (sample.label != ignore_index))
    height, width = sample.label.shape
    if not rows.size:
        return Window(slice(0, height), slice(0, width), max(1, _PANEL // max(height, width)))
    top, bottom = _span(int(rows.min()), int(rows.max()) + 1, height)
    left, right = _span(int(columns.min()), int(columns.max()) + 1, width)
    return Window(slice(top, bottom), slice(left, right), max(1, _PANEL // max(bottom - top, right - left)))


def overview(sample: Sample, window: Window, ignore_index: int) -> str:
    """The whole image with the truth's outline and the window's frame, as a PNG data URI; "" if the window is all."""
    if sample.label[window.rows, window.columns].shape == sample.label.shape:
        return ""
    picture = grey(sample.image)
    picture[_outline(_valid(sample.label, sample.label, ignore_index), 1)] = TRUTH
    frame = np.zeros(sample.label.shape, dtype=bool)
    frame[window.rows, window.columns] = True
    picture[frame & ~ndimage.binary_erosion(frame, iterations=3)] = (255, 255, 255)
    return data_uri(picture)


def panel(sample: Sample, predicted: Array | None, window: Window, ignore_index: int) -> str:
    """The window with both outlines, as a PNG data URI. Where the two agree, the truth frames the prediction."""
    picture = _enlarged(grey(sample.image), window)
    truth = _enlarged(_valid(sample.label, sample.label, ignore_index), window)
    picture[_outline(truth, 1 + window.scale)] = TRUTH
    if predicted is not None:
        found = _enlarged(_valid(predicted, sample.label, ignore_index), window)
        picture[_outline(found, (1 + window.scale) // 2)] = PREDICTION
    return data_uri(picture)


def painted(sample: Sample, labels: Array, window: Window, ignore_index: int) -> str:
    """The window with every class from 1 up in its colour, as a PNG data URI."""
    picture = _enlarged(grey(sample.image), window)
    shown = _enlarged(_valid(labels, sample.label, ignore_index), window)
    colours = np.array(CLASSES)[(shown - 1) % len(CLASSES)]
    mixed = (_OPACITY * colours + (1 - _OPACITY) * picture).astype(np.uint8)
    return data_uri(np.where(shown[..., None] > 0, mixed, picture))


def outside(sample: Sample, predicted: Array, window: Window, ignore_index: int) -> int:
    """Predicted foreground pixels that the window does not show."""
    found = (predicted > 0) & (sample.label != ignore_index)
    return int(found.sum() - found[window.rows, window.columns].sum())


def _valid(label: Array, truth: Array, ignore_index: int) -> Array:
    return np.where(truth == ignore_index, 0, label)


def _span(low: int, high: int, size: int) -> tuple[int, int]:
    missing = max(0, _LEAST_WINDOW - (high - low)) // 2
    return max(0, low - _MARGIN - missing), min(size, high + _MARGIN + missing)


def grey(image: Array) -> Array:
    """An image (channels, H, W) dimmed to 8 bit RGB, so that outlines stand out."""
    channels = image if image.shape[0] == 3 else image.mean(0, keepdims=True)
    low, high = np.percentile(channels, (0.5, 99.5))
    shown = np.clip((channels - low) / max(float(high - low), 1e-6), 0, 1) * 200 + 20
    return np.ascontiguousarray(np.broadcast_to(shown.transpose(1, 2, 0), (*image.shape[1:], 3))).astype(np.uint8)


def _enlarged(array: Array, window: Window) -> Array:
    return array[window.rows, window.columns].repeat(window.scale, 0).repeat(window.scale, 1)


def _outline(label: Array, width: int) -> Array:
    """Pixels within `width` of a border between two labels, on both of its sides."""
    edge = np.zeros(label.shape, dtype=bool)
    for axis in (0, 1):
        step = np.diff(label, axis=axis) != 0
        pad = [(0, 0), (0, 0)]
        pad[axis] = (0, 1)
        edge |= np.pad(step, pad)
        pad[axis] = (1, 0)
        edge |= np.pad(step, pad)
    return ndimage.binary_dilation(edge, iterations=width - 1) if width > 1 else edge


def data_uri(picture: Array) -> str:
    """An RGB picture as a PNG data URI."""
    buffer = io.BytesIO()
    # 128 colours are plenty for greys and two outlines, and make the report a third of the size.
    Image.fromarray(picture).quantize(128).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
