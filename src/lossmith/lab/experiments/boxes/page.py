"""The page of the box regression experiment: what can be said, the totals, the final error over the disc, the parts.

Every sentence with a number in it is made of the courses, also where they would say something else than they do.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from plotly.subplots import make_subplots  # type: ignore[import-untyped]
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

from lossmith.lab.experiments.boxes import walk as br
from lossmith.lab.experiments.boxes.walk import Array, Course, Run
from lossmith.lab.page import figures
from lossmith.lab.page.templates import render
from lossmith.lab.run.records import write

Courses = dict[Run, Course]

ABLATION_POINTS = 500
TITLES = dict(zip(br.LOSSES, ("IoU", "GIoU", "DIoU", "CIoU", "EIoU", "SIoU", "smooth L1"), strict=True))
FORMS = {"published": "as published", "true": "with true gradients"}
FIGURE = {  # read off the curves of the paper's figure, in millions
    "iou": {1: 6.64, 30: 6.13, 160: 5.98, 200: 5.91},
    "giou": {1: 6.42, 30: 3.99, 160: 1.87, 200: 1.51},
    "diou": {1: 6.37, 30: 1.20, 160: 0.40, 200: 0.0},
    "ciou": {1: 6.32, 30: 0.77, 160: 0.40, 200: 0.0},
}
DEVIATIONS = {
    br.DOUBLE_STEP: (
        "double step",
        "The step in w and h is twice the derivative, of IoU in all four losses and of GIoU’s hull term too.",
    ),
    br.UNCLAMPED: (
        "intersection not clamped",
        "GIoU: for disjoint boxes the intersection is the product of the two overlaps in x and y although one or both "
        "are negative. It enters the union and its derivative, there and only there.",
    ),
    br.BOTH_SIDES: (
        "both sides",
        "DIoU, CIoU: in the derivative of the hull’s squared diagonal cw² + ch² a side counts with cw + ch instead of "
        "its own length.",
    ),
    br.CENTRE_SIGN: (
        "sign in cx, cy",
        "DIoU, CIoU: the part of the derivative that comes from the hull has the opposite sign in cx and cy. The true "
        "part pushes a disjoint box outwards, against the pull of ρ², because a larger hull makes ρ² / c² smaller; the "
        "script’s pulls it in.",
    ),
    br.COVER_SIGN: (
        "sign in w, h",
        "DIoU, CIoU: the derivative of the hull’s width (height) has the opposite sign in w (h) where the box reaches "
        "past the target on both sides.",
    ),
    br.NO_ASPECT_NORM: ("no 1 / (w² + h²)", "CIoU: the derivative of the aspect term lacks the factor 1 / (w² + h²)."),
}

_GRID = 90  # pixels across the disc
_SMALLEST = 1e-3  # of the colour scale
_CLEAR = 2  # standard errors


def write_page(courses: Courses, ablation: Courses, asked: Array, forms: list[str], seed: int, page: Path) -> None:
    """Write the page. `asked` are all anchor points (n, 2); the courses may hold fewer, after Ctrl-C."""
    done = len(next(iter(courses.values())).marks)
    colour = figures.colours(list(br.LOSSES))
    rendered = render(
        '{% extends "box_regression.html" %}',
        headline=headline(courses, forms),
        findings=findings(courses, ablation, asked[:done], forms),
        forms={form: FORMS[form] for form in forms},
        titles=TITLES,
        colour=colour,
        marks=br.MARKS,
        rows=[_row(loss, form, courses) for loss in br.LOSSES for form in forms if form == "true" or loss in br.SCRIPT],
        parts=[_part(run, ablation) for run in _in_order(ablation)],
        ablation_points=len(next(iter(ablation.values())).marks) if ablation else 0,
        deviations=DEVIATIONS.values(),
        done=done,
        asked=len(asked),
        cases=br.CASES_PER_POINT,
        seed=seed,
        turned=[(TITLES[run.loss], FORMS[_form(run)], course.turned) for run, course in courses.items()],
        totals=draw_totals(courses, forms, colour),
        maps={form: draw_maps(courses, asked[:done], form) for form in forms},
    )
    write(page, rendered)


# ---------------------------------------------------------------------------------------------------- sentences


def headline(courses: Courses, forms: list[str]) -> str:
    leads = {form: _signed(_difference(courses, "giou", "diou", form, 200)[0]) for form in forms}
    text = ", ".join(f"{lead} million {FORMS[form]}" for form, lead in leads.items())
    return f"DIoU’s lead over GIoU after 200 iterations: {text}"


def findings(courses: Courses, ablation: Courses, points: Array, forms: list[str]) -> list[str]:
    """What the numbers say, one sentence or two each."""
    found = []
    if "published" in forms:
        found.append(_reproduction(courses))
    if len(forms) == 2:
        found += [_gap(courses, k) for k in (30, 160, 200)]
        found += [_attribution(ablation, "giou", 200), _attribution(ablation, "diou", 30)] if ablation else []
        found.append(_remains(courses))
    for form in forms:
        found += [f"{FORMS[form].capitalize()}, after {k} iterations: {_order(courses, form, k)}." for k in (30, 200)]
    ends = " and ".join(f"{_millions(_total(courses, 'iou', f, 200))} million {FORMS[f]}" for f in forms)
    found.append(
        f"IoU loss ends at {ends}. {br.disjoint_share(points):.0%} of the anchors do not touch their target, and to "
        "those it gives no gradient, in the script as in truth: that part of the figure is the loss’s own."
    )
    return found


def _reproduction(courses: Courses) -> str:
    high, low = (0.0, ""), 0.0
    for loss, readings in FIGURE.items():
        for k, read in readings.items():
            errors = courses[br.form_run(loss, "published")].at(k)
            off = abs(float(errors.mean()) / 1e6 - read)
            where = (
                f"{TITLES[loss]} at iteration {k}, {_millions(errors.mean())} ± {_millions(_standard_error(errors))}"
            )
            if read >= 0.1:
                high = max(high, (off / read, f"{where} against {read:.2f} million"))
            else:
                low = max(low, off)
    return (
        f"At the iterations compared the published form is within {high[0]:.1%} of the paper’s figure where that shows "
        f"more than 0.1 million, and within {low:.3f} million where it shows 0. The furthest is {high[1]}; the figure "
        "can be read to about 0.01."
    )


def _gap(courses: Courses, k: int) -> str:
    published, _ = _difference(courses, "giou", "diou", "published", k)
    true, error = _difference(courses, "giou", "diou", "true", k)
    start = f"After {k} iterations GIoU’s total exceeds DIoU’s by {_signed(published)} million as published and by "
    start += f"{_signed(true)} ± {_millions(error)} million with true gradients"
    if published <= 0:
        return f"{start}: there is no published gap to explain."
    if true < -_CLEAR * error:
        return f"{start}: the script made all of the gap, and turned the order round."
    return f"{start}: the script made {1 - true / published:.0%} of the gap."


def _attribution(ablation: Courses, loss: str, k: int) -> str:
    """Which deviation alone moves a loss's total the way the script does."""
    true, script = (_at(ablation[run], k) for run in (Run(loss), Run(loss, br.SCRIPT[loss])))
    alone = {DEVIATIONS[bit][0]: _at(ablation[Run(loss, bit)], k) for bit in br.deviations_of(loss)}
    moved = sorted(alone, key=lambda name: (alone[name] - true) * math.copysign(1, script - true), reverse=True)
    rest = ", ".join(f"“{name}” {_millions(alone[name])}" for name in moved[1:])
    return (
        f"{TITLES[loss]} after {k} iterations goes from {_millions(true)} million with true gradients to "
        f"{_millions(script)} million with all of the script’s deviations. One alone does most with "
        f"“{moved[0]}”: {_millions(alone[moved[0]])} million (the others alone: {rest})."
    )


