"""Where the pixels of a data set are kept: in memory as long as they fit, the rest in one file on disk.

The file has no name and goes with the process, however that ends; crops map the part they show. The pixels come into
it while all files are read once, which is needed anyway to check them and to tell data sets apart. What of it stays in
memory is up to the operating system, which knows what else needs memory.
"""

from __future__ import annotations

import os
import tempfile
import threading
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
_GUESSED = 4 * 2**30


@dataclass(frozen=True, eq=False)
class OnDisk:
    """An array in a file. A window of it is read when asked for, as if it were an array."""

    file: IO[bytes]
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __getitem__(self, window: Any) -> Array:
        # The map ends with this call: what was shown is the operating system's to keep, not this process's.
        return np.array(np.memmap(self.file, self.dtype, "r", self.start, self.shape)[window])


Stored = Array | OnDisk


class Store:
    """Keeps arrays; for several threads. `bound` is how many bytes of them are held in memory."""

    def __init__(self, bound: int | None = None) -> None:
        self._left = int(SHARE_HELD * free_memory()) if bound is None else bound
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
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
    def on_disk(self) -> int:
        """How many bytes are not held in memory."""
        return self._end

    def _write(self, array: Array) -> OnDisk:
        folder = cache_folder()
        try:
            if self._file is None:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  it is closed with the last sample
            start = self._end
            self._file.seek(start)
            self._file.write(array.data)
            self._file.flush()
        except OSError as error:
            held = f"after {self._end / _GIGABYTE:.1f} GB of pixels that memory has no room for"
            fix = "set XDG_CACHE_HOME to a folder with more room"
            raise UserError(f"{folder}: cannot be written to {held} ({error.strerror}); {fix}") from error
        self._end = -(-(start + array.nbytes) // _ALIGNED) * _ALIGNED
        return OnDisk(self._file, start, array.dtype, array.shape)


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
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        cached = _number_in(group / "memory.stat", "inactive_file")
    except (OSError, StopIteration):
        return None
    return None if most == "max" else max(0, int(most) - int(used) + cached)


def _number_in(path: Path, name: str) -> int:
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)
