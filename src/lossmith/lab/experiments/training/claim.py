"""A claim that training decides: losses on the same footing, by the lab's own comparison, and judged in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Verdict, Work
from lossmith.lab.page.panels import INK, Chart, Mark, Panel, Series, colours
from lossmith.lab.settings import USUAL_RATE

Array = np.ndarray[Any, Any]
Scores = Mapping[str, Sequence[float]]  # by loss, of its seeds

SMALL = 256  # pixels a side around the colony, in the short form
_STRONG = 0.02  # an imbalance is called strong if less is foreground
_DIGITS = 6  # of a score: what is computed and what is shown to be computed by hand are the same numbers


class Run(NamedTuple):
    """How each loss trains: seeds, steps of a seed, the side of the crops, how many a step has, the learning rate."""

    seeds: int
    steps: int
    crop: int
    batch: int
    lr: float = USUAL_RATE


class Pair(NamedTuple):
    """Two losses on the same seeds, and by how much the one behind is above the other one, with 95 % confidence.

    The first in `scores` is claimed to be the better one.
    """

    ahead: str
    behind: str
    difference: float
    low: float
    high: float
    scores: Scores
    share: float  # of the 5 %, which all that is said at once shares
    said: str  # what the lab's rule says of the one behind
    idle: Sequence[str]  # who has learnt nothing, by the lab's rule
    what: str = ""

    @property
    def decided(self) -> bool:
        """Whether that is more than chance."""
        return self.said == "worse"

    @property
    def as_claimed(self) -> bool:
        """Whether the one that should be ahead is."""
        return self.ahead == next(iter(self.scores))

    def __str__(self) -> str:
        """The numbers of a sentence."""
        idle = f", {self.idle[0]} has learnt nothing" if len(self.idle) == 1 else ""
        return f"{self.behind} against {self.ahead}{self.what} {self.interval}, {self.said}{idle}"

    @property
    def interval(self) -> str:
        return f"{self.low:+.3f} to {self.high:+.3f}"


def paired(scores: Scores, trivial: float, share: float = 1.0, what: str = "") -> Pair:
    """The lab's decision rule on two losses, where `trivial` is the score of what knows nothing.

    What has learnt nothing has an interval like everything else, but nothing is said of two that have.
    """
    from lossmith.lab.say.decision import Look, decide

    table = {loss: dict(enumerate(of)) for loss, of in scores.items()}
    seeds = min(map(len, scores.values()))
    looks = (Look(seeds, share),)
    ahead, behind = decide(table, list(scores), looks, trivial=-1.0).standings
    idle = decide(table, list(scores), looks, trivial).named("learnt nothing")
    said = "neither has learnt anything" if len(idle) == 2 else behind.verdict
    assert ahead.score is not None
    assert behind.score is not None
    assert behind.low is not None
    assert behind.high is not None
    difference = behind.score - ahead.score
    return Pair(ahead.loss, behind.loss, difference, behind.low, behind.high, dict(scores), share, said, idle, what)


class Trained(Experiment):
    """The first of the losses is claimed to be better than each of the others."""

    losses: ClassVar[tuple[str, ...]]
    measure: ClassVar[str] = "Dice of {n} held-back frame"
    side: ClassVar[int] = 0  # with one, frames are cut to so many pixels around their colony, and three are held back
    full: ClassVar[Run]
    fast: ClassVar[Run] = Run(seeds=2, steps=20, crop=64, batch=4)
    ignore_index: ClassVar[int] = -100
    imbalanced: ClassVar[bool] = False  # whether the claim is about a strong imbalance, as the full form has

    def data(self, work: Work) -> str | Path:
        """A built-in set, or a folder made of one."""
        from lossmith.lab.experiments.training.folders import HELD_BACK, TRAIN, frames, write_frames

        if work.fast:
            train, held_back = (frames("bacteria", of, work.say, SMALL) for of in (TRAIN[::3], HELD_BACK[:1]))
        elif self.side:
            train, held_back = (frames("bacteria", of, work.say, self.side) for of in (TRAIN, HELD_BACK[::2]))
        else:
            return "bacteria"
        return write_frames(work.folder / "data", "bacteria", train, held_back, work.say)

    def trained(self) -> Any:
        """The losses as `lab.compare` takes them."""
        return self.losses

    def record(self, trial: dict[str, Any], predicted: Mapping[str, Array]) -> Data:
        """What is kept of a trial; `score`, from 0 to 1, is what is compared. One that diverged has 0."""
        ranked = (trial["metrics"] or {}).get("dice") or 0.0
        return {"score": round(ranked, _DIGITS)}

    def trivial(self, results: Data) -> float:
        """The best that what knows nothing has of the score that is compared."""
        return float(max(results["trivial"].values()))

    def compute(self, work: Work) -> Data:
        from lossmith.lab.experiments.training.folders import foreground
        from lossmith.lab.python import compare
        from lossmith.lab.run.records import read_predictions

        asked = self.fast if work.fast else self.full
        folder, out = self.data(work), work.folder / "run"
        results = compare(
            self.trained(),
            data=folder,
            out=out,
            watcher=_progress(work, len(self.losses) * asked.seeds * asked.steps),
            ignore_index=self.ignore_index,
            **asked._asdict(),
        )
        kept: dict[str, list[Data]] = {loss: [] for loss in self.losses}
        for trial in sorted(results["trials"], key=lambda trial: int(trial["seed"])):
            kept[trial["loss"]].append(self.record(trial, read_predictions(out, trial)))
        return {
            "fast": work.fast,
            "trials": kept,
            "trivial": round(self.trivial(results), _DIGITS),
            "images": results["images"],
            "foreground": foreground(folder, self.ignore_index, work.say),
            **asked._asdict(),
        }

    def scores(self, data: Data, key: str = "score") -> dict[str, list[Any]]:
        """What was kept of each loss under a name, seed by seed."""
        return {loss: [trial[key] for trial in trials] for loss, trials in data["trials"].items()}

    def pairs(self, data: Data) -> list[Pair]:
        """What is compared with what; all of it together is wrong in 5 % of runs at most."""
        scores = self.scores(data)
        first, *others = self.losses
        two = [{loss: scores[loss] for loss in (first, other)} for other in others]
        return [paired(of, data["trivial"], 1 / len(others)) for of in two]

    def shown(self, pairs: list[Pair]) -> bool:
        """Whether that is the claim, where the one that should be ahead is nowhere behind."""
        return all(pair.decided for pair in pairs)

    def verdict(self, pairs: list[Pair]) -> Verdict:
        """Of the claim. Where the intervals leave it open, no difference was seen either; the sentence says so."""
        if any(pair.decided and not pair.as_claimed for pair in pairs):
            return "refuted"
        return "confirmed" if self.shown(pairs) else "no difference seen"

    def judge(self, data: Data) -> Finding:
        pairs = self.pairs(data)
        verdict = self.verdict(pairs)
        learnt = any(len(pair.idle) < 2 for pair in pairs)
        left_open = any(not pair.decided and pair.said != "as good" for pair in pairs)
        said = []
        if data["fast"]:
            level = self.imbalanced and data["foreground"]["train"] > _STRONG
            data_too = ", on data that are not strongly imbalanced" if level else ""
            said.append(f"The short form trains little{data_too}.")
        if not learnt:
            said.append("Nothing was learnt, so nothing can be said.")
        elif verdict == "no difference seen" and left_open:
            said.append(f"Undecided: {data['seeds']} seeds of {data['steps']} steps are too few to tell.")
        compared = f"{'; '.join(map(str, pairs))} (95 %)" if learnt else f"what knows nothing has {data['trivial']:.3f}"
        return Finding(verdict, f"{' '.join([*said, self.seen(data)])}: {compared}.")

    def measured(self, data: Data) -> str:
        """The score, and of how many images."""
        n = data["images"]["validation"]
        return self.measure.format(n=n) + ("s" if n > 1 else "")

    def seen(self, data: Data) -> str:
        """The beginning of the sentence: the mean scores."""
        means = ", ".join(f"{sum(of) / len(of):.3f} with {loss}" for loss, of in self.scores(data).items())
        over = f"Over {data['seeds']} seeds of {data['steps']} steps at one learning rate"
        if of := data["foreground"]:
            over += f", with {100 * of['train']:.1f} % foreground in training and "
            over += f"{100 * of['validation']:.1f} % where judged,"
        return f"{over} the mean {self.measured(data)} is {means}"

    def draw(self, data: Data) -> list[Figure]:
        scores, pairs = self.scores(data), self.pairs(data)
        colour = colours(list(scores))
        points = [
            Series(of, [row] * len(of), colour[loss], loss, symbol="circle", opacity=0.8)
            for row, (loss, of) in enumerate(scores.items())
        ]
        intervals = [
            Series([pair.difference], [row], INK, symbol="square", low=[pair.low], high=[pair.high])
            for row, pair in enumerate(pairs)
        ]
        rows = [f"{pair.behind} against {pair.ahead}{pair.what}" for pair in pairs]
        wide = 1.1 * max(abs(end) for pair in pairs for end in (pair.low, pair.high))
        panels = [
            Panel(points, title="Each seed", x_title=self.measured(data), x_range=(0, 1), rows=list(scores)),
            Panel(intervals, "Differences", "95 % interval", x_range=(-wide, wide), rows=rows, marks=[Mark("x", 0)]),
        ]
        caption = "A point for each seed, whose weights and crops were the same for every loss; and the differences."
        return [Figure("seeds", caption, Chart(panels))]

    def tables(self, data: Data) -> list[Table]:
        rows = [[loss, *(f"{score:.3f}" for score in of)] for loss, of in self.scores(data).items()]
        measured = self.measured(data)
        caption = f"{measured[0].upper()}{measured[1:]} (what knows nothing: {data['trivial']:.3f})"
        differences = [[f"{p.behind} against {p.ahead}{p.what}", p.interval, p.said] for p in self.pairs(data)]
        return [
            Table(caption, ["", *(f"seed {k}" for k in range(data["seeds"]))], rows),
            Table("Differences", ["", "95 % interval", "the lab's rule"], differences),
        ]

    def by_hand(self, data: Data) -> ByHand:
        pair = self.pairs(data)[0]
        ahead, behind = (list(pair.scores[loss]) for loss in (pair.ahead, pair.behind))
        code = f"""import numpy as np
