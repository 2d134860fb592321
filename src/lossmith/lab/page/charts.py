"""What the figures of a comparison show. The losses themselves, as curves: curve_charts.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from lossmith.lab.page.panels import COLOURS, DASHES, INK, SYMBOLS, Chart, Colours, Dash, Mark, Panel, Series
from lossmith.lab.run.owners import EASE
from lossmith.lab.say.ranking import LossRanking

Trials = Sequence[dict[str, Any]]

_PALE = 0.45


def legend(names: Sequence[str], colour: Colours) -> dict[str, tuple[str, Dash]]:
    """Losses with their colours and dashes."""
    return {name: (colour[name], DASHES[n % len(DASHES)]) for n, name in enumerate(colour) if name in names}


def standings(ranking: LossRanking, trivial: Mapping[str, float], colour: Colours) -> Chart | None:
    """Where each loss may be beside the one to use, and what those score that know nothing."""
    decision, title = ranking.decision, ranking.metrics.title
    known = [(s, s.score) for s in decision.standings if s.score is not None]
    leader = decision.of(decision.use or "")
    if not known or leader is None or leader.score is None:
        return None
    series, ends = [], [score for s, score in known if s.verdict != "learnt nothing"]
    for row, (standing, score) in enumerate(known):
        low, high = [], []
        if standing.low is not None and standing.high is not None:
            low, high = [leader.score + standing.low], [leader.score + standing.high]
            ends += [*low, *high]
        symbol: Any = "ring" if standing.verdict == "learnt nothing" else "circle"
        note = f"{standing.loss}, {standing.verdict}"
        series.append(Series([score], [row], colour[standing.loss], note, symbol=symbol, low=low, high=high))
    room = max(0.02, 0.12 * (max(ends) - min(ends)))
    left, right = max(0.0, min(ends) - room), min(1.0, max(ends) + room)
    marks = [Mark("x", leader.score)]
    for name, score in trivial.items():
        if left <= score <= right:
            marks.append(Mark("x", score, f"finds {name}"))
    return Chart([Panel(series, x_title=title, x_range=(left, right), rows=[s.loss for s, _ in known], marks=marks)])


def seeds(ranking: LossRanking, trials: Trials, colour: Colours) -> Chart | None:
    """The score of every seed that raced, and the mean."""
    metrics, rows = ranking.metrics, [row for row in ranking.rows if row.seeds]
    series = []
    for n, row in enumerate(rows):
        mine = {t["seed"]: t["metrics"][metrics.ranked_by] for t in trials if t["loss"] == row.loss and t["metrics"]}
        for seed in row.seeds:
            if mine[seed] is not None:
                look = {"symbol": _symbol(seed), "size": 11, "opacity": 0.75}
                series.append(Series([mine[seed]], [n], colour[row.loss], f"seed {seed}", **look))
        mean = row.mean[metrics.ranked_by]
        if mean is not None:
            series.append(Series([mean], [n], colour[row.loss], "mean", symbol="bar", size=20))
    if not series:
        return None
    return Chart([Panel(series, x_title=f"{metrics.title}, each seed", rows=[row.loss for row in rows])])


def rates(tried: Mapping[str, dict[str, Any]], title: str, colour: Colours) -> Chart | None:
    """The score against the learning rate, where several were tried; the one that was chosen is marked."""
    series = []
    for n, loss in enumerate(colour):
        points = tried[loss]["tried"]
        x, y = [p["lr"] for p in points], [p["score"] for p in points]
        if len(set(x)) < 2:
            continue
        dash = DASHES[n % len(DASHES)]
        series.append(Series(x, y, colour[loss], loss, width=2.2, dash=dash, symbol="circle", size=6))
        chosen = [i for i, lr in enumerate(x) if lr == tried[loss]["used"]]
        note = f"{loss}, chosen"
        series.append(
            Series([x[i] for i in chosen], [y[i] for i in chosen], colour[loss], note, symbol="ring", size=15)
        )
    if not series:
        return None
    shown = [loss for loss in colour if len(tried[loss]["tried"]) > 1]
    return Chart([Panel(series, x_title="learning rate", y_title=title, x_log=True)], legend(shown, colour))


def validation(trials: Trials, title: str, colour: Colours) -> Chart | None:
    """The score on the watched images at the checkpoints: a thin line for a seed, a thick one for the mean."""
    series, shown = [], []
    for n, loss in enumerate(colour):
        mine = [t for t in trials if t["loss"] == loss and t["validation"]["step"]]
        for trial in mine:
            course, seed = trial["validation"], trial["seed"]
            look: dict[str, Any] = {"width": 1, "symbol": _symbol(seed), "size": 6, "opacity": _PALE}
            series.append(Series(course["step"], course["score"], colour[loss], f"{loss}, seed {seed}", **look))
        if mine:
            x, y = _mean_course([(t["validation"]["step"], t["validation"]["score"]) for t in mine])
            series.append(Series(x, y, colour[loss], f"{loss}, mean", width=3, dash=DASHES[n % len(DASHES)]))
            shown.append(loss)
    if not series:
        return None
    panel = Panel(series, x_title="step", y_title=f"{title}, held-back images", y_range=(-0.02, 1.02))
    return Chart([panel], legend(shown, colour))


def training(trials: Trials, colour: Colours) -> Chart | None:
    """The training loss, one panel each: their units are not comparable."""
    panels = []
    for loss in colour:
        mine = [t for t in trials if t["loss"] == loss and t["training"]["step"]]
        series = []
        for trial in mine:
            course, seed = trial["training"], trial["seed"]
            series.append(Series(course["step"], course["loss"], colour[loss], f"seed {seed}", width=1.2, opacity=0.7))
        if series:
            panels.append(Panel(series, title=loss, x_title="step"))
    return Chart(panels, narrow=True) if panels else None


def owners(trials: Trials, classes: Sequence[str], colour: Colours) -> Chart | None:
    """Whose the gradient is, a panel for each loss: the share of it that falls on each class, over training."""
    return _shares(trials, "class", classes, colour)


def ease(trials: Trials, colour: Colours) -> Chart | None:
    """The same by how probable a pixel's true class is already."""
    bounds = [0.0, *EASE, 1.0]
    names = [f"p {low:g} to {high:g}" for low, high in pairwise(bounds)]
    return _shares(trials, "ease", names, colour)


