"""What is wrong with a file or a table: where, what, and what puts it right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lossmith.lab import UserError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a data folder. Without a fatal one a comparison can run."""

    path: Path
    what: str
    fix: str = ""
    line: int | None = None
    fatal: bool = True

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else str(self.path)
        if not self.fix:
            return f"{where}: {self.what}"
        sentence = self.fix[0].isupper()
        return f"{where}: {self.what}{' ' if self.what[-1] == '?' else '. ' if sentence else '; '}{self.fix}"


class Faulty(UserError):
    """Raised for a fault where nothing can go on."""

    def __init__(self, path: Path, what: str, fix: str = "") -> None:
        self.fault = Fault(path, what, fix)
        super().__init__(str(self.fault))


def raise_first(faults: Iterable[Fault]) -> None:
    """Raises `UserError` for the first fault that is fatal."""
    for fault in faults:
        if fault.fatal:
            raise UserError(str(fault))
