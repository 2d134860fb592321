"""What the labels of a folder are called, and what is wrong with the labels that its images hold."""

from __future__ import annotations

from lossmith.lab.data.faults import Fault
from lossmith.lab.data.index import Index

_MOST_UNNAMED_CLASSES = 32


def name_classes(
    seen: dict[str, set[int]], index: Index, task: str, ignore_index: int
) -> tuple[list[str], list[Fault]]:
    """What the labels are called, from the labels that each image holds; and what is wrong with them."""
    names = index.classes
    faults: list[Fault] = []
    if task == "binary":
        seen = {stem: {v if v == ignore_index else int(v > 0) for v in here} for stem, here in seen.items()}
        classes = names if len(names) == 2 else ["background", "foreground"]
    elif names:
        classes = names
    else:
        classes, faults = _default_names(seen, index, ignore_index)
    if faults:
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
    every = set().union(*seen.values())
    if not any(v > 0 and v != ignore_index for v in every):
        what = "every label is 0, nothing to learn" if where.suffix == ".csv" else ""
        faults.append(Fault(where if what else where.parent, what or "every mask is background only, nothing to learn"))
    elif names and task != "binary":
        absent = [name for k, name in enumerate(names) if k not in every]
        table, fix = index.folder / "classes.txt", "its scores will mean nothing"
        faults += [Fault(table, f"names {name!r}, and no label is that", fix, fatal=False) for name in absent]
    return classes, faults


def _default_names(seen: dict[str, set[int]], index: Index, ignore_index: int) -> tuple[list[str], list[Fault]]:
    """Names for labels 0, 1, …, without gaps: a gap is more often a 0/255 mask or instance ids than a missing class."""
    faults = []
    for stem, here in seen.items():
        valid = here - {ignore_index}
        if 255 in valid and valid <= {0, 255}:
            what = f"holds the labels {sorted(valid)}, a 0/255 mask?"
            fix = "Use --task binary, or save 1 for 255, or use --ignore-index 255 if those pixels are unlabelled"
            faults.append(Fault(index.partners[stem], what, fix))
    every = set().union(*seen.values()) - {ignore_index}
    most = max(every, default=0)
    gaps = sorted(set(range(most + 1)) - every)
    if not faults and (most >= _MOST_UNNAMED_CLASSES or gaps):
        why = f"label {gaps[0]} is missing" if gaps else f"that is {most + 1} classes"
        where = next(index.partners[stem] for stem, here in seen.items() if most in here)
        fix = "Class numbers? Then name each class in classes.txt. Object numbers? Then use --task binary"
        faults.append(Fault(where, f"labels go up to {most} and {why}", fix))
    first = "class 0" if next(iter(index.partners.values())).suffix == ".csv" else "background"
    return [first, *(f"class {k}" for k in range(1, most + 1))], faults