def _shares(trials: Trials, what: str, names: Sequence[str], colour: Colours) -> Chart | None:
    panels = []
    tint = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    for loss in colour:
        courses = [_points(t, what) for t in trials if t["loss"] == loss and _points(t, what)]
        series = []
        for i, name in enumerate(names):
            for key, look in (
                (what, {"width": 2.4, "symbol": "circle", "size": 5}),
                (f"{what}_pixels", {"width": 1.2}),
            ):
                x, y = _mean_course([([p["step"] for p in c], [p[key][i] for p in c]) for c in courses])
                dash: Dash = "solid" if key == what else "dot"
                note = name if key == what else f"{name}, share of the pixels"
                if x:
                    series.append(Series(x, y, tint[name], note, dash=dash, **look))
        if series:
            panels.append(Panel(series, title=loss, x_title="step", percent=True, y_range=(-0.02, 1.02)))
    keys: dict[str, tuple[str, Dash]] = {name: (tint[name], "solid") for name in names}
    return Chart(panels, keys, narrow=True) if panels else None


def parts(trials: Trials, colour: Colours) -> Chart | None:
    """Of each sum its weighted terms, over training."""
    panels, keys = [], dict[str, tuple[str, Dash]]()
    for loss in colour:
        courses = [
            p for t in trials if t["loss"] == loss and (p := [g for g in t.get("gradient", []) if g.get("parts")])
        ]
        series = []
        for name in courses[0][0]["parts"] if courses else ():
            keys.setdefault(name, (COLOURS[len(keys) % len(COLOURS)], "solid"))
            x, y = _mean_course([([p["step"] for p in c], [p["parts"][name] for p in c]) for c in courses])
            series.append(Series(x, y, keys[name][0], name, width=2.4, symbol="circle", size=5))
        if series:
            panels.append(Panel(series, title=loss, x_title="step", from_zero=True))
    return Chart(panels, keys, narrow=True) if panels else None


def cost(trials: Trials, colour: Colours) -> Chart | None:
    """Milliseconds a step: the loss (solid), and everything else (pale). Medians over the trials."""
    names: list[str] = []
    series = []
    for loss in colour:
        mine = [t for t in trials if t["loss"] == loss and t["ms_per_step"] is not None]
        if mine:
            inside, total = (_median([t[key] for t in mine]) for key in ("ms_in_loss", "ms_per_step"))
            row = len(names)
            names.append(f"{loss}: {total:.0f} ms, {inside / total:.1%} in the loss")
            series.append(Series([inside], [row], colour[loss], "ms in the loss", bars=0.3))
            series.append(Series([total], [row], INK, "ms in all", bars=0.3, low=[inside], opacity=0.3))
    if not names:
        return None
    widest = max(max(s.x) for s in series)
    return Chart([Panel(series, x_title="ms per step", x_range=(0, 1.03 * widest), rows=names)])


def _points(trial: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [point for point in trial.get("gradient", []) if key in point]


def _mean_course(courses: Sequence[tuple[Sequence[int], Sequence[float]]]) -> tuple[list[float], list[float]]:
    """The mean over seeds at each step that any of them has."""
    by_step: dict[int, list[float]] = {}
    for course in courses:
        for step, value in zip(*course, strict=True):
            by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    return [float(s) for s in steps], [sum(by_step[s]) / len(by_step[s]) for s in steps]


def _symbol(seed: int) -> Any:
    return SYMBOLS[seed % len(SYMBOLS)]


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
