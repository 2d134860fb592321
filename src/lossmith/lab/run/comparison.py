"""All trials of a comparison. They run seed by seed, so that stopping early leaves paired ones."""

from __future__ import annotations

import copy
import threading
import time
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lossmith.lab import UserError
from lossmith.lab.kind import Kind, ParsedLoss
from lossmith.lab.run import kept, records
from lossmith.lab.run.devices import check_devices
from lossmith.lab.run.engine import Engine
from lossmith.lab.run.local import LocalEngine
from lossmith.lab.run.model import weights_of
from lossmith.lab.run.race import RATES_SEED, Race, affordable_rates, in_words, name_of
from lossmith.lab.run.snapshot import Snapshot
from lossmith.lab.run.trial import new_network
from lossmith.lab.run.watch import Watcher
from lossmith.lab.run.work import estimate, train
from lossmith.lab.settings import RATES, Keep, Planned, RunSettings

Trials = list[dict[str, Any]]


class Comparison:
    """Data, what it is, the settings that all trials share, which weights stay; and the losses, each parsed once.

    With a snapshot no trial is kept that ends after the data have changed.
    """

    def __init__(
        self, kind: Kind, data: Any, settings: RunSettings, snapshot: Snapshot | None = None, keep: Keep | None = None
    ) -> None:
        self.kind, self.data, self.settings, self.snapshot, self.keep = kind, data, settings, snapshot, keep
        self._parsed: dict[str, ParsedLoss] = {}
        self._split: dict[int, Any] = {}

    def loss(self, text: str) -> ParsedLoss:
        """What the text of a loss means. Raises `UserError` in one line for one that cannot train."""
        if text not in self._parsed:
            self._parsed[text] = self.kind.parse(text, self.settings, self.data)
        return self._parsed[text]

    def race(self, losses: list[str], seeds: int | None) -> Race:
        """Which trials the losses get, and what can be said of them."""
        return Race(losses, self.settings, self.kind.metrics.ranked_by, max(self.trivial().values()), seeds)

    def held_back_by(self, seed: int) -> Any:
        """The data as a seed splits them."""
        fold = seed % (self.settings.folds or 1)
        if fold not in self._split:
            self._split[fold] = self.kind.held_back_by(fold, self.data, self.settings)
        return self._split[fold]

    def trivial(self) -> dict[str, float]:
        """What those score that know nothing; with folds the mean over them."""
        scores = [self.kind.trivial(self.held_back_by(seed)) for seed in range(self.settings.folds or 1)]
        return {name: sum(s[name] for s in scores) / len(scores) for name in scores[0]}

    def _check_network(self, trials: Trials, out: Path) -> None:
        """Raises `UserError` if a network of the user's own no longer begins as it did: its code is no setting."""
        if trials and self.settings.model:
            seed = trials[0]["seed"]
            network = new_network(self.kind, self.held_back_by(seed), self.settings, seed)
            if weights_of(network) != trials[0]["weights_checksum"]:
                raise UserError(
                    f"--out {out}: holds trials of {self.settings.model} with other first weights; choose another --out"
                )

    def _check_metric(self, trials: Trials, out: Path) -> None:
        """Raises `UserError` if trials were measured by other metrics than they are to be ranked by."""
        ranked_by = self.kind.metrics.ranked_by
        if any(t["metrics"] and ranked_by not in t["metrics"] for t in trials):
            raise UserError(f"--out {out}: holds trials that {ranked_by!r} has not measured; choose another --out")

    def run(
        self,
        losses: list[str],
        out: Path,
        seeds: int | None = None,
        budget: float | None = None,
        choose_rates: bool = False,
        watcher: Watcher | None = None,
        engine: Engine | None = None,
    ) -> tuple[Trials, bool]:
        """Train what `out` does not hold yet. Returns all its trials, and whether Ctrl-C stopped the work.

        Args:
            losses: their texts.
            out: a folder; trials appear there as they finish.
            seeds: of each loss; None for a race, which stops when there is nothing left to decide.
            budget: seconds after which no trial is begun.
            choose_rates: whether each loss first chooses its learning rate.
            watcher: is told what happens.
            engine: where trials run; None for this process. It stays open.

        Raises `UserError` if `out` cannot be written to, is written to by another process, or holds trials with other
        settings; and if the data change under way.
        """
        watcher = watcher or Watcher()
        meanings = {text: repr(self.loss(text).loss) for text in losses}
        for text in losses:
            for line in self.kind.remarks(self.loss(text), self.data):
                watcher.said(f'--loss "{text}": {line}')
        check_devices(self.kind, self.data, self.settings, {text: self.loss(text).loss for text in losses})
        engine = engine or LocalEngine(self.settings.device, self.settings.devices)
        with records.opened(out, watcher.said):
            return self._run(losses, meanings, out, seeds, budget, choose_rates, watcher, engine)

    def _run(
        self,
        losses: list[str],
        meanings: dict[str, str],
        out: Path,
        seeds: int | None,
        budget: float | None,
        choose_rates: bool,
        watcher: Watcher,
        engine: Engine,
    ) -> tuple[Trials, bool]:
        trials = records.read_trials(out)
        at_once = engine.at_once
        if choose_rates:
            rates = tuple(trials[0]["settings"].get("rates", RATES)) if trials else RATES
            self.settings = replace(self.settings, rates=rates)
        records.check_same(trials, meanings, self.settings, out)
        self._check_metric(trials, out)
        self._check_network(trials, out)
        begun = time.monotonic()
        pool = ThreadPoolExecutor(at_once)
        engine.share(self.kind, self.data)

        def fresh(text: str) -> nn.Module:
            return copy.deepcopy(self.loss(text).loss)  # each trial starts its schedules anew

        seconds = _median([t["seconds"] for t in trials])
        if not seconds:
            how_long = partial(estimate, loss=fresh(losses[0]), settings=self.settings)
            seconds = engine.run("the estimate", how_long, watcher)
        if choose_rates and budget is not None and not trials:
            rates = affordable_rates(budget, len(losses), seconds, at_once)
            if rates != RATES:
                watcher.said(_too_little(rates, self.settings.lr, 5 * len(losses) * seconds / at_once))
            self.settings = replace(self.settings, rates=rates)
        race = self.race(losses, seeds)
        stop = threading.Event()

        def finish(trial: Planned) -> float:
            """Has a trial done and stores it; how many seconds it took."""
            named = {**trial._asdict(), "meaning": meanings[trial.loss], "settings": self.settings.as_json()}
            resume = records.running(named, out.absolute())
            loss, settings = fresh(trial.loss), self.settings
            work = partial(train, loss=loss, trial=trial, settings=settings, at_once=at_once, resume=resume)
            done = engine.run(f"{trial.loss}, {name_of(trial)}", work, _Stopping(watcher, stop))
            record = {**named, "counted": self.loss(trial.loss).counted, **done.record}
            if self.snapshot:
                self.snapshot.check()
            if self.keep:
                record["weights"] = kept.save(done.weights, trial, out)
            records.save(record, done.predictions, out)
            resume.unlink(missing_ok=True)
            watcher.finished(trial, record)
            return float(record["seconds"])

        def over(count: int) -> bool:
            """Whether so many more trials would end after the budget."""
            rounds = -(-count // at_once)
            return budget is not None and time.monotonic() - begun + rounds * seconds > budget

        running: set[Future[float]] = set()
        spent = [t["seconds"] for t in trials]
        hurry = False
        try:
            while (round_ := race.next(trials, hurry))[0]:
                todo, what = round_
                later = any(t["seed"] == 1 for t in trials)  # the first two seeds of all are worth it in any case
                # Rates are worth it only as long as those two seeds can follow.
                after = 2 * len(losses) if todo[0].seed == RATES_SEED else 0
                if not hurry and after and trials and over(1 + after):
                    hurry = True
                    watcher.said("no more learning rates are tried: --budget has to hold two seeds of each loss too")
                    continue
                plan = _plan(what, len(todo), seconds, at_once)
                if over(len(todo) if later else 1):
                    if not later:
                        watcher.said(f"--budget does not reach what comes before any answer: {plan}")
                    break
                watcher.planned(todo, plan)
                waiting = todo[::-1]
                while running or waiting:
                    while waiting and len(running) < at_once and not (running and over(1 + after)):
                        running.add(pool.submit(finish, waiting.pop()))
                    if not running:
                        break
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    spent += [each.result() for each in finished]
                    seconds = _median(spent)
                    if over(1 + after):
                        waiting.clear()
                trials = records.read_trials(out)
                if self.keep == "best":
                    kept.drop_all_but_best(trials, self.kind.metrics.ranked_by, out)
        except KeyboardInterrupt:
            stop.set()
        finally:
            interrupted = stop.is_set()
            stop.set()
            engine.stop()
            pool.shutdown(cancel_futures=True)
        return records.read_trials(out), interrupted


class _Stopping(Watcher):
    """Passes on what a trial tells, and ends it at its next step once the work is stopped."""

    def __init__(self, watcher: Watcher, stop: threading.Event) -> None:
        self._stop = stop
        self.said = watcher.said  # type: ignore[method-assign]
        self.scored = watcher.scored  # type: ignore[method-assign]
        self._step = watcher.step

    def step(self, trial: Planned, step: int, value: float) -> None:
        self._step(trial, step, value)
        if self._stop.is_set():
            raise CancelledError


def _plan(what: str, count: int, seconds: float, at_once: int) -> str:
    minutes = -(-count // at_once) * seconds / 60
    return f"{what}: {count} {'trial' if count == 1 else 'trials'}, about {in_words(minutes)}"


def _too_little(rates: tuple[float, ...], usual: float, seconds: float) -> str:
    tried = ", ".join(f"{usual * rate:.2g}" for rate in rates)
    what = "learning rates are not chosen" if len(rates) == 1 else "fewer learning rates are tried"
    return f"{what} ({tried}): that and two seeds of each loss need --budget {-(-seconds // 60):.0f}m"


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0
