"""Where the pixels of a data set are kept: in memory as long as they fit, the rest in one file on disk.

The file has no name and goes with the process, however that ends; crops map the part they show. The pixels come into
it while all files are read once, which is needed anyway to check them and to tell data sets apart. What of it stays in
memory is up to the operating system, which knows what else needs memory.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from lossmith.lab import UserError

Array = np.ndarray[Any, Any]
Watch = Callable[[int, int], None]  # called with how many images are read, and how many there are
Item = TypeVar("Item")
Result = TypeVar("Result")

SHARE_HELD = 0.25  # of the memory that is free when reading begins
_ALIGNED = 64  # bytes
_READERS = min(8, os.cpu_count() or 1)  # decoders, sums and digests leave Python's lock alone
_WORK = 4  # times an image as float32: what reading one takes at most
_GIGABYTE = 1e9
_CONTAINER = Path("/sys/fs/cgroup")
_GUESSED = 4 * 2**30  # bytes


class Scratch:
    """A file without a name, which ends with the last that holds it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  its block would be that of the data
        weakref.finalize(self, self.file.close)


@dataclass(frozen=True, eq=False)
class OnDisk:
    """An array in a file. A window of it is read when asked for, as if it were an array."""

    scratch: Scratch
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __getitem__(self, window: Any) -> Array:
        # The map ends with this call: what was shown is the operating system's to keep, not this process's.
        return np.array(np.memmap(self.scratch.file, self.dtype, "r", self.start, self.shape)[window])

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes cannot read the file: what travels to them is the array."""
        return np.asarray, (self[...],)


Stored = Array | OnDisk


class Store:
    """Keeps arrays; for several threads. `bound` is how many bytes of them are held in memory."""

    def __init__(self, bound: int | None = None) -> None:
        self._left = int(SHARE_HELD * free_memory()) if bound is None else bound
        self._lock = threading.Lock()
        self._scratch: Scratch | None = None
        self._end = 0

    def keep(self, array: Array) -> Stored:
        """The array itself if it fits, else as a part of the file. Raises `UserError` if the disk is full."""
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        with self._lock:
            if array.nbytes <= self._left:
                self._left -= array.nbytes
                return array
            self._left = 0  # what comes later goes to the disk too, however small
            return self._write(array)

    @property
    def notices(self) -> list[str]:
        """A line that says how much streams, if anything does."""
        share = f"{SHARE_HELD:.0%} of the free memory; they stream from a file in {cache_folder()}"
        return [f"{self._end / _GIGABYTE:.1f} GB of pixels are beyond {share}"] if self._end else []

    def _write(self, array: Array) -> OnDisk:
        folder = cache_folder()
        try:
            self._scratch = self._scratch or Scratch(folder)
            self._scratch.file.seek(self._end)
            self._scratch.file.write(array.data)
            self._scratch.file.flush()  # a full disk is to be met here
        except OSError as error:
            raise UserError(
                f"{folder}: cannot hold the pixels that memory has no room for ({error.strerror} after "
                f"{self._end / _GIGABYTE:.1f} GB); set XDG_CACHE_HOME to a folder with more room"
            ) from error
        kept = OnDisk(self._scratch, self._end, array.dtype, array.shape)
        self._end += -(-array.nbytes // _ALIGNED) * _ALIGNED
        return kept


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], largest: int, watch: Watch = lambda *_: None
) -> Iterator[Result]:
    """What `work` gives for each item, in their order. An error or Ctrl-C drops what has not begun.

    `largest` is how many numbers an image has: as many are worked on at once as the free memory allows.
    """
    fit = int(SHARE_HELD * free_memory() / (_WORK * np.dtype(np.float32).itemsize * largest))
    pool = ThreadPoolExecutor(max(1, min(_READERS, fit)))
    try:
        for done, result in enumerate(pool.map(work, items), 1):
            watch(done, len(items))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def cache_folder() -> Path:
    """Where lossmith keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossmith"


def free_memory() -> int:
    """Bytes that can be had without swapping, of the machine and of the container; a guess where neither says."""
    return min((n for n in (_available(), _left_in_container()) if n is not None), default=_GUESSED)


def _available() -> int | None:
    try:
        return 1024 * _number_in(Path("/proc/meminfo"), "MemAvailable:")
    except (OSError, StopIteration):
        return None


def _left_in_container() -> int | None:
    try:
        most, used = (
            (_CONTAINER / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
        cached = _number_in(_CONTAINER / "memory.stat", "inactive_file")
    except (OSError, StopIteration):
        return None
    return None if most == "max" else max(0, int(most) - int(used) + cached)


def _number_in(path: Path, name: str) -> int:
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)
