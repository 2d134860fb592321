"""What a process has set for itself in torch is none of a loss's business: value, gradient and dtype stay the same.

Every loss of the catalogue, for every task, in every engine, is built and called under each state and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import lossmith as ls
from lossmith.loss import Dense
from problems import IGNORED, labels_of, logits_of, needed

TASKS = {"binary": 1, "multiclass": 4, "multilabel": 3}


def arguments(row: Any, task: str) -> tuple[Callable[[], ls.Loss], tuple[Any, ...]]:
    """How to build a loss, and float32 inputs to call it with."""
    if issubclass(row.cls, Dense):
        channels = TASKS[task]
        logits, labels = logits_of(2, channels, 9, 31).float(), labels_of(max(channels, 2), 2, 9, 31)
        if task == "multilabel":
            labels = labels_of(2, 2, channels, 9, 31)
        settings = needed(row.cls, logits) | {"task": task, "ignore_index": IGNORED}
        return (lambda: row.cls(**settings)), (logits, labels)
    z = logits_of(6, 4).float()
    if row.name == "gfl":
        points, strides = z[:, :2].exp() * 20, torch.full((6,), 8.0)
        boxes = torch.cat([points - 20 * z[:, 2:].sigmoid(), points + 20], 1)
        labels = torch.tensor([0, 1, 2, 3, 1, 0])
        return row.cls, (z[:, :3].clone(), logits_of(6, 4, 9).float(), points, strides, labels, boxes)
    if row.family in ("box", "regression"):
        at = logits_of(6, 2, seed=1).float()
        return row.cls, (torch.cat([at, at + z[:, :2].exp()], 1), torch.cat([at - 0.1, at + z[:, 2:].exp()], 1))
    if row.name == "dfl":
        return row.cls, (logits_of(6, 9).float(), 8 * z[:, 0].sigmoid())
    return row.cls, (z, logits_of(6, 4, seed=2).float().sigmoid())


PAIRS = [
    (row, task)
    for row in ls.catalogue()
    for task in (sorted(row.cls.tasks) if issubclass(row.cls, Dense) else [row.family])
]
by_pair = pytest.mark.parametrize(("row", "task"), PAIRS, ids=[f"{row.name}-{task}" for row, task in PAIRS])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def answer(build: Callable[[], ls.Loss], inputs: tuple[Any, ...]) -> list[Tensor]:
    """The value, and the gradient of all inputs that can have one."""
    given = [x.detach().clone().requires_grad_() if x is inputs[0] else x for x in inputs]
    value = build()(*given)
    (gradient,) = torch.autograd.grad(value, given[0])
    return [value.detach(), gradient]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other), float((one.double() - other.double()).abs().max())


STATES: dict[str, Callable[[], Any]] = {
    "default dtype float64": lambda: default_dtype(torch.float64),
}
by_state = pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())


@by_pair
@by_state
def test_the_answer_is_the_same(row, task, state, engine):
    build, inputs = arguments(row, task)
    expected = answer(build, inputs)
    with state():
        same(answer(build, inputs), expected)
