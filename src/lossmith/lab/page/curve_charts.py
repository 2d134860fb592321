"""The losses themselves as figures: their value and their gradient. What is drawn comes from say/curves.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain

from lossmith.lab.page.charts import legend
from lossmith.lab.page.panels import DASHES, INK, Chart, Colours, Mark, Panel, Section, Series, colours
from lossmith.lab.say.axes import PICTURE, Axis, Line
from lossmith.lab.say.curves import Curve, Drawn

_PIXELS = "share of the pixels"


def curves(drawn: Mapping[str, Curve], colour: Colours, axis: Axis = PICTURE) -> Chart | None:
    """A panel for each line of an axis, with the curves of all losses that are drawn against it."""
    of = {loss: drawn[loss] for loss in colour if loss in drawn}
    if not of:
        return None
    panels = [_panel(axis, line, of, colour) for line in axis.lines]
    return Chart(panels, legend(list(of), colour), narrow=len(panels) > 2)


def sections(drawn: Mapping[str, Drawn]) -> list[Section]:
    """A heading, what is drawn, and a figure for each axis that the losses are drawn against."""
    found = []
    for name in dict.fromkeys(each.axis.heading for each in drawn.values()):
        some = {
            f"{loss} ({each.note})" if each.note else loss: each
            for loss, each in drawn.items()
            if each.axis.heading == name
        }
        axis = next(iter(some.values())).axis
        chart = curves({loss: each.curve for loss, each in some.items()}, colours(list(some)), axis)
        if chart is not None:
            found.append(Section(axis.heading, axis.caption, chart))
    return found


def _panel(axis: Axis, line: Line, of: Mapping[str, Curve], colour: Colours) -> Panel:
    order = list(colour)
    series = [
        Series(curve.x, curve.lines[line.key], colour[loss], loss, 2.4, DASHES[order.index(loss) % len(DASHES)])
        for loss, curve in of.items()
    ]
    marks = []
    if line.share:
        for shares in {tuple(curve.pixels): None for curve in of.values()}:
            if min(shares) == max(shares):
                marks.append(Mark("y", shares[0]))
            else:
                series.append(Series(axis.points, shares, INK, _PIXELS, 1.4, "dot"))
    low, high = axis.points[0], axis.points[-1]
    return Panel(
        series,
        title=line.title,
        x_title=axis.title,
        x_range=None if axis.ticks else (math.floor(low), math.ceil(high)),
        y_range=(-0.02, 1.02) if line.share else _common(axis, line, of),
        x_log=bool(axis.ticks),
        x_ticks=axis.ticks,
        percent=line.share,
        from_zero=line.from_zero,
        marks=marks,
    )


def _common(axis: Axis, line: Line, of: Mapping[str, Curve]) -> tuple[float, float] | None:
    """The scale of the lines that are to be compared with each other."""
    if not line.like:
        return None
    alike = [other.key for other in axis.lines if other.like == line.like]
    values = [v for v in chain(*(curve.lines[key] for curve in of.values() for key in alike)) if v is not None]
    low, high = min(0.0, *values), max(values)
    room = 0.04 * (high - low)
    return low - room, high + room
