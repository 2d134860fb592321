"""Which loss to use, and how sure that is: what paired scores allow one to say, with the chance of an error bounded.

Scores are compared on the logit scale, where .88 to .90 is more than .50 to .52, and seed by seed, since all losses of
a seed start from the same weights and see the same crops. A difference d of n seeds has the variance

    (d0 · s0² + Σ(d − mean)²) / (d0 + n − 1),   d0 = 4,   s0 = max(0.3, √2 · the standard deviation of all residuals)

and Student's t with d0 + n − 1 degrees of freedom: two seeds cannot pretend to know it, and noise that is larger than
what was usual when this was made is taken from the run itself. Each look spends its share of the 5 %, and a statement
gets the look's share over 2 · (losses − 1): each loss against one other, both ways. That the other one is the leader,
picked by the same scores, is not in this arithmetic; that no more than 5 % of runs say anything wrong all the same is
simulated, not proven (`tests/lab/test_decision.py`). A race looks after 2, 3, 4, 6, … seeds and drops who is behind; a
comparison of a fixed number of seeds looks once, and to ask for more seeds after it is a look that nothing pays for.
Losses that have learnt nothing are out by a rule of thumb, which no percentage belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import special  # type: ignore[import-untyped]

Array = np.ndarray[Any, Any]
Scores = Mapping[str, Mapping[int, float]]  # by loss, then by seed; from 0 to 1
Verdict = Literal["use", "as good", "worse", "undecided", "learnt nothing", "too few seeds"]


class Look(NamedTuple):
    """The number of seeds after which the race is looked at, and the share of the error that this look may spend."""

    seeds: int
    share: float


RACE = tuple(
    Look(*look) for look in ((2, 0.3), (3, 0.2), (4, 0.15), (6, 0.12), (9, 0.09), (13, 0.06), (19, 0.05), (28, 0.03))
)
CONFIDENCE = 0.95
MARGIN = 0.02  # scores that differ by less are as good as each other
LEARNT = 0.01  # a loss that is not better than a trivial predictor by this has learnt nothing
_CLIP = 4.0  # on the logit scale: a score of 0.018 or 0.982
_PRIOR_DEVIATION = 0.3
_PRIOR_SEEDS = 4
_UPPER_LIMIT = 0.7  # of the run's own deviation: with few trials it is too small as often as not
_MOST_SEEDS = 100


@dataclass(frozen=True)
class Standing:
    """What can be said of one loss: how much better than the leader it may be, `low` to `high`, in units of the score.

    `seeds` are those that the statement rests on. `more` is how many further seeds would be needed for one if it stays
    as it looks; None if there is nothing to decide or if that is out of reach.
    """

    loss: str
    verdict: Verdict
    seeds: list[int]
    score: float | None
    low: float | None = None
    high: float | None = None
    more: int | None = None


@dataclass(frozen=True)
class Decision:
    """`use` is None if nothing was learnt or nothing is finished; `regret` is None with fewer than two seeds.

    With 95 % confidence no other loss that was tried is better than `use` by more than `regret`. `alive` are the losses
    that the next seed would be for; `settled` says that it would not be worth it.
    """

    use: str | None
    regret: float | None
    standings: list[Standing]
    alive: list[str]
    settled: bool

    def named(self, verdict: Verdict) -> list[str]:
        """The losses with a verdict."""
        return [s.loss for s in self.standings if s.verdict == verdict]

    def of(self, loss: str) -> Standing | None:
        """What can be said of one loss; None if it has no trial."""
        return next((s for s in self.standings if s.loss == loss), None)

    def as_json(self) -> dict[str, Any]:
        """For machines: the losses by verdict, and each with its bounds."""
        return {
            "use": self.use,
            "regret": self.regret,
            "as_good": self.named("as good"),
            "worse": self.named("worse"),
            "undecided": [*self.named("undecided"), *self.named("too few seeds")],
            "learnt_nothing": self.named("learnt nothing"),
            "settled": self.settled,
            "confidence": CONFIDENCE,
            "standings": [asdict(s) for s in self.standings],
        }


def decide(scores: Scores, losses: Sequence[str], looks: Sequence[Look] = RACE, trivial: float = 0.0) -> Decision:
    """Replay the looks on the scores that are there.

    Args:
        scores: of every finished trial; one that diverged scores 0.
        losses: all that take part, whether they have a trial or not.
        looks: in the order of their seeds. A look is taken once every loss that is still in the race has its seeds.
        trivial: the best score of a predictor that knows nothing.
    """
    table = {loss: dict(scores.get(loss, {})) for loss in losses}
    alive, gone = list(losses), dict[str, tuple[int, float]]()
    nothing: dict[str, int] = {}
    taken: tuple[int, float] | None = None
    settled = False
    for look in looks:
        if not alive or settled or not all(table[loss].keys() >= set(range(look.seeds)) for loss in alive):
            break
        alpha = (1 - CONFIDENCE) * look.share / max(1, 2 * (len(losses) - 1))
        taken = (look.seeds, alpha)
        for loss in [x for x in alive if _learnt_nothing(table[x], look.seeds, trivial)]:
            alive.remove(loss)
            nothing[loss] = look.seeds
        pairs = _Pairs(table, alive, look.seeds, alpha)
        behind = [loss for loss in alive if pairs.is_behind(loss)]
        gone |= dict.fromkeys(behind, taken)
        alive = [loss for loss in alive if loss not in behind]
        settled = len(alive) < 2 or pairs.regret(pairs.leader) <= MARGIN
    if taken is None:
        return _unlooked(table, losses, trivial)
    if not alive:
        return Decision(None, None, [_nothing(table[x], x, n) for x, n in nothing.items()], [], True)
    pairs = _Pairs(table, alive, *taken)
    leader = pairs.leader
    seeds = list(range(taken[0]))
    standings = [Standing(leader, "use", seeds, pairs.score(leader))]
    standings += [pairs.standing(loss) for loss in alive if loss != leader]
    for loss, (count, alpha) in gone.items():
        standings.append(_Pairs(table, [leader, loss], count, alpha, pairs.deviation).standing(loss, leader))
    standings += [_nothing(table[x], x, n) for x, n in nothing.items()]
    order: list[Verdict] = ["use", "as good", "undecided", "worse", "learnt nothing"]
    standings.sort(key=lambda s: (order.index(s.verdict), -(s.score or 0.0)))
    # Who has left the race is certainly behind one who has not: it adds nothing to what may still be better.
    regret = max([0.0, *(s.high for s in standings if s.high is not None and s.loss in alive)])
    return Decision(leader, regret, standings, alive, settled)


def on_logit_scale(scores: Array | list[float]) -> Array:
    """Scores from 0 to 1 as they are compared; what failed is as far away as a score can be."""
    return np.asarray(np.clip(special.logit(np.clip(scores, 0, 1)), -_CLIP, _CLIP))


def best_rates(scores: Mapping[str, Mapping[float, float]], usual: float) -> dict[str, float]:
    """The learning rate at which each loss scored best; among equals the one that is nearest to the usual."""
    return {
        loss: max(by_rate, key=lambda rate: (round(by_rate[rate], 6), -abs(math.log(rate / usual))))
        for loss, by_rate in scores.items()
    }


class _Pairs:
    """The differences between losses over the first seeds, on the logit scale, and what can be said of them."""

    def __init__(
        self, table: Scores, losses: Sequence[str], seeds: int, alpha: float, deviation: float = _PRIOR_DEVIATION
    ) -> None:
        self.losses, self.seeds, self.alpha = list(losses), seeds, alpha
        raw = np.array([[table[loss][seed] for seed in range(seeds)] for loss in losses]).reshape(len(losses), seeds)
        self.logits = on_logit_scale(raw)
        self.mean = self.logits.mean(1)
        self.deviation = max(deviation, self._residual())
        difference = self.logits[:, None] - self.logits
        self.difference = difference.mean(2)
        self.squares = ((difference - self.difference[..., None]) ** 2).sum(2)
        self.low, self.high = self._bounds(seeds)

    @property
    def leader(self) -> str:
        """The loss with the highest mean; the first among equals."""
        return self.losses[int(self.mean.argmax())] if self.losses else ""

    def is_behind(self, loss: str) -> bool:
        """Whether some other loss is certainly better."""
        return bool((self.high[self._at(loss)] < 0).any())

    def regret(self, loss: str) -> float:
        """How much better than a loss the others may be."""
        high = np.delete(self.high[:, self._at(loss)], self._at(loss))
        return float(max(0.0, high.max(initial=0.0)))

    def score(self, loss: str) -> float:
        """The mean of a loss, as a score."""
        return float(special.expit(self.mean[self._at(loss)]))

    def standing(self, loss: str, leader: str = "") -> Standing:
        """What can be said of a loss beside the leader."""
        pair = self._at(loss), self._at(leader or self.leader)
        low, high = float(self.low[pair]), float(self.high[pair])
        verdict = _verdict(low, high)
        more = self._more(pair) if verdict == "undecided" else None
        return Standing(loss, verdict, list(range(self.seeds)), self.score(loss), low, high, more)

    def _at(self, loss: str) -> int:
        return self.losses.index(loss)

    def _residual(self) -> float:
        """The standard deviation of a difference, from what is left of all scores without their losses and seeds."""
        freedom = (len(self.losses) - 1) * (self.seeds - 1)
        if freedom < 1:
            return 0.0
        y = self.logits
        rest = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
        return math.sqrt(2 * float((rest**2).sum()) / _chi2(freedom))

    def _bounds(self, seeds: int, pair: tuple[int, int] | None = None) -> tuple[Array, Array]:
        """How much higher each loss may be than each other, in units of the score, at where the other one is.

        Of one `pair`, if that is asked for. With more `seeds` than there are: as it would be if all stayed as it looks.
        """
        squares, difference, at = self.squares, self.difference, self.mean
        if pair:
            squares, difference, at = squares[pair], difference[pair], at[pair[1]]
        variance = (_PRIOR_SEEDS * self.deviation**2 + squares) / (_PRIOR_SEEDS + self.seeds - 1)
        half = _t(1 - self.alpha, _PRIOR_SEEDS + seeds - 1) * np.sqrt(variance / seeds)
        ends = (special.expit(at + difference + side) - special.expit(at) for side in (-half, half))
        return next(ends), next(ends)

    def _more(self, pair: tuple[int, int]) -> int | None:
        for seeds in range(self.seeds + 1, _MOST_SEEDS + 1):
            low, high = self._bounds(seeds, pair)
            if _verdict(float(low), float(high)) != "undecided":
                return seeds - self.seeds
        return None


def _verdict(low: float, high: float) -> Verdict:
    if high < 0:
        return "worse"
    return "as good" if max(-low, high) <= MARGIN else "undecided"


@cache
def _chi2(freedom: int) -> float:
    return float(special.chdtri(freedom, _UPPER_LIMIT))


@cache
def _t(probability: float, freedom: int) -> float:
    return float(special.stdtrit(freedom, probability))


def _learnt_nothing(mine: Mapping[int, float], seeds: int, trivial: float) -> bool:
    return all(mine[seed] <= trivial + LEARNT for seed in range(seeds))


def _nothing(mine: Mapping[int, float], loss: str, seeds: int) -> Standing:
    return Standing(loss, "learnt nothing", list(range(seeds)), float(np.mean([mine[s] for s in range(seeds)])))


def _unlooked(table: Mapping[str, Mapping[int, float]], losses: Sequence[str], trivial: float) -> Decision:
    """Before the first look: who is ahead on the seeds that all have, and nothing of how sure that is."""
    started = [loss for loss in losses if table[loss]]
    shared = sorted(set.intersection(*(set(table[x]) for x in started))) if started else []
    if not shared:
        return Decision(None, None, [], list(losses), False)
    standings = []
    for loss in started:
        mine = [table[loss][seed] for seed in shared]
        verdict: Verdict = "learnt nothing" if max(mine) <= trivial + LEARNT else "too few seeds"
        standings.append(Standing(loss, verdict, shared, float(np.mean(mine))))
    standings.sort(key=lambda s: (s.verdict == "learnt nothing", -(s.score or 0.0)))
    first = standings[0]
    use = None if first.verdict == "learnt nothing" else first.loss
    return Decision(use, None, standings, list(losses), False)
