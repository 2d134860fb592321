"""Images measured one after the other, or in several processes, with one in the memory of each."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from lossmith.lab import UserError

Job = TypeVar("Job")
Found = TypeVar("Found")

_AHEAD = 4  # jobs a process may have waiting: results are few at a time, whatever the number of images


def measured(jobs: Sequence[Job], measure: Callable[[Job], Found], processes: int) -> Iterator[Found]:
    """What `measure` finds in each job, in their order, so that sums come out the same with any number of processes.

    `measure` is a function of a module, and jobs can be pickled: the processes start anew, without what is in memory.
    """
    if processes < 2:
        yield from map(measure, jobs)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    waiting: deque[Future[Found]] = deque()
    try:
        for job in jobs:
            with _deaf_to_interrupts():  # a submission may start a process
                waiting.append(pool.submit(measure, job))
            while len(waiting) >= _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError("a process that read images was killed, perhaps for memory; use --processes 1") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What starts in here does not hear Ctrl-C: this process does, and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
