"""Metrics of the user's own: what they are called with, and how a number becomes a score."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lossmith.lab import UserError
from lossmith.lab.say.metrics import MetricSet

SCORE = "own_score"  # the first metric, where its numbers are none from 0 to 1


@dataclass(frozen=True)
class Metric:
    """A metric of one's own, with what its numbers mean.

    Args:
        measure: a callable (prediction, label) → number, called for each held-back image, whose mean counts; or an
            object with `reset`, `update(prediction, label)` and `compute`, as torchmetrics' are. The prediction is what
            the network gives for one image, (1, C, *S) logits; the label (1, *S) or (1,) int64; both on the CPU.
        low, high: the range of the numbers.
        lower_is_better: whether small numbers are good.
    """

    measure: Any
    low: float = 0.0
    high: float = 1.0
    lower_is_better: bool = False

    def score(self, value: float | None) -> float | None:
        """The number brought to 0 (worst) … 1 (best)."""
        if value is None:
            return None
        share = (value - self.low) / (self.high - self.low)
        return 1 - share if self.lower_is_better else share

    @property
    def is_score(self) -> bool:
        """Whether its numbers are scores already."""
        return (self.low, self.high, self.lower_is_better) == (0, 1, False)


Metrics = Mapping[str, Any] | Sequence[Any] | Callable[..., Any] | Metric | None


def named(given: Metrics) -> dict[str, Metric]:
    """The metrics that were given, by name; the first ranks. Raises `UserError` for what is none."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        several = given if isinstance(given, Sequence) else [given]
        given = {_name_of(each): each for each in several}
    metrics = {str(name): each if isinstance(each, Metric) else Metric(each) for name, each in given.items()}
    for name, metric in metrics.items():
        if not (callable(metric.measure) or _has_state(metric.measure)):
            what = type(metric.measure).__name__
            raise UserError(f"metric {name!r}: a {what} cannot be called; give a function (prediction, label) → number")
        if not (math.isfinite(metric.low) and math.isfinite(metric.high) and metric.low < metric.high):
            raise UserError(
                f"metric {name!r}: its range is {metric.low:g} to {metric.high:g}; give two finite numbers, "
                "Metric(function, low=0, high=100)"
            )
    return metrics


def with_own(metrics: dict[str, Metric], usual: MetricSet) -> MetricSet:
    """What trials are judged by: the user's own metrics before those that are usual with the kind of data."""
    if not metrics:
        return usual
    first, metric = next(iter(metrics.items()))
    own = {name: name for name in metrics}
    if not metric.is_score:
        own = {
            SCORE: f"Score ({first} from {metric.high:g} to {metric.low:g})"
            if metric.lower_is_better
            else f"Score ({first} from {metric.low:g} to {metric.high:g})"
        } | own
    return MetricSet(
        {**own, **{name: title for name, title in usual.titles.items() if name not in own}},
        next(iter(own)),
        usual.without_classes | own.keys(),
        (usual.lower_is_better - own.keys()) | {name for name, metric in metrics.items() if metric.lower_is_better},
        usual.digits,
    )


def evaluate(metrics: dict[str, Metric], pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float | None]:
    """The metrics of predictions and labels, and the score if the first is none itself; None for no number."""
    measures = {name: copy.deepcopy(m.measure) if _has_state(m.measure) else m.measure for name, m in metrics.items()}
    numbers: dict[str, list[float | None]] = {name: [] for name in metrics}
    for measure in measures.values():
        if _has_state(measure):
            measure.reset()
    for prediction, label in pairs:
        for name, measure in measures.items():
            if _has_state(measure):
                _called(name, measure.update, prediction, label)
            else:
                numbers[name].append(_number(name, metrics[name], _called(name, measure, prediction, label)))
    for name, measure in measures.items():
        if _has_state(measure):
            numbers[name].append(_number(name, metrics[name], _called(name, measure.compute)))
    values = {name: _mean(found) for name, found in numbers.items()}
    first, metric = next(iter(metrics.items()))
    return values if metric.is_score else {SCORE: metric.score(values[first]), **values}


def _has_state(measure: Any) -> bool:
    return all(hasattr(measure, name) for name in ("reset", "update", "compute"))


def _called(name: str, measure: Callable[..., Any], *given: Tensor) -> Any:
    try:
        return measure(*given)
    except Exception as error:  # whatever the code of the metric raises
        shapes = " and ".join(str(tuple(each.shape)) for each in given)
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"metric {name!r}: fails on prediction and label {shapes} ({said})") from error


def _number(name: str, metric: Metric, value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
        raise UserError(
            f"metric {name!r}: gives a {type(value).__name__}{shape}, not a number; it must give one for each image"
        ) from error
    if math.isnan(number):
        return None
    if not metric.low - 1e-6 <= number <= metric.high + 1e-6:
        raise UserError(
            f"metric {name!r}: gives {number:g}, outside of {metric.low:g} to {metric.high:g}; give its range, "
            "Metric(function, low=0, high=100), and lower_is_better=True for an error"
        )
    return min(max(number, metric.low), metric.high)


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _name_of(measure: Any) -> str:
    inner = measure.measure if isinstance(measure, Metric) else measure
    return str(getattr(inner, "__name__", type(inner).__name__))
