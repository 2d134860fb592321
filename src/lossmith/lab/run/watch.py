"""What a comparison tells while it runs: extend `Watcher`, and give an instance to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lossmith.lab.settings import Planned


class Watcher:
    """Does nothing. Trials run at once in threads: a method may be called from any of them."""

    def said(self, line: str) -> None:
        """Something that the user should know."""

    def planned(self, trials: Sequence[Planned], what: str) -> None:
        """These trials are next, and what they are for."""

    def step(self, trial: Planned, step: int, value: float) -> None:
        """A step of a trial is done; the value of its loss."""

    def scored(self, trial: Planned, step: int, score: float) -> None:
        """The score on the watched images after a step."""

    def finished(self, trial: Planned, record: dict[str, Any]) -> None:
        """A trial is done and its record stored."""


class Watchers(Watcher):
    """Several at once."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = list(watchers)

    def said(self, line: str) -> None:
        for watcher in self._watchers:
            watcher.said(line)

    def planned(self, trials: Sequence[Planned], what: str) -> None:
        for watcher in self._watchers:
            watcher.planned(trials, what)

    def step(self, trial: Planned, step: int, value: float) -> None:
        for watcher in self._watchers:
            watcher.step(trial, step, value)

    def scored(self, trial: Planned, step: int, score: float) -> None:
        for watcher in self._watchers:
            watcher.scored(trial, step, score)

    def finished(self, trial: Planned, record: dict[str, Any]) -> None:
        for watcher in self._watchers:
            watcher.finished(trial, record)
