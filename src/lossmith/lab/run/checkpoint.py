"""Where a long trial stands, so that it goes on from there after a crash: OUT/running/HASH.pt."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lossmith.lab.run.records import set_aside, write

SECONDS = 60.0  # between two checkpoints: a trial that takes less has none
_DIGEST = 32  # bytes of checksum before the state


class Checkpoint:
    """The checkpoint of one trial. `same` are checksums of what must not differ for its state to mean anything.

    `say` gets a line for a damaged file, which is set aside; the trial then starts anew.
    """

    def __init__(self, path: Path, same: dict[str, str], say: Callable[[str], None]) -> None:
        self.path, self.same, self._say = path, {**same, "torch": torch.__version__}, say
        self._next = time.monotonic() + SECONDS

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() >= self._next

    def save(self, state: dict[str, Any]) -> None:
        """Tensors and plain values. Raises `UserError` if they cannot be written."""
        packed = io.BytesIO()
        torch.save({"same": self.same, "state": state}, packed)
        write(self.path, hashlib.sha256(packed.getvalue()).digest() + packed.getvalue())
        self._next = time.monotonic() + SECONDS

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved last; None if there is nothing, or nothing of this trial as it is now."""
        if not self.path.exists():
            return None
        try:
            raw = self.path.read_bytes()
            if hashlib.sha256(raw[_DIGEST:]).digest() != raw[:_DIGEST]:
                raise ValueError("its checksum is not that of its content")
            stored = torch.load(io.BytesIO(raw[_DIGEST:]), map_location=device, weights_only=True)
            state: dict[str, Any] | None = stored["state"] if stored["same"] == self.same else None
        except Exception as error:  # whatever unpickling raises means the same
            aside = set_aside([self.path], self.path.parent.parent)
            self._say(
                f"{self.path}: damaged ({str(error).splitlines()[0]}); set aside in {aside}, the trial starts anew"
            )
            return None
        return state

    def remove(self) -> None:
        """The trial is finished."""
        self.path.unlink(missing_ok=True)
