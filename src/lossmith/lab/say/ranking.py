"""The losses of a comparison in order, with the metrics of each, and what can be said of them in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossmith.lab.say.decision import Decision, Standing
from lossmith.lab.say.metrics import SEGMENTATION, MetricSet

Trials = list[dict[str, Any]]


@dataclass(frozen=True)
class Difference:
    """A loss minus the one to use, in units of the score; `low` and `high` are None with fewer than two seeds."""

    mean: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class RankedLoss:
    """One loss in the ranking. `score` is that of a typical seed, the mean on the scale on which losses are compared.

    `diverged` is how many of its trainings did; `status` is "" or says why it is not ranked.
    """

    loss: str
    seeds: list[int]
    score: float | None
    mean: dict[str, float | None]
    deviation: dict[str, float | None]
    difference: Difference | None
    diverged: int
    status: str


@dataclass(frozen=True)
class LossRanking:
    """Best first, the unranked last. `seeds` are those that every ranked loss has finished.

    `sentences` say what can be said, the advice first.
    """

    rows: list[RankedLoss]
    seeds: list[int]
    sentences: list[str]
    metrics: MetricSet
    decision: Decision

    @property
    def headline(self) -> str:
        """All sentences in one."""
        return " ".join(self.sentences)

    @property
    def reference(self) -> RankedLoss | None:
        """The row that the others are compared with."""
        return self.rows[0] if self.rows and not self.rows[0].status else None


def rank(
    trials: Trials,
    losses: list[str],
    decision: Decision,
    metrics: MetricSet = SEGMENTATION,
    minutes: Callable[[int], str] = lambda seeds: "",
) -> LossRanking:
    """Put losses in the order of a decision.

    Args:
        trials: those of the seeds that race, one a loss and seed.
        losses: all that take part; they fix the order among those of which nothing is known.
        decision: what can be said of them.
        metrics: what the trials are judged by.
        minutes: how long so many more seeds of two losses take, in words.
    """
    ordered = [s.loss for s in decision.standings]
    rows = [_row(trials, x, decision, metrics) for x in ordered + [x for x in losses if x not in ordered]]
    rows.sort(key=lambda row: bool(row.status))
    ranked = [set(row.seeds) for row in rows if not row.status]
    seeds = sorted(set.intersection(*ranked)) if ranked else []
    return LossRanking(rows, seeds, _sentences(rows, decision, metrics, minutes), metrics, decision)


def _row(trials: Trials, loss: str, decision: Decision, metrics: MetricSet) -> RankedLoss:
    mine = sorted((t for t in trials if t["loss"] == loss), key=lambda t: t["seed"])
    usable = [t for t in mine if t["metrics"]]
    values = {m: np.array([t["metrics"][m] for t in usable], dtype=np.float64) for m in metrics.titles}
    standing, leader = decision.of(loss), decision.of(decision.use or "")
    difference = None
    if standing and leader and loss != leader.loss and standing.score is not None and leader.score is not None:
        difference = Difference(standing.score - leader.score, standing.low, standing.high, _verdict(standing))
    return RankedLoss(
        loss=loss,
        seeds=[t["seed"] for t in usable],
        score=standing.score if standing else None,
        mean={m: _number(v.mean()) if len(v) else None for m, v in values.items()},
        deviation={m: _number(v.std(ddof=1)) if len(v) > 1 else None for m, v in values.items()},
        difference=difference,
        diverged=sum(bool(t["diverged"]) for t in mine),
        status=_status(mine, standing),
    )


def _status(mine: Trials, standing: Standing | None) -> str:
    if not mine:
        return "not run yet"
    lost = [t["diverged"] for t in mine if t["diverged"]]
    if len(lost) == len(mine):
        return _diverged(lost)
    if standing is None:
        return "no seed in common with the others"
    return "has learnt nothing" if standing.verdict == "learnt nothing" else ""


def _diverged(lost: list[dict[str, Any]]) -> str:
    at = sorted({d["step"] for d in lost})
    return f"diverged at step{'s' if len(at) > 1 else ''} {', '.join(map(str, at))}"


def _verdict(standing: Standing) -> str:
    if standing.verdict != "undecided":
        return standing.verdict
    more = standing.more
    return f"undecided, {_seeds(more, 'more ')} would tell" if more else "undecided"


def _sentences(
    rows: list[RankedLoss], decision: Decision, metrics: MetricSet, minutes: Callable[[int], str]
) -> list[str]:
    """A few that claim no more than the decision does."""
    title = metrics.title
    diverged = [row.loss for row in rows if row.status.startswith("diverged")]
    idle = [loss for loss in decision.named("learnt nothing") if loss not in diverged]
    said = []
    leader = decision.of(decision.use or "")
    if leader is None:
        if not decision.standings:
            said.append("No seed is finished yet for all losses.")
        elif len(diverged) == len(decision.standings):
            return ["Every loss diverged."]
        else:
            said.append("Use none of these: nothing that was tried has learnt anything.")
    elif leader.verdict == "too few seeds":
        seeds = _seeds(len(leader.seeds))
        said.append(f"“{leader.loss}” scored highest ({title} {leader.score:.3f}, {seeds}).")
        if len(decision.standings) == 1:
            said.append("There was nothing to compare it with.")
        else:
            said.append(f"{seeds.capitalize()} cannot tell a difference from chance: give --seeds 3 or --budget 20m.")
    else:
        said.append(f"Use “{leader.loss}” ({title} {leader.score:.3f}).")
        if len(decision.standings) == 1:
            said.append("There was nothing to compare it with.")
        elif decision.regret:
            said.append(
                f"With 95 % confidence nothing you tried is better by more than {_up(decision.regret)} {title}."
            )
        else:
            said.append("With 95 % confidence nothing you tried is better.")
        said += [_sentence(s, minutes) for s in decision.standings if s.verdict in ("as good", "worse", "undecided")]
        if worst := _worst_by(rows, metrics):
            said.append(f"Mind that “{leader.loss}” is worst of all by {worst}.")
    if idle:
        said.append(f"{_listed(idle)} {'has' if len(idle) == 1 else 'have'} learnt nothing.")
    if diverged:
        said.append(f"{_listed(diverged)} diverged.")
    partly = [row for row in rows if row.diverged and row.loss not in diverged]
    said += [f"“{r.loss}” diverged in {r.diverged} of {r.diverged + len(r.seeds)} seeds." for r in partly]
    return said


def _sentence(standing: Standing, minutes: Callable[[int], str]) -> str:
    low, high, loss = standing.low or 0.0, standing.high or 0.0, f"“{standing.loss}”"
    if standing.verdict == "as good":
        return f"{loss} is as good (within ±{_up(max(-low, high))})."
    if standing.verdict == "worse":
        return f"{loss} is worse by {_down(-high)} to {_up(-low)}."
    if standing.more is None:
        return f"{loss}: undecided ({_signed(low)} to {_signed(high)})."
    return f"{loss}: undecided; {_seeds(standing.more, 'more ')}{minutes(standing.more)} would tell."


def _worst_by(rows: list[RankedLoss], metrics: MetricSet) -> str:
    """The metrics by which the first of the ranked losses is last, by more than it varies over seeds."""
    ranked = [row for row in rows if not row.status]
    names = []
    for metric, title in metrics.titles.items():
        means = [row.mean[metric] for row in ranked]
        known = [m for m in means if m is not None]
        if len(known) < 2 or means[0] is None:
            continue
        sign = -1 if metric in metrics.lower_is_better else 1
        others = [m for row, m in zip(ranked[1:], means[1:], strict=True) if m is not None]
        next_worst = min(sign * m for m in others)
        spread = max((row.deviation[metric] or 0.0) for row in ranked)
        if sign * means[0] < next_worst - spread:
            names.append(f"{title} ({means[0]:.{metrics.digits.get(metric, 3)}f})")
    return " and ".join(names)


def _up(value: float) -> str:
    """Rounded up, so that what is claimed holds."""
    return (
        f"{math.ceil(value * 1000 - 1e-9) / 1000:.3f}" if value < 0.01 else f"{math.ceil(value * 100 - 1e-9) / 100:.2f}"
    )


def _down(value: float) -> str:
    return (
        f"{math.floor(value * 1000 + 1e-9) / 1000:.3f}"
        if value < 0.01
        else f"{math.floor(value * 100 + 1e-9) / 100:.2f}"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _listed(losses: list[str]) -> str:
    quoted = [f"“{loss}”" for loss in losses]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def _seeds(count: int | None, more: str = "") -> str:
    return f"{count} {more}seed{'' if count == 1 else 's'}"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
