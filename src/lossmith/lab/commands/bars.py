"""Progress of a comparison: bars where somebody looks, else a line for each trial."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned


class Bars(Watcher):
    """A bar for the trials of a round, and one for each that runs."""

    def __init__(self, shown: Progress, say: Console, steps: int, quiet: bool) -> None:
        self._shown, self._say, self._steps, self._quiet = shown, say, steps, quiet
        self._whole: TaskID | None = None
        self._bars: dict[Planned, TaskID] = {}
        self._count, self._done = 0, 0
        self._lock = threading.Lock()

    def said(self, line: str) -> None:
        self._say.print(line)

    def planned(self, trials: Sequence[Planned], what: str) -> None:
        if not self._quiet:
            self._say.print(what)
        if self._whole is not None:
            self._shown.remove_task(self._whole)
        self._count, self._done = len(trials), 0
        self._whole = self._shown.add_task(f"trial 0 of {self._count}", total=self._count * self._steps)

    def step(self, trial: Planned, step: int, value: float) -> None:
        with self._lock:
            if trial not in self._bars:
                self._bars[trial] = self._shown.add_task(f"{trial.loss}, {_which(trial)}", total=self._steps)
            self._shown.update(self._bars[trial], completed=step)
            if self._whole is not None:
                self._shown.advance(self._whole, 1)

    def finished(self, trial: Planned, record: dict[str, Any]) -> None:
        with self._lock:
            self._done += 1
            if trial in self._bars:
                self._shown.update(self._bars[trial], visible=False)
            if self._whole is not None:
                self._shown.update(self._whole, description=f"trial {self._done} of {self._count}")
            if not self._quiet and not self._say.is_terminal:
                self._say.print(
                    f"{self._done} of {self._count}: {trial.loss}, {_which(trial)}, {record['seconds']:.0f} s"
                )


def _which(trial: Planned) -> str:
    from lossmith.lab.run.race import name_of

    return name_of(trial)
