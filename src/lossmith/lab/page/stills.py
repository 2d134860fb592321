"""Charts as files, PNG or SVG, by matplotlib: the same data as on the page, on white, for papers and slides."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from lossmith.lab.page.panels import INK, Chart, Panel, Section, Series, Still
from lossmith.lab.run.records import write

_GREY = "#5b626b"
_DASHES: dict[str, Any] = {"solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.6)), "dashdot": (0, (4, 2, 1, 2))}
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "cross": "P", "star": "*", "bar": "|"}
_DPI = 160
_PIXELS_PER_INCH = 96
_WIDTH, _NARROW = 7.0, 3.4  # of a panel, in inches
_COLUMNS = 3
_LINE, _LETTERS_PER_INCH = 0.16, 17  # of a caption
_KEY = 0.6  # inches of a line of the legend, without its name, which is set in 9 points as the caption is in 8
_STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lossmith",  # the same figure is the same file
    "text.parse_math": False,  # a loss may be called $…$
}


def write_stills(drawn: Mapping[str, Chart | None], kind: Still, folder: Path) -> None:
    """Each chart as a PNG or SVG file of its name."""
    folder.mkdir(exist_ok=True)
    for name, chart in drawn.items():
        if chart:
            write(folder / f"{name}.{kind}", still(chart, kind))


def still(chart: Chart, kind: Still) -> bytes:
    """A chart as the content of a file."""
    return sheet([Section("", "", chart)], kind)


def sheet(sections: Sequence[Section], kind: Still) -> bytes:
    """Charts under each other, with headings and captions, as the content of a file."""
    sizes = [_size(section) for section in sections]
    size = max(width for width, _ in sizes), sum(height for _, height in sizes)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        parts = figure.subfigures(len(sections), 1, squeeze=False, height_ratios=[height for _, height in sizes])
        for section, part in zip(sections, parts[:, 0], strict=True):
            _section(part, section, size[0])
        file = io.BytesIO()
        if kind == "png":
            FigureCanvasAgg(figure).print_figure(file, format="png", dpi=_DPI)
        else:
            FigureCanvasSVG(figure).print_figure(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _grid(chart: Chart) -> tuple[int, int]:
    """Rows and columns."""
    count = len(chart.panels)
    columns = min(_COLUMNS, count) if chart.narrow or count > 1 else 1
    return math.ceil(count / columns), columns


def _size(section: Section) -> tuple[float, float]:
    """Width and height in inches."""
    chart = section.chart
    rows, columns = _grid(chart)
    width = _NARROW * columns if columns > 1 or chart.narrow else _WIDTH
    keys = 0.1 + 0.2 * math.ceil(len(chart.legend) / _keys(chart, width)) if chart.legend else 0
    words = 0.3 * bool(section.heading) + _LINE * len(_wrapped(section.caption, width))
    return width, rows * max(panel.height for panel in chart.panels) / _PIXELS_PER_INCH + keys + words


def _keys(chart: Chart, width: float) -> int:
    """How many of the legend stand beside each other."""
    longest = max(map(len, chart.legend), default=0)
    return max(1, min(4, int(width / (_KEY + longest / _LETTERS_PER_INCH * 9 / 8))))


def _wrapped(caption: str, width: float) -> list[str]:
    return textwrap.wrap(caption, round(width * _LETTERS_PER_INCH))


def _section(part: SubFigure, section: Section, width: float) -> None:
    chart = section.chart
    rows, columns = _grid(chart)
    axes = part.subplots(rows, columns, squeeze=False).flatten()
    for panel, axis in zip(chart.panels, axes, strict=False):
        _draw(axis, panel)
    for axis in axes[len(chart.panels) :]:
        axis.set_axis_off()
    if chart.legend or section.heading:
        keys = [Line2D([], [], color=colour, ls=_DASHES[dash], lw=2) for colour, dash in chart.legend.values()]
        look: dict[str, Any] = {"ncols": _keys(chart, width), "frameon": False, "alignment": "left"}
        look |= {"title": section.heading, "title_fontproperties": {"size": 12, "weight": "bold"}}
        part.legend(keys, list(chart.legend), loc="outside upper left", **look)
    if section.caption:
        text = "\n".join(_wrapped(section.caption, width))
        part.supxlabel(text, x=0.01, ha="left", fontsize=8, color=_GREY)


def _draw(axis: Axes, panel: Panel) -> None:
    if panel.x_log:
        axis.set_xscale("log")
    for series in panel.series:
        _add(axis, series)
    for mark in panel.marks:
        if mark.axis == "x":
            axis.axvline(mark.at, color=INK, lw=0.8, ls=_DASHES["dot"])
            at, where = (mark.at, 1.0), ("data", "axes fraction")
            axis.annotate(mark.text, at, xycoords=where, ha=panel.anchor(mark), va="bottom", fontsize=8, color=_GREY)
        else:
            axis.axhline(mark.at, color=INK, lw=0.8, ls=_DASHES["dot"])
            at, where = (1.0, mark.at), ("axes fraction", "data")
            axis.annotate(mark.text, at, xycoords=where, ha="right", va="bottom", fontsize=8, color=_GREY)
    if panel.title:
        pad = 16 if any(mark.axis == "x" and mark.text for mark in panel.marks) else 6
        axis.set_title(panel.title, fontsize=9, fontweight="bold", loc="left", color=_GREY, pad=pad)
    axis.set_xlabel(panel.x_title)
    axis.set_ylabel(panel.y_title)
    if panel.x_range:
        axis.set_xlim(*panel.x_range)
    if panel.y_range:
        axis.set_ylim(*panel.y_range)
    elif panel.from_zero and not any(y is not None and y < 0 for series in panel.series for y in series.y):
        axis.set_ylim(bottom=0)
    axis.grid(color="#e3e6ea", lw=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0, colors=_GREY)
    if panel.percent:
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if panel.x_log:
        axis.xaxis.set_major_locator(FixedLocator(panel.ticks))
        axis.xaxis.set_major_formatter(FixedFormatter([f"{x:.2g}" for x in panel.ticks]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if panel.rows:
        axis.set_ylim(len(panel.rows) - 0.6, -0.75)
        axis.set_yticks([])
        for row, name in enumerate(panel.rows):
            at, where = (0.0, row - 0.32), ("axes fraction", "data")
            axis.annotate(name, at, xycoords=where, ha="left", va="bottom", fontsize=9, color="#1f2328")


def _add(axis: Axes, series: Series) -> None:
    y = [math.nan if value is None else value for value in series.y]
    if series.bars:
        left = list(series.low) or [0.0] * len(y)
        length = [x - low for x, low in zip(series.x, left, strict=True)]
        axis.barh(y, length, series.bars, left=left, color=series.colour, alpha=series.opacity, lw=0)
        return
    if series.low:
        axis.hlines(y, list(series.low), list(series.high), color=series.colour, lw=1.8)
    axis.plot(
        list(series.x),
        y,
        color=series.colour,
        alpha=series.opacity,
        lw=0.7 * series.width,
        ls=_DASHES[series.dash] if series.width else "none",
        marker="" if series.symbol is None else _MARKERS.get(series.symbol, "o"),
        ms=0.62 * series.size,
        mew=1.6 if series.symbol in ("ring", "bar") else 0,
        mfc="none" if series.symbol == "ring" else series.colour,
    )
