"""What it would cost to know more: the command that goes on from here, and its minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lossmith.lab.run.race import Race
from lossmith.lab.say.decision import MARGIN, RACE, Decision

_LONGER = 3  # times the steps, where nothing was learnt or curves still rise

Command = Callable[..., str]  # of what differs from the run: seeds, budget, steps
Trials = Sequence[dict[str, Any]]


def to_know_more(race: Race, decision: Decision, trials: Trials, missing: int, command: Command) -> dict[str, Any]:
    """`text` says what is open, `minutes` what it costs to close it, `command` does; None where nothing would."""
    losses = len(race.losses)
    undecided = [s for s in decision.standings if s.verdict == "undecided"]
    reachable = [s.more for s in undecided if s.more]
    now = max((len(s.seeds) for s in decision.standings), default=0)
    if missing and (race.seeds is not None or not now):
        return _said("The run is not finished.", missing, trials, command())
    if decision.standings and decision.use is None:
        said = "Nothing was learnt in this many steps: train longer, or give other losses."
        return _said(said, _LONGER * len(trials), trials, command(steps=_LONGER))
    if decision.named("too few seeds") and losses > 1:
        return _said("One seed cannot tell a difference from chance.", 2 * losses, trials, command(seeds=3))
    if losses == 1:
        return {"text": "There is only one loss: give another to compare it with.", "minutes": None, "command": None}
    if reachable:
        seeds = now + min(reachable)
        names = _listed([s.loss for s in undecided if s.more == min(reachable)])
        few = f"{min(reachable)} more {'seed' if min(reachable) == 1 else 'seeds'}"
        said = f"{few} would tell for {names} if it stays as it looks."
        if race.seeds is not None:
            return _said(said, (seeds - now) * losses, trials, command(seeds=seeds))
        look = next((look.seeds for look in RACE if look.seeds >= seeds), seeds)
        count = (look - now) * len(decision.alive)
        return _said(said, count, trials, command(budget=f"{max(1, round(1.2 * minutes(count, trials) + 0.5))}m"))
    if undecided:
        said = (
            f"{_listed([s.loss for s in undecided])}: so alike, or so uneven over seeds, that 100 seeds might not tell."
        )
        return {"text": said, "minutes": None, "command": None}
    said = f"Nothing is left to decide: with 95 % confidence no loss here is better by more than {MARGIN}."
    if (decision.regret or 0) > MARGIN:
        said = "Nothing is left to decide between these losses."
    return {"text": said, "minutes": None, "command": None}


def longer(trials: Trials, command: Command) -> dict[str, Any]:
    """The same comparison with more steps, where curves still rise."""
    return _said("", _LONGER * len(trials), trials, command(steps=_LONGER))


def _said(text: str, count: int, trials: Trials, command: str) -> dict[str, Any]:
    return {"text": text, "minutes": minutes(count, trials) if trials else None, "command": command}


def minutes(count: int, trials: Trials) -> float:
    """How long so many trials take, by those that are done."""
    seconds = sorted(t["seconds"] for t in trials)[len(trials) // 2]
    return float(count * seconds / trials[-1]["machine"]["trials_at_once"] / 60)


def _listed(losses: list[str]) -> str:
    quoted = [f"“{loss}”" for loss in losses]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]
