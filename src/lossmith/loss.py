"""Loss: typed settings and one formula. The algebra of sums, and the one place where `reduction` has a meaning."""

from __future__ import annotations

import copy
import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .arithmetic import ratio
from .checks import Denominator
from .engine.contract import Want
from .engine.images import Count, Images, Split, alone, bind, mean, together
from .engine.processes import Gradient, Group
from .inputs.call import by_slot, returned, unwrapped
from .papers import stated
from .plan import Plan
from .schedule import Ramp, Schedule, Weight, leave_out_ramps, named, names_of_shared, number, product, weighed
from .settings import Settings, changes

Reduction = Literal["mean", "sum", "none"]

CATALOGUE: dict[str, type[Loss]] = {}
SEES_A_BATCH = {"value", "_value", "class_losses", "groups", "pixels", "chosen", "scale", "hard", "sizes"}


class Loss(Settings):
    """Base of all losses: a module that is called with logits and a target.

    A loss that users can name says `name`, `range` and `source`, declares what it needs of the engine in `wants`, and
    turns a `Batch` into a value in `value`. Its family does the rest. Losses add up: `dice + 0.5 * focal` is a loss
    that reads the logits once.

    Shapes:
        multiclass: logits (N, C, *S) with C >= 2, integer labels (N, *S) or (N, 1, *S).
        binary: logits (N, 1, *S), target (N, *S) or (N, 1, *S), integer, bool or real in [0, 1].
        `task="multiclass"`: also soft labels (N, C, *S) that sum to 1 over the classes.
        `task="multilabel"`: a yes or no, or a probability, per channel (N, C, *S); or labels (N, *S), one class against
        the rest, where C means none.

    The input is always logits. Probabilities p strictly inside (0, 1) can be given as p.log() or p.logit().

    Args:
        reduction: "mean", "sum" or "none"; see the family.
        group: a process group of torch.distributed, or "world": the batch is what all of its processes hold. Value and
            gradient are those of one process with the whole batch. None: the batch is what the call is given.
        gradient: what becomes of the processes' gradients: their "mean" is taken, as DistributedDataParallel does, or
            their "sum". With "mean" each is its share times the number of processes.
        split: what a process holds: other "images", or of the same images another slab along the first axis of
            "space". Losses that look at neighbours refuse "space".
    """

    name: ClassVar[str]
    family: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    source: ClassVar[str] = ""  # the paper that it is of
    slot: ClassVar[str] = "score"  # what the input is called when a sum reads several
    inputs: ClassVar[Callable[..., Any]]  # what reads the input: of a reading, the input, the target and keywords
    needs: ClassVar[str] = "another kind of input"  # in words, what it reads instead of logits and labels; "" for none
    spatial: ClassVar[bool] = False  # whether it matters to it which pixels lie side by side
    counts: ClassVar[frozenset[str]] = frozenset()  # settings that can be counted from labels
    __array_ufunc__: ClassVar[None] = None  # NumPy's numbers leave the product to us
    takes: ClassVar[frozenset[str]] = frozenset({"weight"})  # keywords of the call besides the input itself
    splits: ClassVar[frozenset[str]] = frozenset()  # how a batch may be split with value and gradient exact
    halo: ClassVar[str] = ""  # in words, what of the rest of an image it needs, where it cannot be split in space
    how_it_is_run = frozenset({"group", "gradient", "split"})
    reduction: Reduction = "mean"
    group: Group = None
    gradient: Gradient = "mean"
    split: Split = "images"

    def __init_subclass__(cls, part: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if SEES_A_BATCH & vars(cls).keys() and "splits" not in vars(cls):
            cls.splits = frozenset()  # whether what it makes of a batch is that of all images, its author has to say
        cls.counts = cls.counts.intersection(cls.fields)
        if isinstance(vars(cls).get("paper"), str):  # what `source` was called before there was `paper()`
            cls.source = vars(cls)["paper"]
            delattr(cls, "paper")
        if "name" in vars(cls):
            CATALOGUE[cls.name] = cls
        else:
            cls.name = part or cls.__name__  # part of a recipe, a family, or a loss that only its own code uses

    @classmethod
    def paper(cls, **settings: Any) -> Self:
        """The loss as its paper has it, by `lossmith.papers`, and changes by name: `FocalLoss.paper(ignore_index=255)`.

        Raises:
            ValueError: no settings of a paper are known.
        """
        return cls(**{**stated(cls.name, cls.__name__), **settings})

    @property
    def terms(self) -> list[tuple[Weight, Loss]]:
        """The single losses of a sum with their weights; a single loss is its only term."""
        return [(1.0, self)]

    @property
    def addends(self) -> list[tuple[Weight, Loss]]:
        """What a sum was written as: its terms, but a recipe is one."""
        return [(1.0, self)]

    def wants(self) -> Want:
        """What the loss needs of the engine's pass besides n, t and tt."""
        return Want()

    def value(self, batch: Any) -> Any:
        """The reduced loss; an `Across` that it follows from where others hold a part of the batch."""
        raise NotImplementedError

    def class_values(self, batch: Any) -> Any:
        """One value per class for the log, (C,), where the loss has such; None elsewhere."""
        return None

    def forward(self, *inputs: Tensor, **call: Any) -> Tensor:
        """The loss of `loss(logits, target)`; a sum over several inputs is called `loss(score=(logits, target), ...)`.

        Keywords:
            weight: per sample (N,), weights the mean over images, or per pixel (N, *S), enters every sum; 0 ignores.
            denominator: what the mean of pixel losses divides by, for example the number of positives.

        Returns:
            a scalar in float32 (float64 for float64 logits), or with reduction="none" the family's natural shape.
        """
        plan = self._plan()
        value: Tensor = plan.settled(self.pending(plan, inputs, call))
        return value

    def pending(self, plan: Plan, inputs: tuple[Any, ...], call: dict[str, Any]) -> Any:
        """The loss, or an `Across` that it follows from where others hold a part of the batch."""
        batches = self._read(plan, inputs, call)
        values: Any = (term.value(batches[term.slot]) for _, term in plan.terms)

        def total(values: Iterable[Tensor]) -> Tensor:
            return returned(_summed(plan.terms, values), inputs, call, plan.terms[0][1].slot)

        return total(values) if plan.split is None else bind(together(list(values)), total)

    def parts(self, *inputs: Tensor, per_class: bool = False, **call: Any) -> dict[str, Tensor]:
        """The weighted terms by name, detached, for the log; they add up to the loss.

        With `per_class=True` the region losses give one value per class, (C,), instead of their mean over the classes.
        """
        plan = self._plan()
        with torch.no_grad():
            parts: dict[str, Tensor] = plan.settled(self.pending_parts(plan, inputs, call, per_class))
        return parts

    def pending_parts(self, plan: Plan, inputs: tuple[Any, ...], call: dict[str, Any], per_class: bool) -> Any:
        """The terms by name, or an `Across` that they follow from."""
        batches, values = self._read(plan, inputs, call), []
        for _, term in plan.terms:
            value = term.class_values(batches[term.slot]) if per_class else None
            values.append(term.value(batches[term.slot]) if value is None else value)

        def named(values: list[Tensor]) -> dict[str, Tensor]:
            weighted = zip(plan.names, plan.terms, values, strict=True)
            return {
                name: returned(weighed(weight, value), inputs, call, term.slot).detach()
                for name, (weight, term), value in weighted
            }

        return bind(together(values), named)

    @classmethod
    def reading(cls, terms: Sequence[Any], who: str) -> Any:
        """What losses of this kind, which read one input, want of a call."""
        raise NotImplementedError

    def _read(self, plan: Plan, inputs: tuple[Any, ...], call: dict[str, Any]) -> dict[str, Any]:
        """One batch per slot, of ordinary tensors, that no setting is without effect on."""
        if call or not all(type(x) is Tensor for x in inputs):
            inputs, call = unwrapped(plan.who, (inputs, call), plan.formats, plan.processes is not None)
        batches = self.open(plan, inputs, call)
        for slot, addend in plan.addends:
            addend.suits(batches[slot])
        return batches

    def suits(self, batch: Any) -> None:
        """Raises a ValueError that names a setting which would have no effect on this input."""

    @property
    def slot_of_sum(self) -> str:
        """The slot of its first term."""
        return self.terms[0][1].slot

    def open(self, plan: Plan, inputs: tuple[Any, ...], call: dict[str, Any]) -> dict[str, Any]:
        """Reads the call: one batch per slot."""
        slots, who = plan.slots, plan.who
        pairs = by_slot(who, self, list(slots), inputs, call)
        if not call:
            return {slot: inputs_of(reading, *pairs[slot]) for slot, (inputs_of, reading, _) in slots.items()}
        options = {k: v for k, v in call.items() if k not in slots}
        for key in options.keys() - plan.takes:
            some = f"it takes {', '.join(sorted(plan.takes))}" if plan.takes else "it takes no keywords"
            raise TypeError(f"{self!r} takes no {key!r} in a call; {some}")
        for key, value in options.items():
            if isinstance(value, dict) and value.keys() - slots.keys():
                named, there = (", ".join(map(repr, sorted(names))) for names in (value.keys() - slots.keys(), slots))
                raise TypeError(f"{who}: {key} names the inputs {named}, but there are {there}")
        batches = {}
        for slot, (inputs_of, reading, takes) in slots.items():
            given = {k: v.get(slot) if isinstance(v, dict) else v for k, v in options.items()}
            accepted: dict[str, Any] = {k: v for k, v in given.items() if k in takes}
            batches[slot] = inputs_of(reading, *pairs[slot], **accepted)
        return batches

    def _plan(self) -> Plan:
        """What is known of a call before there is one; worked out again after a setting was assigned."""
        if torch.compiler.is_compiling():
            return Plan.of(self)
        plan = _PLANS.get(self)
        if plan is None or plan.changes != changes():
            plan = _PLANS[self] = Plan.of(self)
        return plan

    @property
    def shares(self) -> Loss:
        """The loss whose settings say with which processes it shares a batch."""
        return self

    def splits_into(self, split: Split | None) -> None:
        """Raises a ValueError that says why where others hold a part of the batch and the loss would not be exact."""
        if split is None or split in self.splits:
            return
        if self.halo and split == "space":
            raise ValueError(
                f"{type(self).__name__}: split='space' gives every process a part of each image, and this loss needs "
                f"{self.halo}; split the batch by images, or leave it out"
            )
        raise ValueError(
            f"{type(self).__name__}: it does not say that it is exact where a batch is split by {split}; "
            "`splits` of its class is for those that are"
        )

    def _who(self) -> str:
        return " + ".join(dict.fromkeys(type(term).__name__ for _, term in self.terms))

    def reduce(self, images: Images, amount: Tensor, weight: Tensor | float, denominator: Denominator = None) -> Any:
        """The only place that knows what `reduction` means: Σ w ℓ / Σ w, Σ w ℓ, or w ℓ as it is.

        Where nothing is valid, 0 / 0, the loss is 0 and still has a graph.

        Raises:
            ValueError: a denominator where there is no mean.
        """
        if denominator is not None and self.reduction != "mean":
            raise ValueError(
                f"{type(self).__name__}: a denominator belongs to reduction='mean', not to {self.reduction!r}"
            )
        if self.reduction == "none":
            return amount
        total = amount.sum()
        if self.reduction == "sum":
            return images.across(alone, total)
        if denominator is None:
            return images.across(mean, total, weight.sum() if isinstance(weight, Tensor) else weight)
        given, least = denominator if isinstance(denominator, Count) else (denominator, None)

        def over(total: Tensor, by: Tensor | float) -> Tensor:
            by = by.to(total) if isinstance(by, Tensor) else total.new_full((), by)
            return ratio(total, by if least is None else by.clamp(min=least))

        return images.across(over, total, given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy in the same group: a group cannot be copied, and there is but one."""
        twin = type(self).__new__(type(self))
        memo |= {id(self): twin, id(self.group): self.group}
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def step(self) -> None:
        """Advances the schedules of the weights; call it once an epoch."""
        for module in self.modules():
            if isinstance(module, Ramp):
                module.step()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        leave_out_ramps(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __add__(self, other: Any) -> Loss:
        if isinstance(other, Loss):
            return Sum([(1.0, self), (1.0, other)])
        return NotImplemented

    def __radd__(self, other: Any) -> Loss:
        if isinstance(other, numbers.Real) and other == 0:
            return self  # so that the built-in sum() works
        return NotImplemented

    def __mul__(self, factor: Any) -> Loss:
        by = factor if isinstance(factor, Schedule) else number(factor)
        return NotImplemented if by is None else Sum([(by, self)])

    __rmul__ = __mul__

    def __neg__(self) -> Loss:
        return self * -1.0

    def __sub__(self, other: Any) -> Loss:
        if isinstance(other, Loss):
            return Sum([(1.0, self), (-1.0, other)])
        return NotImplemented


_PLANS: WeakKeyDictionary[Loss, Plan] = WeakKeyDictionary()


class Sum(Loss):
    """Losses added with weights: what `dice + 0.5 * focal` makes. Terms with the same input share one pass over it.

    Raises:
        ValueError: when terms of the same input disagree on what it is, one has reduction="none", or a weight is
            infinite or no number.
        TypeError: a schedule times a schedule.
    """

    family = "sum"

    def __init__(self, addends: list[tuple[Weight, Loss]]) -> None:
        super().__init__()
        flat = [(product(a, b, loss), addend) for a, loss in addends for b, addend in loss.addends]
        self._weights, self.losses = [weight for weight, _ in flat], nn.ModuleList(addend for _, addend in flat)
        for name, ramp in named(weight.ramp for weight in self._weights if isinstance(weight, Schedule)).items():
            self.add_module(name, ramp)
        for weight, term in (terms := self.terms):
            for value in weight.ends() if isinstance(weight, Schedule) else (weight,):
                if not math.isfinite(value):
                    raise ValueError(f"the weight of {term!r} must be finite, got {value}")
        self._check([term for _, term in terms])

    def _check(self, terms: list[Loss]) -> None:
        """Whether they go together: when they are added, and when a setting of one was assigned."""
        for term in terms:
            if term.reduction == "none":
                raise ValueError(f"{term!r} has reduction='none' and cannot be part of a sum, which is one number")
        for slot in {term.slot for term in terms}:
            readers = {term.inputs: term for term in terms if term.slot == slot}
            if len(readers) > 1:
                listed = " and ".join(f"{term!r}" for term in readers.values())
                raise ValueError(f"{listed} read the input {slot!r} in different ways and cannot be added")
            _agree([term for term in terms if term.slot == slot], "ignore_index", "task", "fmt")
        _agree(terms, *self.how_it_is_run)

    @property
    def addends(self) -> list[tuple[Weight, Loss]]:
        return list(zip(self._weights, self._own(), strict=True))

    @property
    def terms(self) -> list[tuple[Weight, Loss]]:
        return [(product(a, b, term), term) for a, addend in self.addends for b, term in addend.terms]

    @property
    def shares(self) -> Loss:
        self._check([term for _, term in self.terms])
        if self.group is not None:
            raise ValueError(f"a sum shares a batch as its terms do: give the group to them, not to {self!r}")
        return self.addends[0][1].shares

    def _own(self) -> list[Loss]:
        return [loss for loss in self.losses if isinstance(loss, Loss)]

    def __repr__(self) -> str:
        names = names_of_shared(weight.ramp for weight in self._weights if isinstance(weight, Schedule))
        text = ""
        for weight, term in self.addends:
            minus = isinstance(weight, float) and weight < 0
            size = -weight if minus else weight
            written = size.written(names.get(size.ramp)) if isinstance(size, Schedule) else f"{size!r}"
            body = f"{term!r}" if size == 1 else f"{written} * {term!r}"
            text += (
                (" - " if minus else " + ") + body
                if text
                else ("-1.0 * " if minus and size == 1 else "-" * minus) + body
            )
        return text


def _agree(terms: list[Loss], *settings: str) -> None:
    """Raises a ValueError that names a setting which the terms of a sum have to have in common, and have not."""
    for setting in settings:
        said = {term: getattr(term, setting) for term in terms if setting in term.keywords}
        if len(set(said.values())) > 1:
            listed = ", ".join(f"{term.name} has {value!r}" for term, value in said.items())
            raise ValueError(f"the terms of a sum must agree on {setting}: {listed}")


def _summed(terms: list[tuple[Weight, Loss]], values: Iterable[Tensor]) -> Tensor:
    parts = (weighed(weight, value) for (weight, _), value in zip(terms, values, strict=True))
    return functools.reduce(operator.add, parts)
