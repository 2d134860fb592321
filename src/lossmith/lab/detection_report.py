"""What a comparison on drawn boxes leaves: results.json, and report.html, one file that needs nothing else."""

from __future__ import annotations

from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from lossmith.lab import figures, pictures
from lossmith.lab.average_precision import resampled_ap50
from lossmith.lab.compare import as_json, read_predictions, write
from lossmith.lab.detection import SCORES
from lossmith.lab.plan import Settings
from lossmith.lab.ranking import NO_DIFFERENCE, Ranking, rank
from lossmith.lab.report import command, machines, scope
from lossmith.lab.scenes import Scene, Scenes

Array = np.ndarray[Any, Any]
Predictions = dict[str, dict[str, Array]]  # by trial hash, then by tile

RESAMPLES = 1000
BOOTSTRAP = "95 % bootstrap interval over the held-back tiles, not over training seeds"
_OPTIONS = ("steps", "crop", "batch", "lr", "device", "quality")
_MOST_TILES = 3
_ENLARGED = 2
_LINE = 2


def write_report(
    trials: list[dict[str, Any]], asked: list[tuple[str, int]], data: Scenes, settings: Settings, out: Path
) -> dict[str, Any]:
    """Write `out`/results.json and `out`/report.html from all trials of that folder; returns what is in the former.

    `asked` are the (loss, seed) of this run: those without a trial are reported as missing.
    """
    losses, seeds, counts = scope(trials, asked)
    ranking = rank(trials, losses, SCORES)
    predictions = {t["hash"]: stored for t in trials if (stored := read_predictions(out, t))}
    over_tiles = bootstrap(ranking, trials, predictions, data)
    results = {
        "headline": headline(ranking, over_tiles),
        **counts,
        "command": command(losses, seeds, settings.as_json(), out, _OPTIONS),
        "settings": settings.as_json(),
        "classes": data.classes,
        "images": {"train": len(data.train), "validation": len(data.validation)},
        "boxes": {"train": _count(data.train), "validation": _count(data.validation)},
        "kind": data.kind,
        "source": data.source,
        "ranked_by": SCORES.ranked_by,
        "score": SCORES.title,
        "seeds": ranking.seeds,
        "ranking": [asdict(row) for row in ranking.rows],
        "tiles": over_tiles,
        "trials": trials,
    }
    write(out / "results.json", as_json(results))
    write(out / "report.html", _render(ranking, results, data, predictions))
    return results


def bootstrap(
    ranking: Ranking, trials: list[dict[str, Any]], predictions: Predictions, data: Scenes
) -> dict[str, dict[str, Any]]:
    """For each ranked loss but the best: its AP50 minus that of the best, over resamples of the held-back tiles.

    Every resample is the same for all losses, and AP50 is the mean over seeds. The weights stay as trained: the
    interval is about which tiles were held back, and not about other seeds or other photographs.
    """
    ranked = [row for row in ranking.rows if not row.status]
    if len(ranked) < 2:
        return {}
    count = len(data.validation)
    draws = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    values: dict[str, Array] = {}
    for row in ranked:
        mine = [t for t in trials if t["loss"] == row.loss and t["seed"] in ranking.seeds]
        if not all(t["hash"] in predictions for t in mine):  # somebody deleted a file
            continue
        found = [[predictions[t["hash"]][scene.stem] for scene in data.validation] for t in mine]
        values[row.loss] = np.mean([resampled_ap50(data.validation, boxes, draws) for boxes in found], axis=0)
    best, results = ranked[0], {}
    for row in ranked[1:]:
        if row.loss not in values or best.loss not in values:
            continue
        low, high = np.nanpercentile(values[row.loss] - values[best.loss], [2.5, 97.5]).tolist()
        difference = (row.mean["ap50"] or 0.0) - (best.mean["ap50"] or 0.0)
        verdict = NO_DIFFERENCE if low <= 0 <= high else "lower" if high < 0 else "higher"
        results[row.loss] = {"mean": difference, "low": low, "high": high, "verdict": verdict, "interval": BOOTSTRAP}
    return results


