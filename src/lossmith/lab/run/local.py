"""Work in threads of this process, as much at once as there are cores: on a CPU one core each, on others one at all.

For a small network that is faster than one trial on all cores, and the result does not depend on their number.
"""

from __future__ import annotations

from typing import Any

import torch

from lossmith.lab import UserError
from lossmith.lab.kind import Kind
from lossmith.lab.run.engine import Engine, T, Work
from lossmith.lab.run.watch import Watcher


class LocalEngine(Engine):
    """`devices` is on how many each trial trains: with several one trial at a time. Raises `UserError` for too many."""

    def __init__(self, device: str, devices: int = 1) -> None:
        if device != "cpu" and devices > torch.accelerator.device_count():
            raise UserError(f"--devices {devices}: this machine has {torch.accelerator.device_count()}; give that many")
        cores = torch.get_num_threads()
        self._threads = 1 if device == "cpu" else cores
        self.at_once = cores if device == "cpu" and devices == 1 else 1

    def share(self, kind: Kind, data: Any) -> None:
        self._kind, self._data = kind, data

    def run(self, what: str, work: Work[T], watcher: Watcher) -> T:
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            return work(self._kind, self._data, watcher)
        finally:
            torch.set_num_threads(before)
