"""What a figure shows, as plain data: drawn for the page by figures.py, as PNG or SVG by stills.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Dash = Literal["solid", "dash", "dot", "dashdot"]
Symbol = Literal["circle", "square", "diamond", "triangle", "cross", "star", "ring", "bar"]
Still = Literal["png", "svg"]

INK = "#7d8590"
COLOURS = ("#3d85c6", "#cf7a1a", "#2a9d76", "#c2549d", "#8c72d6", "#a58f1d", "#d0524a", "#369aa7")
DASHES: tuple[Dash, ...] = ("solid", "dash", "dot", "dashdot")  # curves that lie on each other can be told apart
SYMBOLS: tuple[Symbol, ...] = ("circle", "square", "diamond", "triangle", "cross", "star")

Colours = dict[str, str]


def colours(losses: Sequence[str]) -> Colours:
    """One colour per loss, the same in every figure; greys and colours are chosen to be read on white and on black."""
    return {loss: COLOURS[i % len(COLOURS)] for i, loss in enumerate(losses)}


@dataclass(frozen=True)
class Series:
    """Points, joined by a line unless `width` is 0, or bars from the left where `bars` says how thick.

    `low` and `high` are the ends of an interval along x around each point. `note` is what the page says of a point when
    it is touched, before its value.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    colour: str
    note: str = ""
    width: float = 0
    dash: Dash = "solid"
    symbol: Symbol | None = None
    size: float = 10
    opacity: float = 1
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    bars: float = 0


@dataclass(frozen=True)
class Mark:
    """A dotted line across a panel at a value of x or y, and what it stands for."""

    axis: Literal["x", "y"]
    at: float
    text: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes. With `rows`, y counts these from the top, and each stands above its row."""

    series: list[Series]
    title: str = ""
    x_title: str = ""
    y_title: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_log: bool = False
    x_ticks: Sequence[float] = ()  # of a logarithmic x; else there is one at each point
    percent: bool = False  # y is a share
    from_zero: bool = False
    rows: Sequence[str] = ()
    marks: Sequence[Mark] = ()

    def anchor(self, mark: Mark) -> Literal["left", "center", "right"]:
        """How the words of a mark along x stand to it, so that they stay inside."""
        low, high = self.x_range or (mark.at - 1, mark.at + 1)
        place = (mark.at - low) / (high - low)
        return "left" if place < 0.15 else "right" if place > 0.85 else "center"

    @property
    def ticks(self) -> list[float]:
        """Of a logarithmic x."""
        return list(self.x_ticks) or sorted({x for series in self.series for x in series.x})

    @property
    def height(self) -> int:
        """In pixels of the page."""
        titles = 26 * bool(self.title) + 20 * bool(self.x_title)
        return titles + (44 * len(self.rows) + 44 if self.rows else 270)


@dataclass(frozen=True)
class Chart:
    """Panels under one name, beside each other where there is room, and what the colours stand for."""

    panels: list[Panel]
    legend: dict[str, tuple[str, Dash]] = field(default_factory=dict)
    narrow: bool = False  # small panels, several to a row


@dataclass(frozen=True)
class Section:
    """A chart with its heading, and a caption that says what is drawn."""

    heading: str
    caption: str
    chart: Chart
