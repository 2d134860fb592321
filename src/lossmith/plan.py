"""What is known of the calls of a loss before there is one: worked out once, until a setting is assigned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from .engine.images import Split
from .engine.processes import Processes
from .settings import changes


class Plan(NamedTuple):
    """What is known of the calls of a loss."""

    changes: int  # when it was made
    who: str
    terms: list[tuple[Any, Any]]  # the weights and the losses
    names: list[str]  # of the terms: dice, ce, ce_2, ...
    addends: list[tuple[str, Any]]  # with its `slot_of_sum`, whose input has to suit it
    slots: dict[str, tuple[Callable[..., Any], Any, frozenset[str]]]  # what reads it, what for, and its keywords
    takes: frozenset[str]
    formats: frozenset[str]
    processes: Processes | None  # that share the batch
    split: Split | None  # what others hold of it

    @classmethod
    def of(cls, loss: Any, split: Split | None = None) -> Plan:
        """What is known of its calls. `split`: what others hold of a batch, if that is not for its processes to say.

        Raises:
            ValueError: a term that would not be exact.
        """
        shares = loss.shares
        processes = None if shares.group is None else Processes(shares.group, shares.gradient)
        split = shares.split if split is None and processes is not None else split
        terms, who = loss.terms, loss._who()
        by_slot: dict[str, list[Any]] = {}
        for _, term in terms:
            term.splits_into(split)
            by_slot.setdefault(term.slot, []).append(term)
        slots = {
            slot: (
                some[0].inputs,
                replace(some[0].reading(some, who), split=split),
                frozenset().union(*(term.takes for term in some)),
            )
            for slot, some in by_slot.items()
        }
        formats = frozenset(term.settings()["fmt"] for _, term in terms if "fmt" in term.fields)
        takes = frozenset().union(*(term.takes for _, term in terms))
        addends = [(addend.slot_of_sum, addend) for _, addend in loss.addends]
        return cls(changes(), who, terms, _names(terms), addends, slots, takes, formats, processes, split)

    def settled(self, value: Any) -> Any:
        """A value with all that it asks of others answered."""
        return value if self.processes is None else self.processes.settled(value, self.who)


def _names(terms: list[tuple[Any, Any]]) -> list[str]:
    """What the terms are called: name, name_2, name_3, ..."""
    taken: list[str] = []
    for _, term in terms:
        fresh, number = term.name, 2
        while fresh in taken:
            fresh, number = f"{term.name}_{number}", number + 1
        taken.append(fresh)
    return taken