from scipy.special import chdtri, expit, logit, stdtrit
# each trial, its predictions and a report lie in the folder "run" of the trials beside this page
ahead = {ahead}  # {pair.ahead}
behind = {behind}  # {pair.behind}
ahead, behind = (np.clip(logit(np.array(of)), -4, 4) for of in (ahead, behind))
difference = behind - ahead
seeds, mean = len(difference), difference.mean()
squares = ((difference - mean) ** 2).sum()
usual = max(0.3**2, squares / chdtri(seeds - 1, 0.7))  # the rule and its numbers: lossmith/lab/say/decision.py
half = stdtrit(3 + seeds, 1 - {0.05 * pair.share / 2:g}) * np.sqrt((4 * usual + squares) / (3 + seeds) / seeds)
low, high = (expit(ahead.mean() + mean + side) - expit(ahead.mean()) for side in (-half, half))
print(f"{{low:+.3f}} to {{high:+.3f}}")"""
        return ByHand(code, pair.interval)


def _progress(work: Work, total: int) -> Any:
    from lossmith.lab.run.watch import Watcher

    class Steps(Watcher):
        """Counts steps; a step more or less does not matter where threads meet."""

        done = 0

        def said(self, line: str) -> None:
            work.say(line)

        def step(self, trial: Any, step: int, value: float) -> None:
            self.done += 1
            work.watch(self.done, total)

    return Steps()
