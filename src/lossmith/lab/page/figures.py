"""The report's plots, as HTML fragments. Greys and colours are chosen to be read on white and on black."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from lossmith.lab.say.curves import PICTURE, Canvas, Drawn, LineCurve, PictureCurve
from lossmith.lab.say.ranking import LossRanking

_INK = "#7d8590"
_GRID = "rgba(128,128,128,0.22)"
_COLOURS = ("#3d85c6", "#dd8420", "#2a9d76", "#c2549d", "#8c72d6", "#ab9420", "#d0524a", "#4fb3bf")
_DASHES = ("solid", "dash", "dot", "dashdot")  # so that curves that lie on each other can be told apart
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")

Colours = dict[str, str]


def colours(losses: list[str]) -> Colours:
    """One colour per loss, the same in every plot."""
    return {loss: _COLOURS[i % len(_COLOURS)] for i, loss in enumerate(losses)}


def ranking(result: LossRanking, trials: list[dict[str, Any]], colour: Colours) -> str:
    """Left: the score of every seed. Right: the difference to the best loss, with its interval."""
    score, title = result.metrics.ranked_by, result.metrics.title
    rows = [row for row in result.rows if row.seeds][::-1]
    if not rows:
        return ""
    names = [plain(row.loss) for row in rows]
    figure = make_subplots(
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.06,
        subplot_titles=(
            f"{title} of each seed (bar: mean)",
            f"Difference in {title} to the one to use (all intervals together 95 %)",
        ),
    )
    for row in rows:
        mine = {t["seed"]: t["metrics"][score] for t in trials if t["loss"] == row.loss and t["metrics"]}
        for seed in row.seeds:
            figure.add_scatter(
                x=[mine[seed]],
                y=[plain(row.loss)],
                mode="markers",
                marker={"color": colour[row.loss], "size": 11, "opacity": 0.75, "symbol": _symbol(seed)},
                hovertemplate=f"seed {seed}: %{{x:.4f}}<extra></extra>",
                col=1,
                row=1,
            )
        figure.add_scatter(
            x=[row.mean[score]],
            y=[plain(row.loss)],
            mode="markers",
            marker={"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": colour[row.loss]}},
            hovertemplate="mean %{x:.4f}<extra></extra>",
            col=1,
            row=1,
        )
        difference = row.difference
        if difference is None:
            continue
        ends = None
        if difference.high is not None and difference.low is not None:
            upper, lower = difference.high - difference.mean, difference.mean - difference.low
            ends = {
                "type": "data",
                "symmetric": False,
                "array": [upper],
                "arrayminus": [lower],
                "thickness": 2,
                "width": 7,
            }
        figure.add_scatter(
            x=[difference.mean],
            y=[plain(row.loss)],
            mode="markers",
            marker={"color": colour[row.loss], "size": 10},
            error_x=ends,
            hovertemplate=f"%{{x:+.4f}}<br>{difference.verdict}<extra></extra>",
            col=2,
            row=1,
        )
    if result.reference:
        figure.add_scatter(
            x=[0],
            y=[plain(result.reference.loss)],
            mode="markers+text",
            text=["the best"],
            textposition="middle right",
            textfont={"color": _INK},
            marker={"color": colour[result.reference.loss], "size": 10, "symbol": "circle-open", "line": {"width": 2}},
            hoverinfo="skip",
            col=2,
            row=1,
        )
    figure.add_vline(x=0, line={"color": _INK, "width": 1, "dash": "dot"}, col=2, row=1)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names, range=[-0.6, len(names) - 0.4])
    figure.update_xaxes(range=[-0.03, 1.03], col=1, row=1)
    figure.update_xaxes(tickformat="+.2f", col=2, row=1)
    return html_of(figure, 110 + 46 * len(names), legend=False)


def validation(trials: list[dict[str, Any]], title: str, colour: Colours) -> str:
    """The score on the watched images at the checkpoints: a thin line for a seed, a thick one for the mean."""
    figure = go.Figure()
    for n, loss in enumerate(colour):
        mine = [t for t in trials if t["loss"] == loss and t["validation"]["step"]]
        for trial in mine:
            figure.add_scatter(
                x=trial["validation"]["step"],
                y=trial["validation"]["score"],
                mode="lines+markers",
                line={"color": colour[loss], "width": 1},
                marker={"symbol": _symbol(trial["seed"]), "size": 6},
                opacity=0.45,
                legendgroup=plain(loss),
                showlegend=False,
                hovertemplate=f"{plain(loss)}, seed {trial['seed']}: %{{y:.3f}}<extra></extra>",
            )
        steps = sorted({s for t in mine for s in t["validation"]["step"]})
        at = [[d for t in mine for s, d in zip(*_course(t), strict=True) if s == step] for step in steps]
        if steps:
            figure.add_scatter(
                x=steps,
                y=[sum(d) / len(d) for d in at],
                mode="lines",
                name=plain(loss),
                legendgroup=plain(loss),
                line={"color": colour[loss], "width": 3, "dash": _DASHES[n % len(_DASHES)]},
                hovertemplate=f"{plain(loss)}, mean: %{{y:.3f}}<extra></extra>",
            )
    if not figure.data:
        return ""
    figure.update_yaxes(range=[-0.02, 1.02], title=f"{title}, held-back images")
    figure.update_xaxes(title="step", rangemode="tozero")
    return html_of(figure, 380)


def training(trials: list[dict[str, Any]], colour: Colours) -> str:
    """The training loss, one panel each: their units are not comparable."""
    losses = [loss for loss in colour if any(t["loss"] == loss and t["training"]["step"] for t in trials)]
    if not losses:
        return ""
    columns = min(4, len(losses))
    rows = -(-len(losses) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[plain(_short(x)) for x in losses],
        horizontal_spacing=0.06,
        vertical_spacing=0.3 / rows,
    )
    for i, loss in enumerate(losses):
        for trial in (t for t in trials if t["loss"] == loss):
            figure.add_scatter(
                x=trial["training"]["step"],
                y=trial["training"]["loss"],
                mode="lines",
                line={"color": colour[loss], "width": 1.2},
                opacity=0.7,
                hovertemplate=f"seed {trial['seed']}: %{{y:.4g}}<extra></extra>",
                row=i // columns + 1,
                col=i % columns + 1,
            )
    figure.update_xaxes(rangemode="tozero", nticks=5)
    figure.update_yaxes(nticks=6)
    return html_of(figure, 60 + 190 * rows, legend=False)


def cost(trials: list[dict[str, Any]], colour: Colours) -> str:
    """Milliseconds a step: the loss (solid), and everything else (pale). Medians over the trials."""
    names, inside, total = [], [], []
    for loss in reversed(colour):
        mine = [t for t in trials if t["loss"] == loss and t["ms_per_step"] is not None]
        if mine:
            names.append(loss)
            inside.append(_median([t["ms_in_loss"] for t in mine]))
            total.append(_median([t["ms_per_step"] for t in mine]))
    if not names:
        return ""
    figure = go.Figure()
    figure.add_bar(
        y=[plain(n) for n in names],
        x=inside,
        orientation="h",
        name="loss, forward and backward",
        marker={"color": [colour[n] for n in names], "line": {"width": 0}},
        hovertemplate="%{x:.2f} ms in the loss<extra></extra>",
    )
    figure.add_bar(
        y=[plain(n) for n in names],
        x=[t - i for t, i in zip(total, inside, strict=True)],
        orientation="h",
        name="network and optimizer",
        marker={"color": _GRID, "line": {"width": 0}},
        text=[f"{t:.0f} ms, {i / t:.1%} in the loss" for t, i in zip(total, inside, strict=True)],
        textposition="inside",
        insidetextanchor="end",
        textfont={"color": _INK},
        hovertemplate="%{x:.2f} ms elsewhere<extra></extra>",
    )
    figure.update_layout(barmode="stack", bargap=0.35)
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_xaxes(title="ms per step", rangemode="tozero")
    return html_of(figure, 100 + 40 * len(names), legend=False)


def curves(drawn: dict[str, PictureCurve], colour: Colours) -> str:
    """Value, gradient, and the share of the gradient that classes above 0 get, against the true class's probability."""
    if not drawn:
        return ""
    figure = make_subplots(
        cols=3,
        horizontal_spacing=0.07,
        subplot_titles=("Value", PICTURE.gradient, "Gradient on the foreground"),
    )
    for n, loss in enumerate(colour):
        if loss not in drawn:
            continue
        curve = drawn[loss]
        panels: tuple[Sequence[float | None], ...] = (curve.value, curve.gradient, curve.foreground)
        for i, y in enumerate(panels):
            _add_line(figure, curve.x, y, loss, colour, n, column=i + 1)
    for pixels in {curve.foreground_pixels for curve in drawn.values()}:
        figure.add_hline(y=pixels, line={"color": _INK, "dash": "dot", "width": 1}, row=1, col=3)
    figure.update_xaxes(title=PICTURE.axis, range=[0, 1], nticks=6)
    figure.update_yaxes(nticks=6)
    figure.update_yaxes(rangemode="tozero", col=2)
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%", col=3)
    return html_of(figure, 400)


