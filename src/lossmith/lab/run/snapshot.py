"""Whether the files of a data folder are still those that were read: by size and time, which costs next to nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lossmith.lab import UserError
from lossmith.lab.run.records import results_in

State = tuple[int, int]  # bytes, time of the last change in nanoseconds


class Snapshot:
    """What some folders hold now; `check` says later what has changed. Files that are new by then were never read.

    The results in `out` do not count, should they lie in the data.
    """

    def __init__(self, folders: Iterable[Path], out: Path) -> None:
        self._files = {path: state for folder in folders for path, state in _walk(folder, results_in(out.resolve()))}

    def check(self) -> None:
        """Raises `UserError` for the first file that is not as it was."""
        for path, before in self._files.items():
            now = _state(path)
            if now != before:
                what = "changed" if now else "is gone"
                raise UserError(
                    f"{path}: {what} since the comparison began; what was finished by then is kept, choose another "
                    "--out for the data as it is now"
                )


def _walk(folder: Path, besides: set[Path]) -> Iterator[tuple[Path, State | None]]:
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root).resolve()
        folders[:] = [name for name in folders if not name.startswith(".") and here / name not in besides]
        for name in names:
            if not name.startswith(".") and here / name not in besides:
                yield Path(root, name), _state(Path(root, name))


def _state(path: Path) -> State | None:
    """None for what cannot be read."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
