"""Where a long trial stands, so that it goes on from there after a crash."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lossmith.lab.run.records import set_aside, write

SECONDS = 60.0  # between two checkpoints: a trial that takes less leaves none
_DIGEST = 32  # bytes of checksum before the state


class Checkpoint:
    """The checkpoint of one trial, at OUT/running/HASH.pt; without a path there is none.

    `parts` are all that has a state_dict, by name, and `same` are checksums of what must be as it was for their states
    to mean anything. torch's random state is kept with them. `say` gets a line for a damaged file, which is set aside.
    """

    def __init__(
        self,
        path: Path | None,
        parts: dict[str, Any],
        same: dict[str, str],
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._path, self._parts, self._say = path, parts, say
        self._same = {**same, "torch": str(torch.__version__)}
        self._random = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
        self._next = time.monotonic() + SECONDS

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return self._path is not None and time.monotonic() >= self._next

    def save(self, history: list[Any]) -> None:
        """The state of the parts, and a history of plain values. Raises `UserError` if they cannot be written."""
        assert self._path is not None
        state = {name: part.state_dict() for name, part in self._parts.items()}
        random = [source.get_rng_state() for source in self._random]
        packed = io.BytesIO()
        torch.save({"same": self._same, "state": state, "random": random, "history": history}, packed)
        write(self._path, hashlib.sha256(packed.getvalue()).digest() + packed.getvalue())
        self._next = time.monotonic() + SECONDS

    def load(self) -> list[Any] | None:
        """Brings the parts to where they stood, and returns the history; None if the trial has to start anew."""
        stored = self._read() if self._path is not None and self._path.exists() else None
        if stored is None or stored["same"] != self._same:
            return None
        for name, part in self._parts.items():
            part.load_state_dict(stored["state"][name])
        for source, state in zip(self._random, stored["random"], strict=True):
            source.set_rng_state(state)
        return list(stored["history"])

    def _read(self) -> dict[str, Any] | None:
        assert self._path is not None
        try:
            raw = self._path.read_bytes()
            if hashlib.sha256(raw[_DIGEST:]).digest() != raw[:_DIGEST]:
                raise ValueError("its checksum is not that of its content")
            stored: dict[str, Any] = torch.load(io.BytesIO(raw[_DIGEST:]), map_location="cpu", weights_only=True)
        except Exception as error:  # whatever reading raises means the same
            aside = set_aside([self._path], self._path.parent.parent)
            self._say(
                f"{self._path}: damaged ({str(error).splitlines()[0]}); set aside in {aside}, its trial starts anew"
            )
            return None
        return stored
