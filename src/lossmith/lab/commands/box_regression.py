"""`lossmith lab box-regression`: the simulation of the DIoU paper."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

from lossmith.lab import UserError
from lossmith.lab.commands.experiments import Fast, check_writable, lab
from lossmith.lab.commands.terminal import Interrupted, Json, notes, progress


@lab.command("box-regression")
def box_regression(
    form: Annotated[
        Literal["both", "true", "published"],
        typer.Option(help="true: the losses' own gradients; published: those of the authors' script."),
    ] = "both",
    points: Annotated[
        int | None,
        typer.Option(min=1, help="Anchor points of 343 cases: 1000 if not given, 40 with --fast; the paper: 5000."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The HTML file to write: box-regression.html; with --json none unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the anchor points.")] = 0,
    fast: Fast = False,
    json: Json = False,
) -> None:
    """Repeat the DIoU paper's simulation: boxes that walk to their targets by the gradient of a loss alone.

    Losses: IoU, GIoU, DIoU, CIoU, EIoU, SIoU, smooth L1. Totals are scaled to the paper's 1,715,000 cases. Ctrl-C
    keeps the points that are done. With --json the claim is judged by these points: by the losses' own gradients, or by
    those of the script where they are the only ones asked for.
    """
    from lossmith.lab.experiments.box_regression import EXPERIMENT, FAST_POINTS, FULL_POINTS
    from lossmith.lab.experiments.boxes import page as box_page
    from lossmith.lab.experiments.boxes import walk as experiment
    from lossmith.lab.page.experiment import Outcome

    if fast and points is not None:
        raise UserError("--points and --fast: give one of them")
    points = FAST_POINTS if fast else points or FULL_POINTS
    page = out or (None if json else Path("box-regression.html"))
    if page is not None:
        check_writable(page)
    forms: list[str] = ["published", "true"] if form == "both" else [form]
    anchors = experiment.draw_points(points, seed)
    runs = list(dict.fromkeys(experiment.form_run(loss, each) for each in forms for loss in experiment.LOSSES))
    singles = experiment.ablation_runs() if page is not None and form == "both" else []
    few = anchors[: box_page.ABLATION_POINTS]
    say = notes()
    with progress(say, quiet=json, unit="case") as shown:
        total = experiment.CASES_PER_POINT * (len(runs) * len(anchors) + len(singles) * len(few))
        bar = shown.add_task(f"{points} anchor points", total=total)
        courses, stopped = experiment.simulate(anchors, runs, lambda cases: shown.advance(bar, cases))
        ablation: dict[experiment.Run, experiment.Course] = {}
        if singles and not stopped:
            ablation, stopped = experiment.simulate(few, singles, lambda cases: shown.advance(bar, cases))
    if not courses:
        raise Interrupted(" before the first anchor points were done")
    done = len(courses[runs[0]].marks)
    if page is not None:
        box_page.write_page(courses, ablation, anchors, forms, seed, page)
    if json:
        totals = {each: experiment.totals(courses, each) for each in forms}
        found = Outcome.of(EXPERIMENT, EXPERIMENT.data_of(courses, anchors[:done], forms))
        typer.echo(dumps({**found.as_json(), "form": form, "totals": totals if form == "both" else totals[form]}))
    elif page is not None:
        typer.echo(str(page))
    if stopped:
        where = ", in the table of deviations" if done == points else ""
        kept = "" if page is None else f"; {page} shows what is done"
        raise Interrupted(f" after {done} of {points} anchor points{where}{kept}")
