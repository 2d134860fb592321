"""What the labels of a folder are called, and what is wrong with the labels that its images hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lossmith.lab.data.faults import Fault
from lossmith.lab.data.index import Index

_MOST_UNNAMED_CLASSES = 32
_OFTEN_UNLABELLED = (255, 65535)


def name_classes(
    seen: dict[str, set[int]], index: Index, task: str, ignore_index: int
) -> tuple[list[str], list[Fault]]:
    """What the labels are called, from the labels that each image holds; and what is wrong with them."""
    names = index.classes
    faults: list[Fault] = []
    if not seen:  # no image at all, which is said elsewhere
        return names, faults
    ignored = index.dataset.ignored
    if ignored is not None and ignored != ignore_index:
        faults.append(
            Fault(index.folder / "dataset.json", f"ignores the label {ignored}", f"add --ignore-index {ignored}")
        )
    if task == "binary":
        faults += _beside_255(seen, index, ignore_index)
        seen = {stem: {v if v == ignore_index else int(v > 0) for v in here} for stem, here in seen.items()}
        classes = names if len(names) == 2 else ["background", "foreground"]
    elif names:
        classes = names
    else:
        classes, more = _default_names(seen, index, ignore_index)
        faults += more
    if any(fault.fatal for fault in faults):
        return classes, faults
    ignores = any(ignore_index in here for here in seen.values())
    for stem, here in seen.items():
        unnamed = sorted(v for v in here - {ignore_index} if v >= len(classes))
        if unnamed:
            ignore = "" if ignores or len(unnamed) > 1 else f", or ignore it: --ignore-index {unnamed[0]}"
            last = len(classes) - 1
            what = f"holds the label {unnamed[-1]}, but classes.txt names {len(classes)} classes (0 to {last})"
            fix = f"name all up to {unnamed[-1]}, correct the label{ignore}"
            faults.append(Fault(index.partners[stem], what, fix))
    where = next(iter(index.partners.values()))
    if task != "binary" and 0 <= ignore_index < len(classes) and any(ignore_index in here for here in seen.values()):
        what = f"the label {ignore_index}, {classes[ignore_index]!r}, is ignored: its pixels count nowhere"
        fix = f"if it is a class, drop --ignore-index {ignore_index}"
        faults.append(Fault(where.parent, what, fix, fatal=False))
    every = set().union(*seen.values())
    if not any(v > 0 and v != ignore_index for v in every):
        but = f" but for the label {ignore_index}, which --ignore-index ignores" if ignore_index in every else ""
        whole = where.suffix == ".csv"
        what = f"every {'label is 0' if whole else 'mask is background only'}{but}, nothing to learn"
        faults.append(Fault(where if whole else where.parent, what))
    elif names and task != "binary":
        absent = [name for k, name in enumerate(names) if k not in every]
        table, fix = index.folder / "classes.txt", "its scores will mean nothing"
        faults += [Fault(table, f"names {name!r}, and no label is that", fix, fatal=False) for name in absent]
    return classes, faults


def _default_names(seen: dict[str, set[int]], index: Index, ignore_index: int) -> tuple[list[str], list[Fault]]:
    """Names for the labels 0, 1, …, of which some may be missing, or what else the labels may be."""
    faults = []
    for stem, here in seen.items():
        valid = here - {ignore_index}
        if 255 in valid and valid <= {0, 255}:
            what = f"holds the labels {sorted(valid)}, a 0/255 mask?"
            fix = "Use --task binary, or save 1 for 255, or use --ignore-index 255 if those pixels are unlabelled"
            faults.append(Fault(index.partners[stem], what, fix))
    every = set().union(*seen.values()) - {ignore_index}
    most = max(every, default=0)
    rest = max(every - {most}, default=0)
    where = next(index.partners[stem] for stem, here in seen.items() if most in here or most == 0)
    if not faults and most in _OFTEN_UNLABELLED and 0 < rest < _MOST_UNNAMED_CLASSES:
        faults.append(Fault(where, f"holds the label {most} beside 0 to {rest}, unlabelled?", _ignore(most)))
    elif not faults and most >= _MOST_UNNAMED_CLASSES:
        missing = sorted(set(range(most + 1)) - every)
        why = f"label {missing[0]} is missing" if missing else f"that is {most + 1} classes"
        fix = "Class numbers? Then name each class in classes.txt. Object numbers? Then use --task binary"
        faults.append(Fault(where, f"labels go up to {most} and {why}", fix))
    elif not faults and _count_up(seen, ignore_index):
        what = f"holds the labels 1 to {most}, others fewer, none with a gap; they are read as class numbers"
        faults.append(Fault(where, what, "Object numbers? Then use --task binary", fatal=False))
    elif not faults and every - {0} and (missing := sorted(set(range(1, most)) - every - {ignore_index})):
        without = f"{', '.join(map(str, missing[:5]))}{' …' if len(missing) > 5 else ''}"
        what = f"labels go up to {most} without {without}; they are read as class numbers"
        fix = "Object numbers? Then use --task binary. Names? Then write each into classes.txt, the absent too"
        faults.append(Fault(where, what, fix, fatal=False))
    first = "class 0" if where.suffix == ".csv" else "background"
    return [first, *(f"class {k}" for k in range(1, most + 1))], faults


def _count_up(seen: dict[str, set[int]], ignore_index: int) -> bool:
    """Whether every image holds 1, 2, 3 … up to a number of its own, as numbers of objects do and classes seldom."""
    numbers = [here - {0, ignore_index} for here in seen.values()]
    tops = {len(here) for here in numbers if here == set(range(1, len(here) + 1))}
    return len(tops - {0}) > 2 and max(tops) > 4 and all(len(here) in tops for here in numbers)


def one_sided(where: Path, sides: Mapping[str, Iterable[set[int]]], ignore_index: int) -> list[Fault]:
    """What is wrong if one side, "train" or "validation", holds no class but the background."""
    told = {"train": "to train on", "validation": "held back"}
    lacking = [side for side, seen in sides.items() if not set().union(*seen) - {0, ignore_index}]
    fix = "Choose both sides in split.csv so that each holds a class"
    return [Fault(where, f"of the images {told[side]} none holds a class but the background", fix) for side in lacking]


def often_unlabelled(labels: set[int], named: int) -> int | None:
    """The number that, beside smaller ones and with fewer names than that, usually says that nobody looked."""
    most = max(labels, default=0)
    return most if most in _OFTEN_UNLABELLED and named <= most else None


def _beside_255(seen: dict[str, set[int]], index: Index, ignore_index: int) -> list[Fault]:
    """Where all labels above 0 are foreground, what is unlabelled must not be."""
    for stem, here in seen.items():
        high = next((v for v in _OFTEN_UNLABELLED if v in here and v != ignore_index), None)
        if high is not None and here - {0, high, ignore_index}:
            what, fix = f"holds the label {high} beside others, read as foreground", f"--ignore-index {high} ignores it"
            return [Fault(index.partners[stem], what, fix, fatal=False)]
    return []


def _ignore(label: int) -> str:
    return f"Then use --ignore-index {label}, else name each class in classes.txt"