def headline(ranking: Ranking, over_tiles: dict[str, dict[str, Any]]) -> str:
    """With three seeds what the seeds say, with fewer what the tiles say; never more."""
    if len(ranking.seeds) >= 3 or not over_tiles:
        return ranking.headline
    best = ranking.rows[0]
    parts = [
        f"“{loss}” {d['mean']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}): {d['verdict']}"
        for loss, d in over_tiles.items()
    ]
    seeds = "1 seed" if len(ranking.seeds) == 1 else f"{len(ranking.seeds)} seeds"
    lost = [f" “{row.loss}” diverged." for row in ranking.rows if row.status.startswith("diverged")]
    return (
        f"“{best.loss}” scored highest (AP50 {best.mean['ap50']:.3f}, {seeds}); {'; '.join(parts)} – {BOOTSTRAP}: "
        f"another seed may turn this round.{''.join(lost)}"
    ).replace("-0.", "−0.")


def _render(ranking: Ranking, results: dict[str, Any], data: Scenes, predictions: Predictions) -> str:
    trials = results["trials"]
    losses = [row.loss for row in ranking.rows]
    colour = figures.colours(losses)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("lossmith.lab").joinpath("detection.html").read_text(encoding="utf-8"))
    return template.render(
        plotly_js=get_plotlyjs(),
        results=results,
        settings=results["settings"],
        ranking=ranking,
        metrics=SCORES.titles,
        bootstrap=BOOTSTRAP,
        resamples=RESAMPLES,
        no_difference=NO_DIFFERENCE,
        colour=colour,
        meanings={loss: t["meaning"] for loss in losses for t in trials if t["loss"] == loss},
        trials=sorted(trials, key=lambda t: (losses.index(t["loss"]), t["seed"])),
        machines=machines(trials),
        examples=_examples(ranking, trials, data, predictions),
        truth=f"rgb{pictures.TRUTH}",
        prediction=f"rgb{pictures.PREDICTION}",
        figures={
            "ranking": figures.ranking(ranking, trials, colour),
            "validation": figures.validation(trials, SCORES.title, colour),
            "training": figures.training(trials, colour),
            "cost": figures.cost(trials, colour),
        },
    )


def _examples(
    ranking: Ranking, trials: list[dict[str, Any]], data: Scenes, predictions: Predictions
) -> list[dict[str, Any]]:
    """The tiles at the quarters of the number of boxes, so that none is picked for its result; first common seed."""
    shown = {t["loss"]: t for t in trials if t["hash"] in predictions and t["seed"] in ranking.seeds[:1]}
    full = sorted((s for s in data.validation if not s.ignore.all()), key=lambda s: int((~s.ignore).sum()))
    places = sorted({round(share * (len(full) - 1)) for share in np.linspace(0.25, 1, _MOST_TILES)})
    return [
        {
            "stem": full[i].stem,
            "boxes": int((~full[i].ignore).sum()),
            "panels": [
                {
                    "loss": row.loss,
                    "uri": drawn(full[i], predictions[shown[row.loss]["hash"]][full[i].stem]),
                }
                for row in ranking.rows
                if row.loss in shown
            ],
        }
        for i in places
        if shown
    ]


def drawn(scene: Scene, found: Array) -> str:
    """A tile with the frames of the truth and of as many of the best-scored boxes found, as a PNG data URI."""
    picture = pictures.grey(scene.image).repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)
    for box, ignore in zip(scene.boxes, scene.ignore, strict=True):
        _frame(picture, box, tuple(v // 2 for v in pictures.TRUTH) if ignore else pictures.TRUTH)
    for row in found[: int((~scene.ignore).sum())]:
        _frame(picture, row[:4], pictures.PREDICTION)
    return pictures.data_uri(picture)


def _frame(picture: Array, box: Array, colour: tuple[int, ...]) -> None:
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in np.round(np.asarray(box) * _ENLARGED))
    x1, x2 = (min(max(x, 0), width - 1) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), height - 1) for y in (y1, y2))
    for inset in range(_LINE):
        left, right, top, bottom = x1 + inset, x2 - inset, y1 + inset, y2 - inset
        if left <= right and top <= bottom:
            picture[[top, bottom], left : right + 1] = colour
            picture[top : bottom + 1, [left, right]] = colour


def _count(scenes: list[Scene]) -> int:
    """Boxes that are not ignored."""
    return sum(int((~scene.ignore).sum()) for scene in scenes)
