"""All trials of a comparison. They run seed by seed, so that stopping early leaves paired ones."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from lossmith.lab.kind import Kind, ParsedLoss
from lossmith.lab.run import records
from lossmith.lab.run.machine import machine
from lossmith.lab.run.trial import run_trial
from lossmith.lab.settings import RunSettings

Watch = Callable[[str, int, int | None], None]


class Comparison:
    """Data, what it is, the settings that all trials share; and the losses, each parsed once."""

    def __init__(self, kind: Kind, data: Any, settings: RunSettings) -> None:
        self.kind, self.data, self.settings = kind, data, settings
        self._parsed: dict[str, ParsedLoss] = {}

    def loss(self, text: str) -> ParsedLoss:
        """What the text of a loss means. Raises `UserError` in one line for one that cannot train."""
        if text not in self._parsed:
            self._parsed[text] = self.kind.parse(text, self.settings, self.data)
        return self._parsed[text]

    def run(
        self,
        losses: list[str],
        seeds: int,
        out: Path,
        watch: Watch = lambda text, seed, step: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> tuple[list[dict[str, Any]], bool]:
        """Train what `out` does not hold yet. Returns all its trials, and whether Ctrl-C stopped the work.

        On a CPU as many trials run at once as there are cores, each on one: for a small network that is faster than
        one trial on all cores, and the result does not depend on their number. `watch(loss, seed, step)` is called
        after each step, with None when a trial is finished; `say` gets a line for whatever the user should know of a
        loss.
        Raises `UserError` if `out` cannot be written to, or holds trials with other settings.
        """
        meanings = {text: repr(self.loss(text).loss) for text in losses}
        for text in losses:
            for line in self.kind.remarks(self.loss(text), self.data):
                say(f'--loss "{text}": {line}')
        records.make_folders(out)
        finished = records.read_trials(out)
        records.check_same(finished, meanings, self.settings, out)
        done = {(t["loss"], t["seed"]) for t in finished}
        todo = [(text, seed) for seed in range(seeds) for text in losses if (text, seed) not in done]
        device = self.settings.device
        stop = threading.Event()

        def train(text: str, seed: int) -> None:
            def on_step(step: int) -> None:
                watch(text, seed, step)
                if stop.is_set():
                    raise CancelledError

            torch.set_num_threads(1 if device == "cpu" else cores)
            loss = copy.deepcopy(self.loss(text).loss)  # each trial starts its schedules anew
            record, predictions = run_trial(self.kind, loss, seed, self.data, self.settings, on_step)
            parsed, settings = self.loss(text), self.settings.as_json()
            named = {"loss": text, "meaning": meanings[text], "counted": parsed.counted, "settings": settings}
            records.save({**named, **record, "machine": machine(device, at_once)}, predictions, out)
            watch(text, seed, None)

        cores = torch.get_num_threads()
        at_once = cores if device == "cpu" else 1
        pool = ThreadPoolExecutor(at_once)
        try:
            for trial in as_completed([pool.submit(train, *each) for each in todo]):
                trial.result()
        except KeyboardInterrupt:
            stop.set()
        finally:
            interrupted = stop.is_set()
            stop.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(cores)
        return records.read_trials(out), interrupted
