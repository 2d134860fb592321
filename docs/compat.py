"""Writes docs/compat.md: which loss of another library is which of ours, from the table of `lossmith.compat`.

python docs/compat.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from tables import cells, filled, table_head, update

from lossmith import compat
from lossmith.compat.peer import TABLE, Row

PAGE = Path(__file__).parent / "compat.md"
FOLDER = Path(compat.__file__).parent
HERE = {"segmentation_models_pytorch": "smp", "nnunetv2": "nnunet"}  # the modules that are not called like the library


def libraries() -> list[str]:
    """Those that have a module or a package here: every name in `lossmith.compat` that enters rows into the table."""
    for found in sorted(FOLDER.iterdir()):
        if found.suffix == ".py" or (found / "__init__.py").exists():
            import_module(f"lossmith.compat.{found.stem}" if found.stem != "__init__" else "lossmith.compat")
    return sorted({row.library for row in TABLE.values()})


def instead(loss: str) -> list[str]:
    """The imports that bring one of our losses under other libraries' names, one for each library."""
    found: dict[str, list[str]] = {library: [] for library in libraries()}
    for row in TABLE.values():
        if re.search(rf"\b{loss}\b", row.ours):
            found[row.library].append(row.name)
    modules = {library: f"lossmith.compat.{HERE.get(library, library)}" for library in found}
    return [f"from {modules[library]} import {', '.join(sorted(names))}" for library, names in found.items() if names]


def grouped(library: str, said: Callable[[Row], Iterable[tuple[str, ...]]], *names: str) -> list[str]:
    """A table of what the classes say, each thing once, with those that say it in the first column."""
    found: dict[tuple[str, ...], list[str]] = {}
    for row in TABLE.values():
        for thing in said(row) if row.library == library else ():
            found.setdefault(thing, []).append(f"`{row.name}`")
    return [*table_head(*names), *(cells(", ".join(rows), *thing) for thing, rows in found.items())] if found else []


def section(library: str) -> str:
    """The tables of a library."""
    tables = {
        "": grouped(library, lambda row: [(row.ours,)] if row.ours else [], "theirs", "ours"),
        "What becomes of the arguments:": grouped(
            library, lambda row: [(f"`{name}`", ours) for name, ours in row.arguments.items()], "loss", "theirs", "ours"
        ),
        "Where the value is another, because theirs is a fault:": grouped(
            library, lambda row: [(*fault,) for fault in row.faults], "loss", "where", "theirs", "here"
        ),
        "What raises an error:": grouped(
            library, lambda row: [*row.refuses.items()], "loss", "what", "why, and what instead"
        ),
    }
    return "\n\n".join(
        [f"## {library}", *("\n\n".join([text, "\n".join(rows)]).strip() for text, rows in tables.items() if rows)]
    )


def written(page: str) -> str:
    return filled(page, "libraries", "\n\n".join(section(library) for library in libraries()), PAGE)


if __name__ == "__main__":
    sys.exit(update(PAGE, written, (__doc__ or "").splitlines()[0]))