def _remains(courses: Courses) -> str:
    """Whether CIoU's lead over DIoU is in both forms."""
    leads = {form: _difference(courses, "diou", "ciou", form, 30) for form in FORMS}
    text = ", ".join(f"{_signed(d)} ± {_millions(e)} million {FORMS[form]}" for form, (d, e) in leads.items())
    kept = all(d > _CLEAR * e for d, e in leads.values())
    verdict = "it belongs to the loss" if kept else "it is not clear in both forms"
    return f"CIoU’s lead over DIoU after 30 iterations is {text}: {verdict}."


def _order(courses: Courses, form: str, k: int) -> str:
    """The losses by total, lowest first; ≈ where the difference is within two standard errors."""
    ranked = sorted(br.LOSSES, key=lambda loss: _total(courses, loss, form, k))
    if form == "published":
        ranked = [loss for loss in ranked if loss in br.SCRIPT]
    text = f"{TITLES[ranked[0]]} {_millions(_total(courses, ranked[0], form, k))}"
    for lower, higher in pairwise(ranked):
        difference, error = _difference(courses, higher, lower, form, k)
        sign = "<" if difference > _CLEAR * error else "≈"  # also where one point leaves the error unknown
        text += f" {sign} {TITLES[higher]} {_millions(_total(courses, higher, form, k))}"
    return text + " million"


