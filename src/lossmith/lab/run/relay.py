"""What a trial tells in another process, on its way to the watcher in this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned

Told = tuple[str, tuple[Any, ...]]  # a method of a watcher, and what it was called with
SECONDS = 0.5  # how often it is fetched


class Relay(Watcher):
    """Hands on what a trial tells."""

    def __init__(self, put: Callable[[Told], None]) -> None:
        self._put = put

    def said(self, line: str) -> None:
        self._put(("said", (line,)))

    def step(self, trial: Planned, step: int, value: float) -> None:
        self._put(("step", (trial, step, value)))

    def scored(self, trial: Planned, step: int, score: float) -> None:
        self._put(("scored", (trial, step, score)))


def waiting(queue: Any) -> list[Told]:
    """What lies in a queue."""
    told = []
    while not queue.empty():
        told.append(queue.get())
    return told


def tell(told: Iterable[Told], watcher: Watcher) -> None:
    """Tell the watcher. Raises what it raises."""
    for method, given in told:
        getattr(watcher, method)(*given)
