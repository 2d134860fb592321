"""Where trials run. A comparison hands out its work from as many threads as an engine takes at once.

    local.py      threads of this process; the default
    on_ray.py     a Ray cluster

Whichever runs them, the numbers are the same: a trial follows from its seed, on one thread of a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from lossmith.lab.kind import Kind
from lossmith.lab.run.watch import Watcher

T = TypeVar("T")
Work = Callable[[Kind, Any, Watcher], T]  # gets the kind, the data, and whom to tell of its steps; can be pickled


class Engine:
    """A place where work is done; `at_once` is how much of it, each time with the same kind and data."""

    at_once: int

    def share(self, kind: Kind, data: Any) -> None:
        """What all that is to be done has in common: it travels once."""
        raise NotImplementedError

    def run(self, what: str, work: Work[T], watcher: Watcher) -> T:
        """Do it, and wait for what comes out; `at_once` threads may wait at a time. `what` names it for people.

        What `watcher.step` raises ends the work. Raises what the work raises.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """End what would not ask its watcher for long, because it waits its turn: `run` raises `CancelledError`."""

    def close(self) -> None:
        """Give back what was taken."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
