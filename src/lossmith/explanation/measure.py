"""The numbers of an explanation: what every term of a loss says and pulls at, by class and by difficulty."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engine.tensors import wide
from ..inputs.batch import Batch
from ..inputs.pair import Elements
from ..loss import Loss
from ..losses.dense import ClassLoss, Dense
from ..losses.element import ElementLoss
from ..plan import Plan
from ..schedule import weighed
from .views import IGNORED, View, view

SURE = 0.05  # p of the label, below which a wrong answer is sure of itself


class Group(NamedTuple):
    """What a term makes of one class, or of one level of difficulty. A soft label counts in parts."""

    elements: float
    norm: float  # of the gradient there: √Σ (∂L/∂z)²
    share: float  # of Σ |∂L/∂z|; 0 where there is no gradient at all
    value: float | None = None


class Broken(NamedTuple):
    """What of a tensor is not finite, and the index of the first of it that counts."""

    nan: int
    inf: int
    first: tuple[int, ...]
    ignored: int  # how many of both lie in what is ignored

    @property
    def counted(self) -> int:
        """How many count."""
        return self.nan + self.inf - self.ignored


@dataclass(frozen=True)
class Term:
    """One loss of a sum, or all that read one input (`total`): with its weight, as it stands in the sum."""

    name: str
    slot: str  # the input that it reads
    value: float
    norm: float
    classes: dict[str, Group]
    levels: dict[str, Group]
    broken: Broken | None = None  # of its gradient
    pull: float = 0.0  # Σ |∂L/∂z| over the wrong elements
    still: int = 0  # how many wrong elements have no gradient
    total: bool = False


@dataclass(frozen=True)
class Input:
    """What was given of one input."""

    slot: str
    kind: str
    many: str
    shape: tuple[int, ...]
    elements: int
    ignored: dict[str, int]  # how many elements for which reason
    absent: list[str]  # classes that no element has
    rule: str  # what easy, hard and wrong mean
    saturated: float | None = None  # Σ |∂L/∂z| over the wrong elements, against what it were at logits of 0

    @property
    def counted(self) -> int:
        """How many elements count."""
        return self.elements - sum(self.ignored.values())


@dataclass
class Measured:
    """Everything that was measured of a call. `negative`: the losses below 0, with their value and lowest end."""

    inputs: list[Input] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    broken: dict[str, Broken] = field(default_factory=dict)  # of the tensors of the call, by name
    negative: list[tuple[str, float, float]] = field(default_factory=list)


def measure(loss: Loss, inputs: tuple[Any, ...], call: dict[str, Any], head: str = "", share: float = 1.0) -> Measured:
    """Of a loss called like this. `head`, `share`: of deep supervision, its name and its part of the sum."""
    plan = _alone(Plan.of(loss))
    found = Measured()
    with torch.inference_mode(False), torch.enable_grad():
        inputs, call = _leaves(loss, plan, inputs, call)
        batches = loss._read(plan, inputs, call)
        views = {slot: view(b, plan.slots[slot][1], _told(slot, inputs, call)) for slot, b in batches.items()}
        values = [term.value(batches[term.slot]) for _, term in plan.terms]
        totals: dict[str, Tensor] = {}
        for name, (weight, term), value in zip(plan.names, plan.terms, values, strict=True):
            seen, whole = views[term.slot], (share * weighed(weight, value)).sum()
            slope = _slope(whole, seen.tensor)
            totals[term.slot] = slope + totals.get(term.slot, torch.zeros_like(slope))
            of_classes = _per_class(term, batches[term.slot], seen, inputs, call)
            of_classes = {k: share * _priced(weight, v) for k, v in of_classes.items()}
            found.terms.append(_term(head + name, head + term.slot, float(whole.detach()), seen, slope, of_classes))
        for slot, seen in views.items():
            own = [term for term in found.terms if term.slot == head + slot]
            if len(own) > 1:
                total = sum(term.value for term in own)
                one = _term(f"{head}total", head + slot, total, seen, totals[slot], {})
                found.terms.append(replace(one, total=True))
            pull = found.terms[-1].pull if len(own) > 1 else own[0].pull
            undecided = _undecided_pull(loss, plan, slot, seen, inputs, call)
            found.inputs.append(_input(head + slot, seen, pull / (share * undecided) if undecided else None))
    found.broken = {
        head + name: b for name, x in _named(inputs, call, views) if (b := _broken(x, list(views.values())))
    }
    found.negative = _negative(plan, loss, [float(value.detach().sum()) for value in values])
    return found


def _alone(plan: Plan) -> Plan:
    """As if no other process held a part of the batch: this one is explained."""
    slots = {k: (reads, replace(reading, split=None), takes) for k, (reads, reading, takes) in plan.slots.items()}
    return plan._replace(slots=slots, processes=None, split=None)


def _leaf(x: Any) -> Any:
    """A tensor of its own that gradients are taken of; the one that was given is left as it is."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return x
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def _leaves(
    loss: Loss, plan: Plan, inputs: tuple[Any, ...], call: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with what is predicted as leaves, and nothing else in a graph."""

    def apart(x: Any) -> Any:
        if isinstance(x, tuple | list):
            return type(x)(apart(y) for y in x) if type(x) in (tuple, list) else x
        return x.clone() if isinstance(x, Tensor) and x.is_inference() else x.detach() if isinstance(x, Tensor) else x

    predicted = 2 if len(inputs) > 2 else 1  # a detector's head gives scores and edges
    given = tuple(_leaf(x) if k < predicted else apart(x) for k, x in enumerate(inputs))
    pairs = {
        name: (_leaf(x[0]), *map(apart, x[1:])) if name in plan.slots and isinstance(x, tuple | list) and x else x
        for name, x in call.items()
    }
    return given, {k: x if k in plan.slots else apart(x) for k, x in pairs.items()}


def _told(slot: str, inputs: tuple[Any, ...], call: dict[str, Any]) -> bool:
    """Whether the input has a target."""
    pair = (*(inputs or call[slot]), None)
    return pair[1] is not None


def _slope(value: Tensor, of: Tensor) -> Tensor:
    """∂ value / ∂ of, 0 where it does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(of)
    (slope,) = torch.autograd.grad(value, of, retain_graph=True, allow_unused=True)
    return torch.zeros_like(of) if slope is None else slope.detach()


def _term(name: str, slot: str, value: float, seen: View, slope: Tensor, of_classes: dict[str, float]) -> Term:
    finite = slope.isfinite()
    known = wide(slope.detach()).masked_fill(~finite, 0.0)
    size, square = seen.of_element(known.abs()), seen.of_element(known.square())
    whole = float(size.sum())

    def groups(by: Any, values: dict[str, float]) -> dict[str, Group]:
        counts, sizes, squares = by(torch.ones_like(size)), by(size), by(square)
        return {
            k: Group(counts[k], squares[k] ** 0.5, sizes[k] / whole if whole else 0.0, values.get(k)) for k in counts
        }

    return Term(
        name,
        slot,
        value,
        float(square.sum()) ** 0.5,
        groups(seen.by_class, of_classes),
        groups(seen.by_level, {}),
        _broken(slope, [seen]),
        float(size[seen.wrong].sum()),
        int((size[seen.wrong] == 0).sum()),
    )


def _input(slot: str, seen: View, saturated: float | None) -> Input:
    absent = seen.absent() if seen.counted else []
    shape = tuple(seen.tensor.shape)
    return Input(slot, seen.kind, seen.many, shape, seen.elements, seen.why, absent, seen.rule, saturated)


def _undecided_pull(
    loss: Loss, plan: Plan, slot: str, seen: View, inputs: tuple[Any, ...], call: dict[str, Any]
) -> float:
    """Σ |∂L/∂z| over the wrong elements if all logits were 0, where most of those are sure of themselves; else 0."""
    sure = seen.p[seen.wrong]
    if len(inputs) > 2 or not seen.logits or not sure.numel() or not float(sure.median()) < SURE:
        return 0.0  # of a detector's head the parts depend on each other
    pair = inputs or call[slot]
    undecided = (torch.zeros_like(pair[0], requires_grad=True), *pair[1:])
    given, more = (undecided, call) if inputs else ((), {**call, slot: undecided})
    batch = loss._read(plan, given, more)[slot]
    tensor = view(batch, plan.slots[slot][1], _told(slot, given, more)).tensor
    slopes = [_slope(weighed(w, term.value(batch)).sum(), tensor) for w, term in plan.terms if term.slot == slot]
    slope = wide(torch.stack(slopes).sum(0)).abs().nan_to_num(0.0)
    return float(seen.of_element(slope)[seen.wrong].sum())


def _per_class(term: Any, batch: Any, seen: View, inputs: tuple[Any, ...], call: dict[str, Any]) -> dict[str, float]:
    """The value of each class, without the term's weight: of losses that have one, theirs; of losses that have one
    number an element, the mean over the elements of the class."""
    from ..losses.pixel import PixelLoss  # not above: the order of the catalogue is that of its first imports

    with torch.no_grad():
        if isinstance(term, ElementLoss) and isinstance(batch, Elements):
            return _means(seen, batch.weighed(term.amount(batch))[0])
        if isinstance(term, PixelLoss):
            return _means(seen, _every_pixel(term, inputs, call).reshape(seen.hidden.shape))
        if not isinstance(term, ClassLoss) or not isinstance(batch, Batch):
            return {}
        values = term.class_values(batch)
        if values is None or values.ndim != 1:
            return {}
        if batch.task == "binary":
            names = seen.names[-len(values) :]
        else:
            names = tuple(seen.names[k] for k in term._included(batch))
        return dict(zip(names, values.tolist(), strict=True)) if len(names) == len(values) else {}


def _means(seen: View, values: Tensor) -> dict[str, float]:
    counts, sums = seen.by_class(torch.ones_like(values)), seen.by_class(values)
    return {k: sums[k] / counts[k] for k in counts if counts[k] and k != IGNORED}


def _every_pixel(term: Dense, inputs: tuple[Any, ...], call: dict[str, Any]) -> Tensor:
    """w ℓ of every pixel."""
    twin = copy.copy(term)
    twin.__dict__ = {**term.__dict__, "reduction": "none", "group": None}  # no setting is assigned: plans stay good
    pair = inputs or call[term.slot]
    of_slot = {k: x.get(term.slot) if isinstance(x, dict) else x for k, x in call.items()}
    value: Tensor = twin(*pair, **{k: x for k, x in of_slot.items() if k in twin.takes - {"denominator"}})
    return value


def _named(inputs: tuple[Any, ...], call: dict[str, Any], views: dict[str, View]) -> list[tuple[str, Any]]:
    """The tensors of a call, by what an error calls them."""
    own = "logits" if next(iter(views.values())).logits else "prediction"
    names = ("logits", "edges", "points", "strides", "labels", "boxes") if len(inputs) > 2 else (own, "target")
    found: list[tuple[str, Any]] = list(zip(names, inputs, strict=False))
    for name, x in call.items():
        if isinstance(x, tuple | list) and len(x) == 2:
            found += [(f"{name} input", x[0]), (f"{name} target", x[1])]
        elif isinstance(x, dict):
            found += [(f"{name} of {slot}", y) for slot, y in x.items()]
        else:
            found.append((name, x))
    pairs = [(name, x) for name, x in found if isinstance(x, tuple | list)]
    found += [(f"{name}[{k}]", y) for name, x in pairs for k, y in enumerate(x)]
    return [(name, x) for name, x in found if isinstance(x, Tensor)]


def _broken(x: Tensor, views: list[View]) -> Broken | None:
    """None if all is finite."""
    if not x.is_floating_point():
        return None
    x = x.detach()
    bad = ~x.isfinite()
    if not bool(bad.any()):
        return None
    hidden = next((hidden for seen in views if (hidden := seen.hides(x)) is not None), torch.zeros_like(bad))
    first = bad & ~hidden if bool((bad & ~hidden).any()) else bad
    nan = int(x.isnan().sum())
    return Broken(nan, int(bad.sum()) - nan, tuple(first.nonzero()[0].tolist()), int((bad & hidden).sum()))


def _negative(plan: Plan, loss: Loss, values: list[float]) -> list[tuple[str, float, float]]:
    """The addends of a sum that are below 0, with their weight, and the lowest value that each can have without it."""
    found, at = [], 0
    for weight, addend in loss.addends:
        own = list(zip(plan.terms, values, strict=True))[at : at + len(addend.terms)]
        at += len(addend.terms)
        value = sum(_priced(w, v) for (w, _), v in own)
        if value < 0:
            turned = _priced(weight, 1.0) < 0
            lowest = addend.range[0] if hasattr(addend, "range") else -float("inf")
            found.append((f"{addend!r}", value, float("nan") if turned else lowest))
    return found


def _priced(weight: Any, value: float) -> float:
    """A value times the weight that it has today."""
    return float(weighed(weight, torch.tensor(value, dtype=torch.float64, device="cpu")))