def lines(canvas: Canvas, drawn: dict[str, LineCurve], colour: Colours) -> str:
    """Value and gradient against what the inputs of a kind are moved along."""
    figure = make_subplots(cols=2, horizontal_spacing=0.08, subplot_titles=("Value", canvas.gradient))
    for n, loss in enumerate(colour):
        line = drawn[loss]
        for i, y in enumerate((line.value, line.gradient)):
            _add_line(figure, line.x, y, loss, colour, n, column=i + 1)
    low, high = canvas.ends
    figure.update_xaxes(title=canvas.axis, range=[math.floor(low), math.ceil(high)], nticks=8)
    figure.update_yaxes(nticks=6, rangemode="tozero")
    return html_of(figure, 400)


def sections(drawn: dict[str, Drawn]) -> str:
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
        figure = lines(canvas, moved, colour) if moved else curves(on_picture, colour)
        page += f"<section><h2>{canvas.heading}</h2><p>{canvas.caption}</p>{figure}</section>"
    return page


def _add_line(
    figure: go.Figure, x: list[float], y: Sequence[float | None], loss: str, colour: Colours, n: int, column: int
) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        name=plain(loss),
        legendgroup=plain(loss),
        showlegend=column == 1,
        line={"color": colour[loss], "width": 2.4, "dash": _DASHES[n % len(_DASHES)]},
        hovertemplate=f"{plain(loss)}: %{{y:.4g}}<extra></extra>",
        row=1,
        col=column,
    )


def plain(text: str) -> str:
    """A text that plotly shows as it is: it would read tags, entities and %{...} in the names of losses and classes."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def html_of(figure: go.Figure, height: int, legend: bool = True) -> str:
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 16, "t": 44 if len(figure.layout.annotations) else 16, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        showlegend=legend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
    if legend and len(figure.layout.annotations):  # panel titles sit where the legend would
        figure.update_layout(legend={"y": -0.24, "yanchor": "top"})
    figure.update_xaxes(
        gridcolor=_GRID, linecolor=_GRID, zeroline=False, automargin=True, title_standoff=8, title_font_size=13
    )
    figure.update_yaxes(
        gridcolor=_GRID, linecolor=_GRID, zeroline=False, automargin=True, title_standoff=8, title_font_size=13
    )
    figure.update_annotations(font={"size": 13})
    config = {"displayModeBar": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _symbol(seed: int) -> str:
    return _SYMBOLS[seed % len(_SYMBOLS)]


def _course(trial: dict[str, Any]) -> tuple[list[int], list[float]]:
    return trial["validation"]["step"], trial["validation"]["score"]


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _short(text: str) -> str:
    return text if len(text) <= 28 else text[:27] + "…"
