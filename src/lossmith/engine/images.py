"""Sums that cross images, all of them: the one place where images that somebody else holds are reached.

What belongs to one image stays there. Whatever is added up or divided over the images of a batch goes through an
`Images`: at once where this call holds all of them, and as an `Across` where it does not, because other processes or
other micro-batches hold the rest. An `Across` is a question to all of them with what follows from its answer, so that a
whole sum of losses asks once. `processes.py` asks the processes, `accumulation.py` the micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from torch import Tensor

from ..arithmetic import ratio

T = TypeVar("T")
S = TypeVar("S")
Split = Literal["images", "space"]  # what the others hold: other images, or other parts of the same images


class Each(NamedTuple):
    """Asks for the values of every process side by side, (P, …); few numbers, all of the same shape. No gradient."""

    values: Tensor


class Everything(NamedTuple):
    """Asks for the columns (…, n) of every process, one behind the other, as `Gathered`; `counts` has n of each."""

    values: Tensor
    counts: list[int]


class Gathered(NamedTuple):
    """The columns of all processes, and which of them are this one's."""

    values: Tensor
    own: slice


class Own(NamedTuple):
    """Asks for nothing: a value that the others have already counted, so that its gradient alone is of use."""

    values: Tensor


Item = Tensor | float | Each | Everything | Own


class Across(NamedTuple, Generic[T]):
    """What a value needs of all images. An item that is a tensor or a number is added up over whoever holds some.

    What is asked, how often and in which shapes follows from the loss and the shape of its input alone, never from
    values: others ask at the same time, and what they ask has to be the same.
    """

    items: tuple[Item, ...]
    then: Callable[..., Any]  # from the answers, in the order of the items: a value, or another Across


def bind(value: Any, then: Callable[[Any], Any]) -> Any:
    """What follows from a value, which may need all images."""
    if not isinstance(value, Across):
        return then(value)
    return Across(value.items, lambda *answers: bind(value.then(*answers), then))


def together(values: Sequence[Any]) -> Any:
    """Several values that ask at the same time, as a list."""
    if not any(isinstance(value, Across) for value in values):
        return list(values)
    items = [value.items if isinstance(value, Across) else () for value in values]

    def then(*answers: Any) -> Any:
        rest, found = list(answers), []
        for value, asked in zip(values, items, strict=True):
            own, rest = rest[: len(asked)], rest[len(asked) :]
            found.append(value.then(*own) if isinstance(value, Across) else value)
        return together(found)

    return Across(tuple(item for some in items for item in some), then)


class Count(NamedTuple):
    """A denominator that is at least so much, over all images."""

    amount: Tensor
    least: float


class Images:
    """The images of a call and their weights.

    sample  a weight for each image, (N,); 0 ignores it. None: all weigh 1
    split   what others hold besides. None: nobody does, or what they hold is in the values already
    """

    def __init__(self, sample: Tensor | None = None, split: Split | None = None) -> None:
        self.sample, self.split = sample, split

    def weighed(self, values: Tensor) -> Tensor:
        """Values of images, (N, …), times the weights of the images."""
        if self.sample is None:
            return values
        return values * self.sample.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))

    def across(self, then: Callable[..., Any], *items: Item) -> Any:
        """What follows from sums over all images: at once, if all are here."""
        return then(*items) if self.split is None else Across(items, then)


def mean(total: Tensor, weight: Tensor | float) -> Tensor:
    """Σ amount / Σ weight. Where nothing is valid, 0 / 0, it is 0 with a graph."""
    if isinstance(weight, Tensor):
        return ratio(total, weight.to(total))
    return total / float(weight) if weight else total  # torch converts an integer, forward and backward


def alone(total: Tensor) -> Tensor:
    """A sum that is the value."""
    return total


def pooled(values: Tensor) -> Tensor:
    """Σ over the images of values (N, …), as one group (1, …)."""
    return values.sum(0, keepdim=True)
