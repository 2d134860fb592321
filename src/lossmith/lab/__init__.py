"""The lab: find out which loss your data wants, by training with each on the same footing.

    commands/     the command line, a file for each command
    kinds/        the kinds of data, one a file: pixels, images, boxes. kind.py says what the lab asks of a kind
    settings.py   what is asked of a comparison, and what all its trials share
    data/         a folder: its index and its faults, labelled images (labelled.py, samples.py), images with boxes
                  (scenes.py), single files (files.py), the built-in sets by name (builtin.py, sets.py); where pixels
                  are kept (stored.py); what belongs together (groups.py) and who is held back (tables.py, folds.py)
    audit/        what is in a folder, measured image by image, and what is wrong with it
    python.py     the same comparison from Python, `lab.compare`, with a network, data sets, an optimizer and metrics of
                  the user's own (own.py)
    run/          all trials, resumable, one JSON each (comparison.py, records.py); one trial: one loss, one seed
                  (trial.py); where trials run: threads, a Ray cluster, several devices each (engine.py, local.py,
                  on_ray.py, devices.py); its crops; who owns the gradient (owners.py); what a loss's text means
                  (losses.py, weights.py), and a model's (model.py); a small detector; data sets that are given
                  (given.py); random numbers (chance.py); weights that stay (kept.py); who is told of progress
                  (watch.py, trackers.py)
    say/          what a trial is judged by, never a loss (metrics.py, average_precision.py), and what can be said then:
                  paired differences with intervals (ranking.py), a bootstrap over images or patients (bootstrap.py),
                  which curves still rise (rising.py); the losses themselves, as curves of their value and gradient
                  (curves.py) against an axis (axes.py, points.py); what to try (advice.py, suggestions.py)
    plot.py       such curves from Python, `lossmith.plot`
    page/         one self-contained HTML file: its templates, pictures; its figures as plain data (panels.py,
                  charts.py), drawn for the page (figures.py), as PNG or SVG (stills.py); what more would cost (more.py)
    experiments/  what the documents claim about losses, a claim a file, found by being there; experiment.py says what
                  each has to say, page/experiment.py makes its page and the table of all

A new kind of data is one file: kinds/NAME.py with a class that extends `Kind` and an instance of it called KIND. It is
found by being there. Its methods, each with its reason, are in kind.py; those without a default are

    name, metrics    what results.json calls the kind; what its trials are judged by, and which of that ranks
    recognises       whether a folder holds such data (the kinds are asked in the order of their names)
    faults, read     everything that is wrong in a folder; the data, or an error for the first fault that is fatal
    sizes            crop, batch and features of minutes on a CPU
    network, crops   what trains, and what it is shown in each step of a seed
    judge            the metrics of the held-back images

`lossmith audit` lists the faults of any kind; what it measures of one is chosen in audit/survey.py.
The page of a comparison is page/compare.html, of which `template` may replace blocks. Beside a kind goes a test:
tests/lab/test_kinds.py has the shortest kind there is.

Everything here needs `pip install "lossmith[lab]"`; the losses themselves do not.
"""

from importlib import import_module as _import_module
from typing import Any as _Any


class UserError(Exception):
    """Something the user can put right. The message is one line that says what is wrong and how to fix it."""


__all__ = ["Metric", "UserError", "Watcher", "compare"]


def __getattr__(name: str) -> _Any:
    """`compare`, `Metric` and `Watcher` come with torch, MONAI and the rest, which nobody needs who wants an error."""
    if name in __all__:
        return getattr(_import_module("lossmith.lab.python"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
