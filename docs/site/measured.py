"""What a loss gives and costs, measured on small fixed images in float64 and with the plain engine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

import torch
from tables import number
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import lossmith as ls
from lossmith.names import SHARED, Row

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


def levels(row: Row, n_labels: int, case: str) -> str:
    """The value on the picture with one channel (2 labels), or with three classes."""
    labels = picture(n_labels)
    task = "binary" if n_labels == 2 else "multiclass"
    if task not in row.cls.tasks or (n_labels > 2 and getattr(row.cls, "hinge", False)):  # no margin under a softmax
        return "–"
    said = {"perfect": labels, "uniform": labels, "worst": (labels + 1) % n_labels}[case]
    logits = answer(said, n_labels, 0.0 if case == "uniform" else SURE)
    return number(float(build(row, n_labels)(logits, labels)))


class Absent(NamedTuple):
    """An image without the foreground: what it costs to find none, one false positive, and nothing but foreground."""

    option: str  # of `absent`; "" where a loss has no such setting
    values: tuple[float, float, float]
    words: str


def absent(row: Row) -> list[Absent]:
    """For each value of `absent`, the default first."""
    target = torch.zeros(1, 16, 16, dtype=torch.long)
    said = [torch.zeros_like(target), torch.zeros_like(target), torch.ones_like(target)]
    said[1][0, 5, 5] = 1

    def found(option: str, **settings: Any) -> Absent:
        none, one, all_wrong = (float(build(row, **settings)(answer(x, 2, SURE), target)) for x in said)
        if abs(all_wrong - none) < 1e-6:
            words = "costs nothing" if abs(one - none) < 1e-6 else "costs, but everywhere is free"
        elif abs(one - none) > 0.9 * abs(all_wrong - none):
            words = "the first costs all"
        else:
            words = "each costs" if all_wrong > none else "is paid for"
        return Absent(option, (none, one, all_wrong), words)

    if "absent" not in row.fields:
        return [found("")]
    return [found(option, absent=option) for option in get_args(row.cls.hints["absent"])]


# ---- their knobs ----------------------------------------------------------------------------------------------------


class Knob(NamedTuple):
    """A setting that is moved, and what two false positives and two false negatives cost before and after."""

    name: str
    before: Any
    after: Any
    fp: tuple[float, float]
    fn: tuple[float, float]
    words: str


def knobs(row: Row) -> Iterator[Knob]:
    """The settings of a loss's own, each moved."""
    before = build(row)
    costs = prices(before)
    for name in row.fields:
        base = before.settings()[name]
        for value in [] if name in SHARED else moved(row, name, base):
            after = prices(build(row, **{name: value}))
            fp, fn = (costs[0], after[0]), (costs[1], after[1])
            yield Knob(name, base, value, fp, fn, consequence(fp, fn))


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


# ---- what a call takes ----------------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Counts what torch is asked to compute: what makes a view, wraps a number or allocates is left out."""

    IDLE = ("view", "expand", "unsqueeze", "squeeze", "select", "slice", "detach", "transpose", "alias", "unbind", "t",
            "scalar_tensor", "_local_scalar_dense", "lift_fresh")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in self.IDLE
        return func(*args, **(kwargs or {}))


class Cost(NamedTuple):
    """How a call on (2, 3, 64, 64) logits, or one channel of that, is served, forward and backward."""

    kernels: bool  # whether the kernels of the CPU serve it
    operations: int  # of the plain engine


def cost(row: Row) -> Cost:
    channels = 1 if getattr(row.cls, "hinge", False) or "multiclass" not in row.cls.tasks else 3
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, 64, 64, generator=generator, requires_grad=True)
    labels = torch.randint(0, max(2, channels), (2, 64, 64), generator=generator)
    loss = build(row, max(2, channels))
    with ls.use_engine("plain"), Operations() as done:
        loss(logits, labels).backward()
    try:
        with ls.use_engine("numba"):
            loss(logits, labels).backward()
    except RuntimeError:
        return Cost(False, done.count)
    return Cost(True, done.count)
