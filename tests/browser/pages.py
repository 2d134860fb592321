"""The pages that are looked at: those of every command, from small runs, and of the documentation what is built."""

from __future__ import annotations

from pathlib import Path

from lab.discs import make_folder
from lossmith.cli import main
from lossmith.lab.experiment import Work
from lossmith.lab.experiments import experiment, experiments
from lossmith.lab.page.experiment import Outcome, write_index

# Of the documentation a page of each kind.
SITE = (
    *("index.html", "choosing.html", "losses/dice.html"),
    *("experiments/index.html", "experiments/tiny-dice-gradient.html"),
)


def _made(page: Path, *words: object) -> Path:
    assert main([*map(str, words), "--out", str(page if page.suffix else page.parent)]) == 0
    return page


def report(folder: Path) -> Path:
    data, losses = make_folder(folder / "discs", images=4), ("--loss", "ce", "--loss", "dice + 0.5*focal")
    small = ("--steps", 2, "--crop", 32, "--batch", 2, "--seeds", 2, "--device", "cpu")
    assert main([*map(str, ("compare", data, *losses, *small, "--out", folder / "out"))]) == 0
    return folder / "out" / "report.html"


def audit(folder: Path) -> Path:
    assert main(["audit", str(make_folder(folder / "discs")), "--out", str(folder / "out")]) == 0
    return folder / "out" / "audit.html"


def plot(folder: Path) -> Path:
    return _made(folder / "plot.html", "plot", "ce", "dice", "focal")


def one_experiment(folder: Path) -> Path:
    return _made(folder / "one.html", "lab", "wce-equal-classes", "--fast")


def boxes(folder: Path) -> Path:
    return _made(folder / "boxes.html", "lab", "box-regression", "--points", 1)


def all_experiments(folder: Path) -> Path:
    """The table of all claims: one that is done, one that cannot be, and the others still waiting."""
    done, work = experiment("kl-is-no-distance"), Work(fast=True, folder=folder)
    others = [it for it in experiments() if it.name != done.name]
    outcomes = [Outcome.of(done, done.compute(work)), Outcome(others[0], None, None, "its data cannot be reached")]
    write_index(outcomes, others[1:], True, 1.0, folder)
    return folder / "index.html"


def wrong(folder: Path) -> Path:
    """A page with every fault that is looked for: each test has to fail on it."""
    page = folder / "wrong.html"
    page.write_text(
        """<!doctype html><html><title>wrong</title><body style="background: #fff; color: #bbb">
<div class="js-plotly-plot"><svg><text y="9" style="fill: #999">grey</text></svg></div>
<div style="width: 2000px">wide</div><div onclick="1" style="width: 9px; height: 9px">press</div>
<img src="https://example.invalid/x.png"><script>console.error("no")</script>"""
    )
    return page


MAKERS = {
    "report": report,
    "audit": audit,
    "plot": plot,
    "experiment": one_experiment,
    "boxes": boxes,
    "experiments": all_experiments,
    "wrong": wrong,
}
