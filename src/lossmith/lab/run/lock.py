"""A folder that one process at a time writes to."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lossmith.lab import UserError


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds `out`/.lock. The system gives it back when the process ends, however that happens.

    Who holds it may take it again. Raises `UserError`, which names the process, if another one holds it.
    """
    owner = out / ".lock-owner"  # beside it: on some systems a locked file cannot be read
    lock = FileLock(out / ".lock", timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        held_by = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        raise UserError(f"--out {out}: {held_by} is writing there; wait for it, or choose another --out") from error
    except OSError as error:
        raise UserError(f"--out {out}: cannot be locked ({error.strerror}); choose another folder") from error
    try:
        outermost = lock.lock_counter == 1
        with suppress(OSError):  # a disk that is full is said where something is lost
            owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        if outermost:
            owner.unlink(missing_ok=True)
        lock.release()
