"""The tables of a data folder: split.csv, classes.txt and the like. What is wrong in them is added to `faults`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection
from pathlib import Path

from lossmith.lab.data.faults import Fault
from lossmith.lab.data.files import suffix_of
from lossmith.lab.data.folds import hold_back

_SPLITS = ("train", "validation", "unused")


def columns_of(path: Path) -> list[str]:
    """What the first line of a table names; [] if there is no table."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file).fieldnames or ())


def read_column(
    path: Path,
    column: str,
    stems: list[str],
    problem: Callable[[str], str],
    faults: list[Fault],
    unread: Collection[str] = (),
) -> dict[str, str]:
    """A column by stem: one row for every image, and perhaps for files that are none (`unread`).

    Rows may give names of files for stems. `problem` says what is wrong with a value, or "".
    """
    values: dict[str, str] = {}
    known = {*stems, *unread}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"stem", column} <= set(rows.fieldnames or ()):
            found = ",".join(rows.fieldnames or ())
            faults.append(Fault(path, f"the first line must be stem,{column}", f"it is {found!r}"))
            return {}
        for row in rows:
            stem, value = row["stem"] or "", row[column] or ""
            suffix = suffix_of(Path(stem))
            if stem not in known and suffix:
                stem = stem[: -len(suffix)]
            wrong = f"{value!r} is {problem(value)}" if problem(value) else ""
            if not wrong and stem not in known:
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


def read_split(
    folder: Path,
    stems: list[str],
    faults: list[Fault],
    unread: Collection[str] = (),
    groups: dict[str, str] | None = None,
) -> dict[str, str]:
    """The part that each image belongs to: what split.csv says, else a seeded quarter is held back, groups whole."""
    path = folder / "split.csv"
    groups, before, columns = groups or {}, len(faults), columns_of(path)
    whole = {groups.get(stem, stem) for stem in stems}
    if path.is_file() and not (groups and "stem" in columns and "split" not in columns):
        wrong = f"not one of {', '.join(_SPLITS)}"
        split = read_column(path, "split", stems, lambda part: "" if part in _SPLITS else wrong, faults, unread)
    elif len(stems) < 2:
        fix = "at least two are needed, one to train on and one held back"
        faults.append(Fault(folder, "one image only", fix))
        return dict.fromkeys(stems, "train")
    elif len(whole) < 2:
        fix = "at least two are needed, one to train on and one held back"
        faults.append(Fault(folder, f"all images are of one group, {groups[stems[0]]!r}", fix))
        return dict.fromkeys(stems, "train")
    else:
        split = hold_back(stems, groups)
    if len(faults) == before:  # else it may be for the rows that are wrong
        absent = [part for part in ("train", "validation") if part not in split.values()]
        faults += [Fault(path, f"no image is marked {part}", "mark at least one") for part in absent]
        _check_sides(path, split, groups, faults)
    return split


def _check_sides(path: Path, split: dict[str, str], groups: dict[str, str], faults: list[Fault]) -> None:
    """Held-back images of a group that trains as well say little of other groups."""
    sides: dict[str, dict[str, str]] = {}
    for stem, group in groups.items():
        if split[stem] != "unused":
            sides.setdefault(group, {})[split[stem]] = stem
    both = {group: stems for group, stems in sides.items() if len(stems) == 2}
    if both:
        group, stems = next(iter(both.items()))
        more = f", and {len(both) - 1} more groups are" if both.keys() - {group} else ""
        what = f"the group {group!r} is on both sides ({stems['train']!r} trains, {stems['validation']!r} is held back)"
        fix = "mark all of a group alike, or its scores will be too good"
        faults.append(Fault(path, f"{what}{more}", fix, fatal=False))


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
