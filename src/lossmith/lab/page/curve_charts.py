"""The losses themselves as figures: their value and their gradient. What is drawn comes from say/curves.py."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from lossmith.lab.page.charts import legend
from lossmith.lab.page.figures import markup
from lossmith.lab.page.panels import DASHES, Chart, Colours, Mark, Panel, Series, colours
from lossmith.lab.say.curves import PICTURE, Canvas, Drawn, LineCurve, PictureCurve


def curves(drawn: Mapping[str, PictureCurve], colour: Colours) -> Chart | None:
    """Value, gradient, and the share of the gradient that classes above 0 get, against the true class's probability."""
    if not drawn:
        return None
    of = {loss: drawn[loss] for loss in colour if loss in drawn}
    pixels = [Mark("y", share) for share in {curve.foreground_pixels for curve in of.values()}]
    panels = [
        _panel("Value", {x: (c.x, c.value) for x, c in of.items()}, colour),
        _panel(PICTURE.gradient, {x: (c.x, c.gradient) for x, c in of.items()}, colour, from_zero=True),
        _panel("Gradient on the foreground", {x: (c.x, c.foreground) for x, c in of.items()}, colour, pixels),
    ]
    return Chart(panels, legend(list(of), colour), narrow=True)


def lines(canvas: Canvas, drawn: Mapping[str, LineCurve], colour: Colours) -> Chart:
    """Value and gradient against what the inputs of a kind are moved along."""
    value = {loss: (line.x, line.value) for loss, line in drawn.items()}
    gradient = {loss: (line.x, line.gradient) for loss, line in drawn.items()}
    panels = [
        _panel("Value", value, colour, canvas=canvas, from_zero=True),
        _panel(canvas.gradient, gradient, colour, canvas=canvas, from_zero=True),
    ]
    return Chart(panels, legend(list(drawn), colour))


def sections(drawn: Mapping[str, Drawn]) -> str:
    """A heading, what is drawn, and a figure for each kind of losses."""
    page = ""
    for name in dict.fromkeys(each.canvas.name for each in drawn.values()):
        some = {
            f"{loss} ({each.note})" if each.note else loss: each
            for loss, each in drawn.items()
            if each.canvas.name == name
        }
        canvas, colour = next(iter(some.values())).canvas, colours(list(some))
        on_picture = {loss: each.curve for loss, each in some.items() if isinstance(each.curve, PictureCurve)}
        moved = {loss: each.curve for loss, each in some.items() if isinstance(each.curve, LineCurve)}
        figure = markup(lines(canvas, moved, colour) if moved else curves(on_picture, colour))
        page += f"<section><h2>{html.escape(canvas.heading)}</h2><p>{html.escape(canvas.caption)}</p>{figure}</section>"
    return page


def _panel(
    title: str,
    of: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    colour: Colours,
    pixels: Sequence[Mark] | None = None,
    canvas: Canvas = PICTURE,
    from_zero: bool = False,
) -> Panel:
    """With `pixels`, a panel of shares."""
    order = list(colour)
    low, high = canvas.ends if canvas is not PICTURE else (0.0, 1.0)
    return Panel(
        [Series(x, y, colour[k], k, width=2.4, dash=DASHES[order.index(k) % len(DASHES)]) for k, (x, y) in of.items()],
        title=title,
        x_title=canvas.axis,
        x_range=(math.floor(low), math.ceil(high)),
        y_range=None if pixels is None else (-0.02, 1.02),
        percent=pixels is not None,
        from_zero=from_zero,
        marks=pixels or (),
    )
