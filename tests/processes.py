"""A pool of processes with gloo between them, and what the tests let each of them do."""

from __future__ import annotations

import datetime
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = 15.0  # seconds that processes wait for each other


class Pool:
    """Processes that stay, for all tests; a group of n are the first n of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.start()

    def start(self) -> None:
        self.folder, size = tempfile.TemporaryDirectory(), self.size
        context = multiprocessing.get_context("spawn")
        self.pipes, self.workers = [], []
        for rank in range(size):
            here, there = context.Pipe()
            about = rank, size, str(Path(self.folder.name) / "store"), there
            worker = context.Process(target=_serve, args=about, daemon=True)
            worker.start()
            there.close()  # so that the end of the other process is the end of the pipe
            self.pipes.append(here)
            self.workers.append(worker)

    def run(self, members: int, case: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `case(rank, group, *arguments)` returns in each of them; an error in one is raised here."""
        for rank in range(members):
            self.pipes[rank].send((members, case, arguments))
        found = [self._answer(rank) for rank in range(members)]
        wrong = [answer.text for answer in found if isinstance(answer, Failed)]
        if wrong:  # some may still wait for others
            self.close()
            self.start()
        assert not wrong, "\n".join(wrong)
        return found

    def _answer(self, rank: int) -> Any:
        if not self.pipes[rank].poll(4 * PATIENCE):
            return Failed(f"process {rank} hangs")
        try:
            return self.pipes[rank].recv()
        except EOFError:
            return Failed(f"process {rank} ended")

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.join()
        self.folder.cleanup()


class Failed:
    """An error in a process."""

    def __init__(self, text: str) -> None:
        self.text = text


def _serve(rank: int, size: int, store: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    wait = datetime.timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=wait)
    groups = {n: dist.new_group(list(range(n)), timeout=wait) for n in range(1, size + 1)}
    while True:
        try:
            members, case, arguments = pipe.recv()
        except EOFError:
            return
        torch.manual_seed(0)
        try:
            answer = case(rank, groups[members], *arguments)
        except Exception:
            answer = Failed(traceback.format_exc())
        pipe.send(answer)
