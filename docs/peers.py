"""Writes the tables of docs/peers.md: `python docs/peers.py`; with `--check` says whether they are current.

Every loss of `docs/rivals.py` that reads logits and labels, and every loss of the catalogue, through `ls.check`. It
needs `pip install -c constraints.txt ".[bench]"`, and takes minutes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rivals
import torch
from tables import cells, filled, table_head, update

import lossmith as ls
from lossmith.check import Report, Result
from lossmith.check.properties import PROPERTIES
from lossmith.losses.dense import Dense
from lossmith.names import Row

PAGE = Path(__file__).with_name("peers.md")
ASKED = [known for known in PROPERTIES if not known.slow and known.needs != "state"]  # functions have no state
MARKS = {"holds": "✓", "fails": "✗", "not asked": "–"}
IGNORED = 255
FORBIDDEN = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
TASKS = ("multiclass", "binary", "multilabel")
Checked = tuple[str, str, Report | str]  # whose, the loss, what was found or why there was nothing to find


def checked(loss: Callable[..., Any], **options: Any) -> Report | str:
    try:
        return ls.check(loss, only=[known.name for known in ASKED], **options)
    except ValueError as error:
        return str(error).partition(" cannot ")[2].partition("; forms of target")[0] or str(error)


def theirs(known: list[rivals.Rival]) -> list[Checked]:
    rows: list[Checked] = []
    for rival in known:
        if rival.task in TASKS:
            ignore = {"ignore_index": IGNORED} if rival.ignores else {}
            rows.append((rival.library, rival.theirs, checked(rival.call, task=rival.task, **ignore)))
    return rows


def ours(known: list[Row]) -> list[Checked]:
    rows: list[Checked] = []
    for row in known:
        task = "multiclass" if "multiclass" in row.cls.tasks else "multilabel"
        needed = {"forbidden": FORBIDDEN} if row.fields.get("forbidden", ...) is None else {}
        loss = row.cls(ignore_index=IGNORED, task=task, **needed)
        rows.append(("lossmith", row.name, checked(loss, task=task)))
    return rows


def results(report: Report | str) -> list[Result]:
    return [report[known.name] for known in ASKED] if isinstance(report, Report) else []


def table(rows: list[Checked]) -> Iterator[str]:
    yield from table_head("loss", *(str(number) for number in range(1, len(ASKED) + 1)), "hold", "fail")
    for library, name, report in rows:
        found = [result.verdict for result in results(report)]
        marks = [MARKS[verdict] for verdict in found] or ["?" for _ in ASKED]
        yield cells(f"{library} `{name}`", *marks, str(found.count("holds")), str(found.count("fails")))


def faults(rows: list[Checked]) -> Iterator[str]:
    """One line a fault, the input as code."""
    for library, name, report in rows:
        if isinstance(report, str):
            yield f"* {library} `{name}` was not asked: it cannot {report}"
        for result in results(report):
            if result.verdict == "fails":
                code = "; ".join(result.example.splitlines())
                shown = f"`{code}`" if len(code) < 400 else "An input of more than 400 characters."
                yield f"* {library} `{name}`, {result.name}: {result.seen}. {shown}"


def sections() -> dict[str, str]:
    torch.set_num_threads(1)
    dense = [row for row in ls.catalogue() if issubclass(row.cls, Dense)]
    with ls.use_engine("plain"):
        by_library = {"theirs": theirs(rivals.known()), "ours": ours(dense)}
    properties = [f"{number}. `{known.name}`: {known.means}" for number, known in enumerate(ASKED, 1)]
    texts = {"properties": "\n".join(properties)}
    for name, rows in by_library.items():
        texts |= {name: "\n".join(table(rows)), f"faults of {name}": "\n".join(faults(rows))}
    return texts


def written(page: str) -> str:
    """The page with what is found now, dated anew if that is something else."""
    new = page
    for name, text in sections().items():
        new = filled(new, name, text, PAGE)
    libraries = ", ".join(f"{name} {rivals.installed(name)}" for name in ("torch", "monai", "kornia"))
    new = filled(new, "versions", f"With {libraries}, on a CPU.", PAGE)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return page if new == page else re.sub(r"(?<=Measured on )\S+(?=\.)", day, new)


if __name__ == "__main__":
    sys.exit(update(PAGE, written, (__doc__ or "").splitlines()[0]))
