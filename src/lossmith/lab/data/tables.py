"""The tables of a data folder: split.csv, classes.txt and the like. What is wrong in them is added to `faults`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from lossmith.lab.data.faults import Fault

_SPLITS = ("train", "validation", "unused")
_HELD_BACK = 0.25


def read_column(
    path: Path,
    column: str,
    stems: list[str],
    problem: Callable[[str], str],
    faults: list[Fault],
    unread: Collection[str] = (),
) -> dict[str, str]:
    """A column by stem: one row for every image, and perhaps for files that are none (`unread`).

    `problem` says what is wrong with a value, or "".
    """
    values: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"stem", column} <= set(rows.fieldnames or ()):
            found = ",".join(rows.fieldnames or ())
            faults.append(Fault(path, f"the first line must be stem,{column}", f"it is {found!r}"))
            return {}
        for row in rows:
            stem, value = row["stem"], row[column] or ""
            wrong = f"{value!r} is {problem(value)}" if problem(value) else ""
            if not wrong and stem not in stems and stem not in unread:
                wrong = f"there is no image with the stem {stem!r}"
            if not wrong and stem in values:
                wrong = f"{stem!r} is listed twice"
            if wrong:
                faults.append(Fault(path, wrong, line=rows.line_num))
            values[stem] = value
    hint = " (unused leaves it out)" if column == "split" else ""
    missing = [stem for stem in stems if stem not in values]
    faults += [Fault(path, f"{stem!r} is not listed", f"give it a {column}{hint}") for stem in missing]
    return values


def read_split(folder: Path, stems: list[str], faults: list[Fault], unread: Collection[str] = ()) -> dict[str, str]:
    """The part that each image belongs to: what split.csv says, else a seeded quarter is held back."""
    path = folder / "split.csv"
    before = len(faults)
    if path.is_file():
        wrong = f"not one of {', '.join(_SPLITS)}"
        split = read_column(path, "split", stems, lambda part: "" if part in _SPLITS else wrong, faults, unread)
    elif len(stems) < 2:
        fix = "at least two are needed, one to train on and one held back"
        faults.append(Fault(folder, "one image only", fix))
        return dict.fromkeys(stems, "train")
    else:
        held_back = max(1, round(_HELD_BACK * len(stems)))
        shuffled = np.random.default_rng(0).permutation(stems).tolist()
        split = dict.fromkeys(shuffled[held_back:], "train") | dict.fromkeys(shuffled[:held_back], "validation")
    if len(faults) == before:  # else it may be for the rows that are wrong
        absent = [part for part in ("train", "validation") if part not in split.values()]
        faults += [Fault(path, f"no image is marked {part}", "mark at least one") for part in absent]
    return split


def read_class_names(folder: Path, faults: list[Fault]) -> list[str]:
    """What classes.txt says; empty if there is none."""
    path = folder / "classes.txt"
    if not path.is_file():
        return []
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        what = "expected at least two different names, one a line, background first"
        faults.append(Fault(path, what, f"got {names}"))
        return []
    return names


def read_source(folder: Path) -> str:
    """What SOURCE.txt says; "" if there is none."""
    path = folder / "SOURCE.txt"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
