"""Inputs for the catalogue tests: small problems of every task, and settings generated from the fields of a loss.

Nothing here names a loss: a loss that is added to the catalogue is tried on all of it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor

import lossmith as ls
from lossmith.bounds import Bounds, Classes, ClassPairs, Interval, Levels, OddSize, PositiveWeight, Spacing
from lossmith.engine import choice
from lossmith.engine.triton import available
from lossmith.losses.dense import ClassLoss, Dense
from lossmith.names import SHARED

REAL = {
    "plain": torch.float64,
    "fused": torch.float32,
    "triton": torch.float32,
}  # what an engine is tried on: the widest that it takes
ROWS = [row for row in ls.catalogue() if issubclass(row.cls, Dense)]
IGNORED = 255


@dataclass(frozen=True)
class Problem:
    """One call: what the loss is built with besides its own knobs, and what it is called with."""

    name: str
    task: str
    logits: Tensor  # float64
    target: Tensor
    settings: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> int:
        """How many of them run over pixels."""
        return self.logits.ndim - 2


def logits_of(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(n_labels: int, *shape: int, seed: int = 0, ignore: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    labels = torch.randint(0, n_labels, shape, generator=generator)
    hidden = torch.rand(shape, generator=generator) < 0.2
    hidden.view(-1)[2:3] = True  # at least one
    return labels.masked_fill(hidden, IGNORED) if ignore else labels


def shares_of(*shape: int, seed: int = 0) -> Tensor:
    """Soft labels that sum to 1 over axis 1."""
    return logits_of(*shape, seed=seed + 2).softmax(1)


def chances_of(*shape: int, seed: int = 0) -> Tensor:
    return logits_of(*shape, seed=seed + 3).sigmoid()


IGNORE = {"ignore_index": IGNORED}
SOFT = {"task": "multiclass"}
MANY = {"task": "multilabel"}

PROBLEMS = [
    Problem("binary", "binary", logits_of(3, 1, 4, 5), labels_of(2, 3, 4, 5), IGNORE),
    Problem("binary map", "binary", logits_of(2, 1, 3, 4), labels_of(2, 2, 1, 3, 4), IGNORE),
    Problem("binary soft", "binary", logits_of(2, 1, 3, 4), chances_of(2, 1, 3, 4)),
    Problem("two classes, 1-D", "multiclass", logits_of(2, 2, 9), labels_of(2, 2, 9), IGNORE),
    Problem("five classes, 2-D", "multiclass", logits_of(3, 5, 4, 5), labels_of(5, 3, 4, 5), IGNORE),
    Problem("three classes, 3-D", "multiclass", logits_of(2, 3, 2, 3, 4), labels_of(3, 2, 1, 2, 3, 4), IGNORE),
    Problem("classification", "multiclass", logits_of(7, 4), labels_of(4, 7), IGNORE),
    Problem("soft labels", "multiclass", logits_of(2, 4, 3, 4), shares_of(2, 4, 3, 4), SOFT),
    Problem("multilabel", "multilabel", logits_of(2, 3, 3, 4), labels_of(2, 2, 3, 3, 4), IGNORE | MANY),
    Problem("multilabel soft", "multilabel", logits_of(2, 3, 3, 4), chances_of(2, 3, 3, 4), MANY),
    Problem("one against the rest", "multilabel", logits_of(2, 3, 3, 4), labels_of(4, 2, 3, 4), IGNORE | MANY),
]


def calls(problem: Problem, cls: type[Dense]) -> list[dict[str, Any]]:
    """Keywords of the call that the loss takes: weights per sample and per pixel, a denominator."""
    n, _, *space = problem.logits.shape
    sample = torch.linspace(0.5, 2.0, n, dtype=torch.float64)
    sample[0] = 0.0
    pixel = chances_of(n, *space, seed=5)
    pixel = pixel.masked_fill(pixel < 0.2, 0.0)
    some: list[dict[str, Any]] = [{}, {"weight": sample}]
    some += [{"weight": pixel}] if space else []
    some += [{"denominator": 7.0}] if "denominator" in cls.takes else []
    return some


def fits(settings: dict[str, Any], call: dict[str, Any]) -> bool:
    """A denominator belongs to the mean."""
    return "denominator" not in call or settings.get("reduction", "mean") == "mean"


def shared_settings(problem: Problem, cls: type[Dense]) -> list[dict[str, Any]]:
    """The shared settings that the loss has, one at a time."""
    n_classes = 2 if problem.task == "binary" else problem.logits.shape[1]
    weights = (torch.arange(n_classes, dtype=torch.float64) * 0.75 + 0.5).tolist()
    some: list[dict[str, Any]] = [
        {},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"class_weight": weights},
        {"class_weight": weights, "reduction": "none"},
        {"per_image": False},
        {"per_image": False, "class_weight": weights},
        {"per_image": False, "reduction": "sum"},
        {"include_background": False},
        {"classes": (1, 0)},
    ]
    if problem.task == "binary":  # there is one class: what chooses among classes, or weighs them, is refused
        choices = {"classes", "include_background"}
        of_classes = issubclass(cls, ClassLoss) and cls.family != "sum"
        some = [s for s in some if not s.keys() & (choices | {"class_weight"} if of_classes else choices)]
    return allowed(some, cls)


def nudges(cls: type[Dense], task: str, n_classes: int, axes: int = 2) -> list[dict[str, Any]]:
    """Each of the loss's own knobs away from its default, made from the knob's type."""
    some = []
    for name in cls.fields:
        if name in SHARED - {"absent"}:
            continue
        some += [{name: value} for value in _others(cls.hints[name], cls.fields[name], task, n_classes, axes)]
    return some


def _others(hint: Any, default: Any, task: str, n_classes: int, axes: int) -> list[Any]:
    options = get_args(hint)
    if hint == PositiveWeight:
        return [] if task == "multiclass" else [2.5]
    if hint == Levels:
        return [64]
    if hint == Spacing:
        return [tuple(0.75 + 0.5 * axis for axis in range(axes))] if axes else []
    if hint == ClassPairs:
        return [pairs_of(max(n_classes, 2)).square().tolist()]
    if hint == Bounds:
        return [(0.5, 0.9)]
    if hint == Classes:
        return [(0,)]
    if get_origin(hint) is Annotated and isinstance(options[1], OddSize):
        return [v for v in (1, 3, 5) if v != default]
    if get_origin(hint) is Annotated:
        assert isinstance(options[1], Interval)
        low, high = options[1].low, min(options[1].high, max(4.0, 2.0 * (default or 0.0)))
        guesses = [low, low + (high - low) * 0.1, low + (high - low) * 0.25, low + (high - low) * 0.375]
        guesses = [1, 2, 3, 5, 7] if options[0] is int else guesses
        return [v for v in guesses if v != default and v in options[1]]
    if get_origin(hint) is Literal:
        return [v for v in options if v != default]
    if hint is bool:
        return [not default]
    if hint is Tensor:
        return [[0.25 + 0.5 * k for k in range(n_classes)]] if task == "multiclass" else []
    if type(None) in options:  # optional: what one task takes another may not
        scalar = task != "multiclass" or Tensor not in options
        return [
            v
            for o in options
            if o is not type(None)
            for v in _others(o, default, task, n_classes, axes)
            if scalar or o is Tensor
        ]
    raise NotImplementedError(f"no values are known for settings of type {hint}: teach this function")


def pairs_of(n_classes: int) -> Tensor:
    """A price for every two classes, each another."""
    return torch.arange(n_classes**2, dtype=torch.float64).reshape(n_classes, n_classes) / n_classes**2 + 0.25


def needed(cls: type[Dense], logits: Tensor) -> dict[str, Any]:
    """Settings without which the loss can be built but not called with these logits: no default fits everything."""
    matrices = [k for k, hint in cls.hints.items() if ClassPairs in (hint, *get_args(hint)) and cls.fields[k] is None]
    apart = {"task": "multilabel"} if logits.shape[1] > 1 and "multiclass" not in cls.tasks else {}
    return apart | {name: pairs_of(max(logits.shape[1], 2)).tolist() for name in matrices}


def allowed(settings: list[dict[str, Any]], cls: type[Dense]) -> list[dict[str, Any]]:
    """Those that the loss has, with values that it takes."""
    reductions = get_args(cls.hints["reduction"])
    return [s for s in settings if s.keys() <= cls.fields.keys() and s.get("reduction", "mean") in reductions]


def make(row: Any, logits: Tensor, **settings: Any) -> Dense:
    """The loss, such that it can be called with these logits."""
    return row.cls(**{**needed(row.cls, logits), **settings})


def build(row: Any, problem: Problem, **more: Any) -> Dense:
    settings = {k: v for k, v in problem.settings.items() if k in row.cls.fields}
    return make(row, problem.logits, **{**settings, **more})


def with_rows(argument: str = "row") -> Any:
    return pytest.mark.parametrize(argument, ROWS, ids=lambda row: row.name)


def pairs(options: list[Any]) -> list[tuple[Any, Any]]:
    return list(itertools.combinations(options, 2))


# ---- one call of every loss, boxes and distributions included --------------------------------------------------------

CHANNELS = {"binary": 1, "multiclass": 4, "soft labels": 4, "multilabel": 3}


def arguments(row: Any, task: str) -> tuple[Callable[[], ls.Loss], tuple[Any, ...], dict[str, Any]]:
    """How to build a loss, with numbers among its settings; float32 inputs; keywords of the call."""
    if issubclass(row.cls, Dense):
        channels = CHANNELS[task]
        logits, labels = logits_of(2, channels, 9, 31).float(), labels_of(max(channels, 2), 2, 9, 31)
        given: dict[str, Any] = {"weight": chances_of(2, 9, 31).float()}
        if task == "multilabel":
            labels = labels_of(2, 2, channels, 9, 31)
            given = {"label_mask": torch.tensor([[True, False, True], [True, True, False]])}
        if task == "binary":
            given = {"weight": torch.tensor([0.5, 2.0])}
        if task == "soft labels":
            labels = shares_of(2, channels, 9, 31).float()
        settings = needed(row.cls, logits) | {"task": "multiclass" if task == "soft labels" else task}
        settings["ignore_index"] = IGNORED
        if "class_weight" in row.cls.fields and task != "binary":
            settings["class_weight"] = [0.5 + 0.25 * k for k in range(channels)]
        return (lambda: row.cls(**settings)), (logits, labels), given
    given = {"weight": torch.tensor([0.5, 1.0, 0.0, 2.0, 1.0, 1.0])}
    z = logits_of(6, 4).float()
    if row.name == "gfl":
        points, strides = z[:, :2].exp() * 20, torch.full((6,), 8.0)
        boxes = torch.cat([points - 20 * z[:, 2:].sigmoid(), points + 20], 1)
        labels = torch.tensor([0, 1, 2, 3, 1, 0])
        return row.cls, (z[:, :3].clone(), logits_of(6, 4, 9).float(), points, strides, labels, boxes), given
    if row.family in ("box", "regression"):
        at = logits_of(6, 2, seed=1).float()
        return row.cls, (torch.cat([at, at + z[:, :2].exp()], 1), torch.cat([at - 0.1, at + z[:, 2:].exp()], 1)), given
    if row.name == "dfl":
        return row.cls, (logits_of(6, 9).float(), 8 * z[:, 0].sigmoid()), given
    return row.cls, (z, logits_of(6, 4, seed=2).float().sigmoid()), given


PAIRS = [
    (row, task)
    for row in ls.catalogue()
    for task in (CHANNELS if issubclass(row.cls, Dense) else [row.family])
    if not issubclass(row.cls, Dense) or task.replace("soft labels", "multiclass") in row.cls.tasks
]
by_pair = pytest.mark.parametrize(("row", "task"), PAIRS, ids=[f"{row.name}-{task}" for row, task in PAIRS])


@functools.cache
def kernels_serve(name: str, task: str) -> bool:
    """Whether there are kernels for this call; where there are, tests insist on them."""
    row = next(row for row in ls.catalogue() if row.name == name)
    build, inputs, given = arguments(row, task)
    try:
        with ls.use_engine("fused"):
            build()(*inputs, **given)
    except RuntimeError as error:
        if "cannot serve this call" not in str(error):
            raise
        return False
    return True


@functools.cache
def kernels_take(name: str, problem: str, engine: str) -> bool:
    """Whether the kernels of an engine take this loss on this problem. Where they do, tests insist on them."""
    row, given = (
        next(one for one in some if one.name == wanted) for some, wanted in ((ROWS, name), (PROBLEMS, problem))
    )
    try:
        with ls.use_engine("fused"):
            build(row, given)(given.logits.float(), given.target)
    except RuntimeError as error:
        if "cannot serve this call" not in str(error):
            raise
        return False
    return True


def instead_of_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """The triton engine is what "auto" and "fused" mean, on a CPU too."""
    monkeypatch.setattr(choice, "KERNELS", ("triton",))
    monkeypatch.setattr(available, "chosen", lambda: "triton")