def _at(course: Course, k: int) -> float:
    return float(course.scaled()[k - 1])


def _total(courses: Courses, loss: str, form: str, k: int) -> float:
    return _at(courses[br.form_run(loss, form)], k)


def _difference(courses: Courses, higher: str, lower: str, form: str, k: int) -> tuple[float, float]:
    """Difference of two totals on the same points, and its standard error (NaN with one point)."""
    pair = courses[br.form_run(higher, form)].at(k) - courses[br.form_run(lower, form)].at(k)
    return float(pair.mean()), _standard_error(pair)


def _standard_error(errors: Array) -> float:
    return float(errors.std(ddof=1) / math.sqrt(len(errors))) if len(errors) > 1 else math.nan


def _millions(value: float) -> str:
    millions = value / 1e6
    if math.isnan(millions):
        return "unknown"
    return f"{millions:.2f}" if abs(millions) >= 0.1 else f"{millions:.3f}"


def _signed(value: float) -> str:
    return ("−" if value < 0 else "") + _millions(abs(value))


def _form(run: Run) -> str:
    return "published" if run.deviations else "true"


def _row(loss: str, form: str, courses: Courses) -> dict[str, Any]:
    course = courses[br.form_run(loss, form)]
    cells = []
    for k in br.MARKS:
        error = _standard_error(course.at(k))
        read = FIGURE[loss].get(k) if form == "published" else None
        cells.append({"total": _millions(_at(course, k)), "error": _millions(error), "read": read})
    return {"loss": loss, "form": FORMS[form], "cells": cells}


def _in_order(ablation: Courses) -> list[Run]:
    """Loss by loss: true, single deviations, all but one, all."""

    def size(run: Run) -> int:
        bits, script = run.deviations.bit_count(), br.SCRIPT[run.loss].bit_count()
        return bits if bits in (0, script) else 1 if bits == 1 else 2

    return sorted(ablation, key=lambda run: (br.LOSSES.index(run.loss), size(run)))


def _part(run: Run, ablation: Courses) -> dict[str, Any]:
    bits = br.deviations_of(run.loss)
    chosen = [bit for bit in bits if run.deviations & bit]
    if not chosen:
        label = "true gradients"
    elif len(chosen) == len(bits):
        label = "all: as published"
    elif len(chosen) == 1:
        label = f"only: {DEVIATIONS[chosen[0]][0]}"
    else:
        label = "all but: " + ", ".join(DEVIATIONS[bit][0] for bit in bits if bit not in chosen)
    cells = [_millions(_at(ablation[run], k)) for k in br.MARKS]
    return {"loss": run.loss, "label": label, "cells": cells, "edge": len(chosen) in (0, len(bits))}


# -------------------------------------------------------------------------------------------------------- plots


