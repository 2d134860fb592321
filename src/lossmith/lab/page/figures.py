"""Charts for the page, as HTML fragments by plotly. They follow the width of the page and its dark mode."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from lossmith.lab.page.panels import INK, Chart, Colours, Mark, Panel, Series, colours

__all__ = ["Colours", "colours", "html_of", "markup", "plain"]

_GRID = "rgba(128,128,128,0.22)"
_SYMBOLS = {"triangle": "triangle-up", "ring": "circle-open", "bar": "line-ns"}
_HEAD = 18  # of a row, where its name stands


def markup(chart: Chart | None) -> str:
    """A chart as HTML; "" for none. The page's template says how its parts are laid out."""
    if chart is None:
        return ""
    keys = "".join(
        f'<span class="whole"><span class="key {dash}" style="color:{colour}"></span>{html.escape(name)}</span> '
        for name, (colour, dash) in chart.legend.items()
    )
    legend = f'<p class="soft legend">{keys}</p>' if keys else ""
    drawn = "".join(f"<div>{html_of(_figure(panel), panel.height, legend=False)}</div>" for panel in chart.panels)
    layout = "one" if len(chart.panels) == 1 else "narrow" if chart.narrow else "wide"
    return f'{legend}<div class="panels {layout}">{drawn}</div>'


def plain(text: str) -> str:
    """A text that plotly shows as it is: it would read tags, entities and %{...} in the names of losses and classes."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def html_of(figure: go.Figure, height: int, legend: bool = True) -> str:
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 16, "t": 44 if len(figure.layout.annotations) else 16, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        showlegend=legend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
    if figure.layout.meta:  # a panel: its own margin
        figure.update_layout(margin={"t": figure.layout.meta})
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


def _figure(panel: Panel) -> go.Figure:
    figure = go.Figure()
    for series in panel.series:
        _add(figure, panel, series)
    for mark in panel.marks:
        _add_mark(figure, panel, mark)
    for row, name in enumerate(panel.rows):
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=row, yshift=_HEAD, text=plain(_short(name, 60)), showarrow=False
        )
    if panel.title:
        place = {"x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom"}
        figure.add_annotation(
            text=plain(_short(panel.title, 34)), font={"weight": 600}, showarrow=False, yshift=8, **place
        )
    figure.update_layout(barmode="overlay")
    figure.update_layout(meta=40 if panel.title else 22 if panel.marks else 12)
    figure.update_xaxes(title=plain(panel.x_title) or None, nticks=6, range=panel.x_range)
    figure.update_yaxes(title=plain(panel.y_title) or None, nticks=6, range=panel.y_range)
    if panel.from_zero:
        figure.update_yaxes(rangemode="tozero")
    if panel.percent:
        figure.update_yaxes(tickformat=".0%")
    if panel.rows:
        figure.update_yaxes(range=[len(panel.rows) - 0.6, -0.75], showticklabels=False, showgrid=False)
    if panel.x_log:
        figure.update_xaxes(type="log", tickvals=panel.ticks, ticktext=[f"{x:.2g}" for x in panel.ticks])
    return figure


def _add(figure: go.Figure, panel: Panel, series: Series) -> None:
    value = "%{x:.4g}" if panel.rows else "%{y:.4g}"
    hover = f"{plain(series.note)}: {value}<extra></extra>" if series.note else f"{value}<extra></extra>"
    if series.bars:
        bars = {"color": series.colour, "opacity": series.opacity, "line": {"width": 0}}
        figure.add_bar(
            x=[x - low for x, low in zip(series.x, series.low, strict=True)] if series.low else series.x,
            y=series.y,
            base=list(series.low) or None,
            width=[series.bars] * len(series.x),
            orientation="h",
            marker=bars,
            hovertemplate=hover,
            name=plain(series.note),
        )
        return
    ends: dict[str, Any] | None = None
    if series.low:
        ends = {
            "type": "data",
            "symmetric": False,
            "array": [high - x for x, high in zip(series.x, series.high, strict=True)],
            "arrayminus": [x - low for x, low in zip(series.x, series.low, strict=True)],
            "thickness": 2.4,
            "width": 6,
        }
    mode = "+".join(["lines"] * bool(series.width) + ["markers"] * bool(series.symbol))
    symbol = series.symbol or "circle"
    marker: dict[str, Any] = {"color": series.colour, "size": series.size, "symbol": _SYMBOLS.get(symbol, symbol)}
    if symbol in ("ring", "bar"):
        marker["line"] = {"width": 2.4, "color": series.colour}
    figure.add_scatter(
        x=series.x,
        y=series.y,
        mode=mode,
        marker=marker,
        line={"color": series.colour, "width": series.width, "dash": series.dash},
        opacity=series.opacity,
        error_x=ends,
        hovertemplate=hover,
        name=plain(series.note),
    )


def _add_mark(figure: go.Figure, panel: Panel, mark: Mark) -> None:
    line = {"color": INK, "width": 1, "dash": "dot"}
    text = {"text": plain(mark.text), "showarrow": False} if mark.text else {}
    if mark.axis == "x":
        figure.add_vline(x=mark.at, line=line)
        if text:
            figure.add_annotation(x=mark.at, y=1, yref="paper", xanchor=panel.anchor(mark), yanchor="bottom", **text)
    else:
        figure.add_hline(y=mark.at, line=line)
        if text:
            figure.add_annotation(x=1, xref="paper", xanchor="right", y=mark.at, yanchor="bottom", **text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
