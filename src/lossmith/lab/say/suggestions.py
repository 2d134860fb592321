"""The advice for one data set: which rules speak, and the commands that test what they name."""

from __future__ import annotations

import math
import shlex
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lossmith.lab.say.advice import ALWAYS, RULES, Facts, Reading, Rule, rarest

MOST_SUGGESTIONS = 5
MOST_LOSSES, FEWEST_LOSSES = 6, 4
BUDGET_MINUTES = 12
_TRIALS = 5  # of a loss, before anything can be said: three rates, two seeds


def suggest(facts: Facts, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """At most five suggestions, the most telling first. The first command tests what all of them name, as far as the
    budget reaches; trials in its folder are not repeated by the others.

    `options` are repeated in every command, as `--task binary`.
    """
    found: list[tuple[Rule, Reading]] = []
    for rule in (rule for rule in RULES if rule.kind == facts["kind"]):
        reading = rule.read(facts) if _measured(facts) and not (rule.alone and found) else None
        if reading is not None and rule.fires(reading[0]):
            found.append((rule, reading))
    found = found[:MOST_SUGGESTIONS]
    if not found:
        return []
    in_turn = zip_longest(*(rule.losses for rule, _ in found))  # what each rule names first comes before its seconds
    every = _candidates(facts, [loss for losses in in_turn for loss in losses if loss])[: _affordable(facts)]
    suggestions: list[dict[str, Any]] = []
    for rule, (value, sentence) in found:
        losses = every if not suggestions else _candidates(facts, list(rule.losses))
        more = [loss for loss in losses if loss not in every]
        suggestions.append(
            {
                "rule": rule.name,
                "measured": sentence,
                "value": value,
                "threshold": rule.limit(),
                "limit": rule.threshold,
                "reason": rule.reason,
                "source": rule.source,
                "losses": losses,
                "command": command(facts, losses, options),
                "cost": _cost(facts, len(every)) if not suggestions else _added(facts, more),
            }
        )
    return suggestions


def _measured(facts: Facts) -> bool:
    """Whether there is anything to train on."""
    return bool(facts["boxes"]["side"] if facts["kind"] == "detection" else rarest(facts))


def _candidates(facts: Facts, losses: list[str]) -> list[str]:
    """What is always tried, then losses in order, each once; without those that say nothing on one channel."""
    if facts["task"] == "binary":
        losses = [loss for loss in losses if "class_weight" not in loss]
    return list(dict.fromkeys([*ALWAYS[facts["kind"]], *losses]))


def command(facts: Facts, losses: list[str], options: tuple[str, ...] = ()) -> str:
    """The `compare` that tests some losses."""
    words = ["lossmith", "compare", facts["data"]]
    for loss in losses:
        words += ["--loss", loss]
    words += ["--lr", "auto", "--budget", f"{_budget(facts, len(losses))}m", *options]
    return shlex.join([*words, "--out", f"{Path(facts['data']).name or 'data'}-compare"])


def _budget(facts: Facts, losses: int) -> int:
    """Minutes: as many as three rates and two seeds of each take, where that is more than usual."""
    return max(BUDGET_MINUTES, math.ceil(_minutes(facts, _TRIALS * losses) or 0))


def _minutes(facts: Facts, trials: int) -> float | None:
    cost = facts.get("cost")
    return cost and trials * cost["seconds_per_trial"] / cost["at_once"] / 60


def _affordable(facts: Facts) -> int:
    """How many losses the budget can try."""
    one = _minutes(facts, _TRIALS)
    return min(MOST_LOSSES, max(FEWEST_LOSSES, int(BUDGET_MINUTES / one))) if one else MOST_LOSSES


def _round(minutes: float) -> str:
    return f"{minutes:.0f}" if minutes >= 2 else f"{minutes:.1f}"


def _cost(facts: Facts, losses: int) -> str:
    trials = _TRIALS * losses
    minutes = _minutes(facts, trials)
    said = f"{losses} losses: {trials} trials for three rates and two seeds of each"
    return said + (f", about {_round(minutes)} minutes on this machine" if minutes else "")


def _added(facts: Facts, more: list[str]) -> str:
    if not more:
        return "nothing beside the first command, which tries these too"
    minutes = _minutes(facts, _TRIALS * len(more))
    named = "one more loss" if len(more) == 1 else f"{len(more)} more losses"
    return f"{named}: +{_TRIALS * len(more)} trials" + (f", about {_round(minutes)} minutes" if minutes else "")