def draw_totals(courses: Courses, forms: list[str], colour: figures.Colours) -> str:
    """The total error over the iterations, a panel for each form; circles are the paper's figure."""
    figure = make_subplots(
        cols=len(forms),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=[FORMS[form].capitalize() for form in forms],
    )
    for column, form in enumerate(forms, start=1):
        for n, (loss, title) in enumerate(TITLES.items()):
            figure.add_scatter(
                x=list(range(1, br.RATES.size + 1)),
                y=np.round(courses[br.form_run(loss, form)].scaled()),
                mode="lines",
                name=title,
                legendgroup=loss,
                showlegend=column == 1,
                line={
                    "color": colour[loss],
                    "width": 2.4 if loss in br.SCRIPT else 1.6,
                    "dash": "solid" if loss in br.SCRIPT else ("dash", "dot", "dashdot")[n % 3],
                },
                hovertemplate=f"{title}, iteration %{{x}}: %{{y:.4s}}<extra></extra>",
                row=1,
                col=column,
            )
            if form == "published" and loss in FIGURE:
                figure.add_scatter(
                    x=list(FIGURE[loss]),
                    y=[1e6 * read for read in FIGURE[loss].values()],
                    mode="markers",
                    legendgroup=loss,
                    showlegend=False,
                    marker={"color": colour[loss], "size": 9, "symbol": "circle-open", "line": {"width": 2}},
                    hovertemplate=f"{title}, the paper’s figure: %{{y:.3s}}<extra></extra>",
                    row=1,
                    col=column,
                )
    figure.update_xaxes(title="iteration", range=[-3, 203])
    figure.update_yaxes(rangemode="tozero", nticks=8)
    figure.update_yaxes(title="total error", col=1)
    return figures.html_of(figure, 480)


def draw_maps(courses: Courses, points: Array, form: str) -> str:
    """The final error of a case, averaged over the 343 of an anchor point, over the disc."""
    losses = [loss for loss in br.LOSSES if form == "true" or loss in br.SCRIPT]
    rows = -(-len(losses) // 4)
    figure = make_subplots(
        rows=rows,
        cols=4,
        subplot_titles=[TITLES[loss] for loss in losses],
        horizontal_spacing=0.03,
        vertical_spacing=0.12 / rows,
    )
    side = (np.arange(_GRID) + 0.5) / _GRID * 2 * br.RADIUS - br.RADIUS + br.CENTRE
    x, y = np.meshgrid(side, side)
    nearest = cKDTree(points).query(np.stack([x, y], -1))[1]
    outside = np.hypot(x - br.CENTRE, y - br.CENTRE) > br.RADIUS
    for i, loss in enumerate(losses):
        error = courses[br.form_run(loss, form)].marks[:, -1] / br.CASES_PER_POINT
        shown = np.where(outside, np.nan, error[nearest]).astype(np.float32)
        figure.add_heatmap(
            x=side.astype(np.float32),
            y=side.astype(np.float32),
            z=np.log10(np.maximum(shown, _SMALLEST)),
            customdata=shown,
            coloraxis="coloraxis",
            hovertemplate="anchor at (%{x:.2f}, %{y:.2f})<br>final error %{customdata:.3g}<extra></extra>",
            row=i // 4 + 1,
            col=i % 4 + 1,
        )
    ticks = (0.001, 0.01, 0.1, 1, 10)
    figure.update_layout(
        coloraxis={
            "colorscale": "Viridis",
            "cmin": math.log10(_SMALLEST),
            "cmax": 1,
            "colorbar": {
                "title": "error",
                "tickvals": [math.log10(t) for t in ticks],
                "ticktext": ["≤ 0.001", *map(str, ticks[1:])],
                "thickness": 12,
            },
        }
    )
    figure.update_xaxes(showgrid=False, nticks=4, constrain="domain")
    figure.update_yaxes(showgrid=False, nticks=4, constrain="domain")
    for i in range(1, len(losses) + 1):
        figure.layout[f"yaxis{i if i > 1 else ''}"].scaleanchor = f"x{i if i > 1 else ''}"
    return figures.html_of(figure, 30 + 270 * rows, legend=False)
