"""Which trials come next: the learning rates, then a race over seeds; worked out from what is finished.

Rates are chosen on a seed of their own, at full length, the same number for every loss: these trials choose, and
support no claim. Then all losses train on fresh seeds until a look says that one of them is behind, or that nothing is
left to decide (say/decision.py). Trials are never stopped early: what starts fastest is not what ends best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lossmith.lab.say.decision import RACE, Decision, Look, best_rates, decide
from lossmith.lab.settings import RATES, Planned, RunSettings

RATES_SEED = 1_000_000
Trials = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Race:
    """Losses that race; `seeds` is how many each gets if that was asked for, else the looks of a race decide.

    `trivial` is the best score of a predictor that knows nothing, `ranked_by` the metric that is the score.
    """

    losses: list[str]
    settings: RunSettings
    ranked_by: str
    trivial: float
    seeds: int | None

    def next(self, trials: Trials, hurry: bool = False) -> tuple[list[Planned], str]:
        """The trials of the next round that are not finished, and what they are for; none when it is over.

        In a `hurry` no more rates are tried.
        """
        done = {planned(t) for t in trials}
        choosing = [x for x in self.choosing(trials) if x not in done]
        if choosing and not hurry:
            return choosing, "choosing learning rates"
        rates = self.rates(trials)
        for upto in [0, *range(len(self.looks))]:
            decision = decide(self.scores(trials), self.losses, self.looks[:upto], self.trivial)
            alive, seeds = decision.alive, self.looks[upto].seeds
            missing = [Planned(x, seed, rates[x]) for seed in range(seeds) for x in alive]
            missing = [x for x in missing if x not in done]
            if decision.settled or missing:
                break
        return ([], "") if decision.settled else (missing, f"{seeds} seeds of {len(alive)} losses")

    @property
    def looks(self) -> tuple[Look, ...]:
        """When to look, and what each look may spend."""
        return RACE if self.seeds is None else (Look(self.seeds, 1.0),)

    def choosing(self, trials: Trials) -> list[Planned]:
        """The trials that choose learning rates, the usual one first; of a race that has begun those it began with."""
        if len(self.settings.rates) < 2:
            return []
        begun = {t["loss"] for t in trials if t["seed"] != RATES_SEED} & set(self.losses)
        rates = sorted(self.settings.rates, key=lambda rate: abs(math.log(rate)))
        wanted = [self.settings.lr * rate for rate in rates]
        if begun:
            wanted = self._tried_by(begun, wanted, trials)
        return [Planned(loss, RATES_SEED, lr) for lr in wanted for loss in self.losses]

    def rates(self, trials: Trials) -> dict[str, float]:
        """The learning rate of each loss: its best among those that all losses have tried."""
        wanted = list(dict.fromkeys(x.lr for x in self.choosing(trials)))
        fair = self._tried_by(set(self.losses), wanted, trials)
        found: dict[str, dict[float, float]] = {loss: {} for loss in self.losses}
        for trial in trials:
            if trial["seed"] == RATES_SEED and trial["loss"] in found and trial["lr"] in fair:
                found[trial["loss"]][trial["lr"]] = score_of(trial, self.ranked_by)
        usual = self.settings.lr
        return dict.fromkeys(self.losses, usual) | best_rates({x: t for x, t in found.items() if t}, usual)

    def _tried_by(self, losses: set[str], rates: list[float], trials: Trials) -> list[float]:
        """Those of some rates that all of some losses have tried."""
        tried = {(t["loss"], t["lr"]) for t in trials if t["seed"] == RATES_SEED}
        return [lr for lr in rates if all((loss, lr) in tried for loss in losses)]

    def tried(self, trials: Trials, loss: str) -> list[dict[str, float]]:
        """The score of a loss at each learning rate that was tried to choose among them."""
        mine = [t for t in trials if t["seed"] == RATES_SEED and t["loss"] == loss]
        return [{"lr": t["lr"], "score": score_of(t, self.ranked_by)} for t in sorted(mine, key=lambda t: t["lr"])]

    def scores(self, trials: Trials) -> dict[str, dict[int, float]]:
        """The scores of the seeds that race, each loss at its own rate."""
        rates = self.rates(trials)
        found: dict[str, dict[int, float]] = {loss: {} for loss in self.losses}
        for trial in trials:
            loss, seed, lr = planned(trial)
            if seed != RATES_SEED and rates.get(loss) == lr:
                found[loss][seed] = score_of(trial, self.ranked_by)
        return found

    def decision(self, trials: Trials) -> Decision:
        """What can be said now."""
        scores = self.scores(trials)
        looks = self.looks
        if self.seeds is not None:  # stopped early, or one loss has more: the seeds that all have
            shared = min(_leading(scores[loss]) for loss in self.losses)
            looks = (Look(shared, 1.0),) if shared > 1 else ()
        return decide(scores, self.losses, looks, self.trivial)


def planned(trial: dict[str, Any]) -> Planned:
    """Which trial a record is of."""
    return Planned(trial["loss"], trial["seed"], trial["lr"])


def name_of(trial: Planned) -> str:
    """Which of its loss's trials it is, for people."""
    return f"rate {trial.lr:.2g}" if trial.seed == RATES_SEED else f"seed {trial.seed}"


def score_of(trial: dict[str, Any], ranked_by: str) -> float:
    """What a trial is ranked by; one that diverged, or that has no number, has learnt nothing."""
    value = trial["metrics"][ranked_by] if trial["metrics"] else None
    return 0.0 if value is None else float(value)


def in_words(minutes: float) -> str:
    """Minutes, or seconds where it is less than one."""
    if minutes >= 90:
        return f"{minutes / 60:.1f} hours"
    return f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"


def affordable_rates(budget: float, losses: int, seconds: float, at_once: int) -> tuple[float, ...]:
    """The learning rates that a budget of seconds can choose among and still train two seeds of each loss."""
    for rates in (RATES, RATES[1:]):
        if (len(rates) + 2) * losses * seconds / at_once <= budget:
            return rates
    return (1.0,)


def _leading(seeds: dict[int, float]) -> int:
    """How many seeds are there from 0 up without a gap."""
    return next(n for n in range(len(seeds) + 1) if n not in seeds)
