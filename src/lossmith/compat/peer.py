"""What the classes of all peers share: the table, probabilities as logits, our loss for a number of channels.

A peer is a class or a function with the decorator `stands_for`, which says for whom it stands, by which of our losses,
how the arguments are translated, which faults of theirs it does not repeat and what it refuses. That is the table: the
docstrings end with it, docs/compat.py prints it, and tests/compat holds every row against the library as installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from ..checks import shape
from ..engine.problem import SLACK
from ..engine.tensors import can_look, floating, recorded
from ..loss import Loss

T = TypeVar("T")

NO_SCRIPT = {"torch.jit.script": "ours are no TorchScript; torch.compile or torch.jit.trace"}
NEAR_0 = 1e-20  # a probability of exactly 0 has no logit; this one keeps value and gradient to rounding


class Fault(NamedTuple):
    """A defect of a peer that is not repeated here."""

    where: str  # the settings and inputs that show it
    theirs: str
    ours: str


@dataclass(frozen=True)
class Row:
    """What stands here for a loss of another library."""

    theirs: str  # by its full name
    ours: str  # the names of our losses that it is made of; empty if there is none
    arguments: dict[str, str] = field(default_factory=dict)  # of theirs, and what becomes of them here
    faults: tuple[Fault, ...] = ()
    refuses: dict[str, str] = field(default_factory=dict)  # what is refused, and what to use instead

    @property
    def library(self) -> str:
        return self.theirs.split(".")[0]

    @property
    def name(self) -> str:
        return self.theirs.rsplit(".", 1)[1]


TABLE: dict[str, Row] = {}


def stands_for(
    theirs: str,
    ours: str,
    arguments: dict[str, str] | None = None,
    faults: tuple[Fault, ...] = (),
    refuses: dict[str, str] | None = None,
) -> Callable[[T], T]:
    """Enters a class or a function into the table, and the table into its docstring."""
    row = TABLE[theirs] = Row(theirs, ours, arguments or {}, faults, (refuses or {}) | (NO_SCRIPT if ours else {}))

    def entered(peer: T) -> T:
        lines = [inspect.cleandoc(peer.__doc__ or "")]
        lines += [f"Faults that it does not repeat: {fault.where}: {fault.theirs}; {fault.ours}." for fault in faults]
        lines += [f"Refuses {what}: {instead}." for what, instead in row.refuses.items()]
        peer.__doc__ = "\n\n".join(lines)
        return unscripted(peer) if ours else peer

    return entered


def unscripted(peer: T) -> T:
    """A class or a function, of which torch.jit.script says at once that it cannot compile it, and not where it got
    stuck: torch asks modules for a stand-in, and functions for a reason."""
    said = f"{getattr(peer, '__name__', peer)}: ours are no TorchScript; use torch.compile or torch.jit.trace"

    def refuse(self: nn.Module) -> None:
        raise RuntimeError(said)

    if isinstance(peer, type):
        peer.__prepare_scriptable__ = refuse  # type: ignore[attr-defined]
    else:
        vars(peer)["__script_unsupported"] = said
    return peer


class Peer(nn.Module):
    """A loss of another library, by one of ours."""

    ignore_index: int | None = None

    def __new__(cls, *given: Any, **named: Any) -> Self:
        made = super().__new__(cls)
        made.__dict__["_said"] = ", ".join([*map(repr, given), *(f"{name}={value!r}" for name, value in named.items())])
        return made

    def __init__(self) -> None:
        super().__init__()
        self._built = nn.ModuleDict()  # whose buffers are not saved, but move with it

    def ours(self, channels: int) -> Loss:
        """The loss that this is, for predictions with so many channels: what to write instead."""
        raise NotImplementedError

    def built(self, channels: int, device: torch.device) -> Loss:
        """The same, made once; anew for torch.jit.trace, which would miss a part that comes while it writes."""
        key = str(int(channels))  # which it hands over as a tensor
        if key not in self._built and not torch.compiler.is_compiling() and recorded():
            return self.ours(int(key)).to(device)
        if key not in self._built:
            self._built[key] = self.ours(int(key)).to(device)
        return cast(Loss, self._built[key])

    def ignoring(self) -> dict[str, Any]:
        """The setting of ours for the label that is ignored, if there is one."""
        return {} if self.ignore_index is None else {"ignore_index": self.ignore_index}

    def _who(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return f"{self._who()}({self._said})"


def numbers(given: Any) -> list[float]:
    """A number, a sequence of them or a tensor, as written: not rounded to the default type of the process."""
    read: list[float] = torch.as_tensor(given, dtype=torch.float64, device="cpu").detach().reshape(-1).tolist()
    return read


def logits_of(who: str, p: Tensor, fix: str) -> Tensor:
    """Probabilities as logits, with the gradient that p has. What is no probability is an error where looking is free,
    and NaN elsewhere; `fix` says how to have the numbers taken for logits."""
    p = floating(p)
    strange = (p < -SLACK) | (p > 1 + SLACK)
    if can_look(p) and bool(strange.any()):
        raise ValueError(f"{who}: {float(p.detach()[strange][0]):g} is no probability: {fix}")
    yes, no = (x + (x.detach().clamp(NEAR_0, 1.0) - x.detach()) for x in (p, 1 - p))
    return (yes.log() - no.log()).masked_fill(strange, torch.nan)


def times(factor: float, loss: Loss) -> Loss:
    """A factor where there is one."""
    return loss if factor == 1 else factor * loss


def over_all(reduction: str, elements: int) -> dict[str, Any]:
    """How ours is called for the mean or the sum of so many elements, ignored ones too."""
    if reduction == "none":
        return {}
    return {"denominator": float(elements) if reduction == "mean" else 1.0}


def perfect(value: Tensor) -> Tensor:
    """A loss of `logits_of` without what a probability of exactly 0 or 1 is off there."""
    return torch.where(value.abs() < 1e-15, value - value.detach(), value)


def matching(who: str, input: Tensor, target: Tensor, fix: str = "", error: type[Exception] = AssertionError) -> None:
    """Raises what a peer raises for a target that is not shaped like the input."""
    if input.shape != target.shape:
        raise error(
            f"{who}: shapes do not match: the target {shape(target)} must be shaped like the input {shape(input)}{fix}"
        )


def refused(theirs: str, instead: str) -> Any:
    """A class whose constructor says what to use instead: importing its name must not fail."""
    name = theirs.rsplit(".", 1)[1]

    def refuse(self: Any, *args: Any, **settings: Any) -> None:
        raise ValueError(f"{theirs} has no counterpart in lossmith: {instead}")

    doc = f"`{theirs}` is not here."
    return stands_for(theirs, "", refuses={"everything": instead})(type(name, (), {"__init__": refuse, "__doc__": doc}))
