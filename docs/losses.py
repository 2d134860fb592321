"""Writes the tables of docs/losses.md: `python docs/losses.py`; with `--check` says whether they are current.

Everything in the tables is computed on small fixed images, in float64 and with the plain engine. A loss that enters the
catalogue enters the tables. The rivals need `pip install -c constraints.txt ".[bench]"`; one that is not there is
written as "not installed".
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import rivals
import torch
from tables import cells, filled, number, table_head, update
from torch import Tensor

import lossmith as ls
from lossmith.losses.dense import Dense
from lossmith.names import ALIASES, SHARED, Row

PAGE = Path(__file__).with_name("losses.md")
FORBIDDEN = {2: [[0, 1], [1, 0]], 3: [[0, 1, 1], [1, 0, 1], [1, 1, 0]]}
SURE = 30.0  # the logit of a certain answer: p = 1 − 9e-14
MOVES: dict[tuple[str, str], list[Any]] = {  # where doubling says nothing
    ("ohem", "thresh"): [0.95],
    ("ohem", "min_kept"): [64],
    ("ce", "pos_weight"): [3.0],
    ("wce", "clamp"): [(0.5, 2.0)],
    ("focal", "alpha"): [0.25, 0.75],
    ("power_ce", "frequencies"): [[9.0, 1.0]],
    ("explog", "frequencies"): [[9.0, 1.0]],
    ("unified_focal", "rare"): [(0,)],
    ("nonadjacency", "forbidden"): [[[0, 1], [0, 0]]],
}
START: dict[str, dict[str, Any]] = {"ohem": {"min_kept": 8}}  # a default that hides the other knob


def build(row: Row, n_labels: int = 2, **settings: Any) -> ls.Loss:
    """The loss as it comes, with what it cannot be called without."""
    given = {**START.get(row.name, {}), **settings}
    if "forbidden" in row.fields and row.fields["forbidden"] is None and "forbidden" not in given:
        given["forbidden"] = FORBIDDEN[n_labels]
    return row.cls(**given)


def answer(labels: Tensor, n_labels: int, logit: float) -> Tensor:
    """Logits of certain answers: binary ±logit; else the class by that much above the others."""
    if n_labels == 2:
        return torch.where(labels > 0, logit, -logit).double().unsqueeze(1)
    return logit * torch.nn.functional.one_hot(labels, n_labels).movedim(-1, 1).double()


def picture(n_labels: int = 2) -> Tensor:
    """16 × 16 pixels: a square of 6 × 6, and with three labels another of 3 × 3."""
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[0, 3:9, 3:9] = 1
    if n_labels == 3:
        labels[0, 11:14, 11:14] = 2
    return labels


def dense() -> list[Row]:
    return [row for row in ls.catalogue() if issubclass(row.cls, Dense)]


# ---- the losses -----------------------------------------------------------------------------------------------------


def losses() -> Iterator[str]:
    yield from table_head(
        "loss", "class", "family", "paper", "range", "perfect", "uniform", "worst", "absent: none, one, all wrong"
    )
    for row in dense():
        names = [row.name, *(alias for alias, name in ALIASES.items() if name == row.name)]
        yield cells(
            ", ".join(f"`{name}`" for name in names),
            f"`{row.cls.__name__}`",
            row.family,
            row.paper or "none",
            span(row.range),
            *(" / ".join(levels(row, n, case) for n in (2, 3)) for case in ("perfect", "uniform", "worst")),
            absent(row),
        )


def levels(row: Row, n_labels: int, case: str) -> str:
    """The value on the picture with one channel (2 labels), or with three classes."""
    labels = picture(n_labels)
    task = "binary" if n_labels == 2 else "multiclass"
    if task not in row.cls.tasks or (n_labels > 2 and getattr(row.cls, "hinge", False)):  # no margin under a softmax
        return "–"
    said = {"perfect": labels, "uniform": labels, "worst": (labels + 1) % n_labels}[case]
    logits = answer(said, n_labels, 0.0 if case == "uniform" else SURE)
    return number(float(build(row, n_labels)(logits, labels)))


def absent(row: Row) -> str:
    """The value on an image without the foreground: found to be, with one false positive, with nothing else."""
    target = torch.zeros(1, 16, 16, dtype=torch.long)
    said = [torch.zeros_like(target), torch.zeros_like(target), torch.ones_like(target)]
    said[1][0, 5, 5] = 1

    def values(**settings: Any) -> str:
        found = [float(build(row, **settings)(answer(x, 2, SURE), target)) for x in said]
        rise = found[2] - found[0]
        if abs(rise) < 1e-6:
            words = "costs nothing" if abs(found[1] - found[0]) < 1e-6 else "costs, but everywhere is free"
        elif abs(found[1] - found[0]) > 0.9 * abs(rise):
            words = "the first costs all"
        else:
            words = "each costs" if rise > 0 else "is paid for"
        return f"{' / '.join(map(number, found))}: {words}"

    if "absent" not in row.fields:
        return values()
    return "; ".join(f'"{option}": {values(absent=option)}' for option in get_args(row.cls.hints["absent"]))


# ---- their knobs ----------------------------------------------------------------------------------------------------


def knobs() -> Iterator[str]:
    yield from table_head("loss", "knob", "two false positives cost", "two false negatives cost", "so")
    for row in dense():
        for name in row.fields:
            if name in SHARED:
                continue
            base = build(row).settings()[name]
            for value in moved(row, name, base):
                fp, fn = zip(prices(build(row)), prices(build(row, **{name: value})), strict=True)
                yield cells(
                    f"`{row.name}`",
                    f"`{name}` {said(base)} → {said(value)}",
                    " → ".join(map(number, fp)),
                    " → ".join(map(number, fn)),
                    consequence(fp, fn),
                )


def prices(loss: ls.Loss) -> tuple[float, float]:
    """What two false positives more cost, and two false negatives: one of each at the edge of the square, one far."""
    labels = picture()
    right = answer(labels, 2, math.log(9))  # p = 0.9
    positive, negative = right.clone(), right.clone()
    for y, x in [(9, 5), (13, 13)]:
        positive[0, 0, y, x] *= -1
    for y, x in [(3, 5), (5, 6)]:
        negative[0, 0, y, x] *= -1
    base = float(loss(right, labels))
    return float(loss(positive, labels)) - base, float(loss(negative, labels)) - base


def moved(row: Row, name: str, value: Any) -> list[Any]:
    """Other values of a knob: what the table of moves says, the other choices, or twice as much."""
    if (row.name, name) in MOVES:
        return MOVES[row.name, name]
    hint = row.cls.hints[name]
    if get_origin(hint) is Literal:
        return [option for option in get_args(hint) if option != value]
    if isinstance(value, bool):
        return [not value]
    if name == "spacing":
        return [(2.0, 2.0)]
    if name in ("kernel_size", "window", "theta0", "theta"):
        return [value + 2]
    if name == "bins":
        return [16]
    top = max((option.high for option in get_args(hint) if hasattr(option, "high")), default=math.inf)
    return [2 * value if 0 < 2 * value <= top else (value + min(top, value + 1.0)) / 2]


def consequence(fp: tuple[float, ...], fn: tuple[float, ...]) -> str:
    words = [f"{kind} {change}" for kind, pair in (("FP", fp), ("FN", fn)) if (change := trend(*pair)) != "same"]
    if not words:
        return "neither"
    if len(words) == 2 and trend(*fp) == trend(*fn):
        words = [f"both {trend(*fp)}"]
    text = ", ".join(words)
    if min(*fp, *fn) > 1e-9:
        balance = (fn[1] / fp[1]) / (fn[0] / fp[0])
        text += ": towards recall" if balance > 1.02 else ": towards precision" if balance < 0.98 else ""
    return text


def trend(before: float, after: float) -> str:
    if math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-7):
        return "same"
    return "dearer" if after > before else "cheaper"


# ---- losses of boxes, distributions and numbers ----------------------------------------------------------------------


def others() -> Iterator[str]:
    rows = [row for row in ls.catalogue() if not issubclass(row.cls, Dense)]
    if not rows:
        yield "There are none in this version."
        return
    yield from table_head("loss", "class", "family", "paper", "range", "values")
    for row in rows:
        yield cells(
            f"`{row.name}`", f"`{row.cls.__name__}`", row.family, row.paper or "none", span(row.range), examples(row)
        )


def examples(row: Row) -> str:
    """Values on the small cases that a family is judged by."""
    if row.family == "box":
        first = [0.0, 0.0, 4.0, 4.0]
        cases = {"same": first, "half as wide": [0.0, 0.0, 2.0, 4.0], "inside": [1.0, 1.0, 3.0, 3.0],
                 "beside": [6.0, 0.0, 10.0, 4.0]}  # fmt: skip
        found = {name: (torch.tensor([box]).double(), torch.tensor([first]).double()) for name, box in cases.items()}
    elif row.family == "regression":
        found = {f"r = {r:g}": (torch.tensor([r]).double(), torch.zeros(1).double()) for r in (0.0, 0.5, 2.0)}
    elif row.cls.slot == "edge":
        z = torch.tensor([[0.0, 1.0, 2.0, 1.0, 0.0]]).double()
        found = {f"y = {y:g}": (z, torch.tensor([y]).double()) for y in (2.0, 2.3, 4.0)}
    elif row.name == "gfl":
        return "see `lossmith show gfl`: it takes a detector's outputs"
    else:
        z = torch.tensor([[0.0], [0.847], [SURE]]).double()
        found = {}
        for y in (0.0, 0.7, 1.0):
            rising = [number(float(build(row)(x, torch.full_like(x, y)))) for x in z.unsqueeze(1)]
            found[y] = " / ".join(rising)
        return "σ = 0.5 / 0.7 / 1: " + "; ".join(f"{text} for target {y:g}" for y, text in found.items())
    return "; ".join(f"{name}: {number(float(build(row)(*pair)))}" for name, pair in found.items())


# ---- the page -------------------------------------------------------------------------------------------------------


def said(value: Any) -> str:
    return f"`{value!r}`"


def span(ends: tuple[float, float]) -> str:
    low, high = (("∞" if x > 0 else "−∞") if math.isinf(x) else f"{x:.4g}".replace("-", "−") for x in ends)
    return f"{'(' if math.isinf(ends[0]) else '['}{low}, {high}{')' if math.isinf(ends[1]) else ']'}"


SECTIONS = {
    "losses": losses,
    "knobs": knobs,
    "others": others,
    "values": rivals.values,
    "situations": rivals.situations,
}


def section(name: str) -> str:
    with ls.use_engine("plain"), torch.no_grad() if name != "situations" else torch.enable_grad():
        return "\n".join(SECTIONS[name]())


def written(page: str, names: list[str]) -> str:
    """The page with these sections made anew."""
    for name in names:
        page = filled(page, name, section(name), PAGE)
    return page


if __name__ == "__main__":
    sys.exit(update(PAGE, lambda page: written(page, list(SECTIONS)), (__doc__ or "").splitlines()[0]))
