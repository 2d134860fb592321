"""torchvision's losses and what stands for them here, held against each other: values, gradients, arguments."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import assert_only_theirs, disagreement, faults_of
from draws import Draw
from torch import Tensor
from wheels import modules

from lossmith.compat import torchvision as ours
from lossmith.compat.peer import TABLE

FILES = {
    "generalized_box_iou_loss": "giou_loss",
    "distance_box_iou_loss": "diou_loss",
    "complete_box_iou_loss": "ciou_loss",
    "sigmoid_focal_loss": "focal_loss",
}
_found = modules(
    "torchvision==0.29.1",
    *(f"torchvision.ops.{file}" for file in FILES.values()),
    torchvision__utils={"_log_api_usage_once": lambda function: None},
)
THEIRS = {name: getattr(module, name) for (name, _), module in zip(FILES.items(), _found, strict=True)}
OURS = {name: getattr(ours, name) for name in FILES}
ROWS = {row.name: row for row in TABLE.values() if row.library == "torchvision"}
CONFIGURATIONS = 200


def some(choose: random.Random, **values: list[Any]) -> dict[str, Any]:
    return {name: choose.choice(found) for name, found in values.items() if choose.random() < 0.7}


def _boxes(choose: random.Random) -> Draw:
    """Boxes in pixels, some far apart, some inside of each other, or one pair alone."""
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    at, size = (torch.rand(2, 7, 2, generator=generator, dtype=torch.float64) * 100 for _ in range(2))
    one, other = torch.cat([at, at + size + 1], 2)
    if choose.random() < 0.2:
        one, other = one[0], other[0]
    return Draw(some(choose, reduction=["mean", "sum", "none"], eps=[1e-9, 1e-7]), one, other)


def _focal(choose: random.Random) -> Draw:
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    z = 2 * torch.randn(choose.choice([(7,), (5, 3), (2, 3, 4, 5)]), generator=generator, dtype=torch.float64)
    y = (torch.rand(z.shape, generator=generator) < 0.3).double()
    return Draw(some(choose, alpha=[-1, 0, 0.6, 1], gamma=[0, 0.5, 2, 3.0], reduction=["mean", "sum", "none"]), z, y)


DRAWN: dict[str, Callable[[random.Random], Draw]] = dict.fromkeys(FILES, _boxes) | {"sigmoid_focal_loss": _focal}


def called(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A function with its settings, as if it were a class."""
    return lambda **settings: lambda one, other: function(one, other, **settings)


@pytest.mark.parametrize("name", FILES)
def test_values_and_gradients_are_theirs(name):
    for number in range(CONFIGURATIONS):
        draw = DRAWN[name](random.Random(f"{name}{number}"))
        found = disagreement(called(THEIRS[name]), called(OURS[name]), draw)
        assert not found, (number, draw.settings, tuple(draw.input.shape), found)


@pytest.mark.parametrize("name", FILES)
def test_the_call_has_their_arguments(name):
    mine, other = (inspect.signature(functions[name]).parameters for functions in (OURS, THEIRS))
    assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in other.values()]
    assert {*FILES} == {*ROWS} == {*ours.__all__}


# ---- their faults, one by one ----------------------------------------------------------------------------------------

BOX = torch.tensor([[0.1, 0.1, 0.101, 0.101]], dtype=torch.float64)
Case = Callable[[Callable[..., Tensor]], tuple[Tensor, Tensor]]


def small(loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """A box that is met exactly costs nothing."""
    return loss(BOX, BOX, "mean"), torch.zeros((), dtype=torch.float64)


def point(loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """A box of no size has a loss, that of one of hardly any."""
    at, other = torch.tensor([[4.0, 4.0, 4.0, 4.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    tiny = at + torch.tensor([0.0, 0.0, 1e-5, 0.0])
    shape = 0.25 * 0.25 / 1.25  # α v of a square and an aspect ratio of 0, which do not overlap
    return loss(at, other, "mean").nan_to_num(-1.0), ours.distance_box_iou_loss(tiny, other, "mean") + shape


def soft(loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """A target of ½ is a yes and a no, half each."""
    z = torch.tensor([2.0, -1.0])
    found = loss(z, torch.full_like(z, 0.5), -1, 2, "mean")
    return found, (loss(z, torch.ones(2), -1, 2, "mean") + loss(z, torch.zeros(2), -1, 2, "mean")) / 2


def empty(loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Nothing costs nothing."""
    return loss(torch.zeros(0), torch.zeros(0), reduction="mean").nan_to_num(-1.0), torch.zeros(())


def easy(loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Of a target of 0 the cross-entropy is ln(1 + e^z), which is e^z far below 0: here as a share of that."""
    z = torch.tensor([-20.0])
    return loss(z, torch.zeros(1), -1, 0, "mean") / z.exp().mean(), torch.ones(())


CASES: dict[tuple[str, str], Case] = {
    **{(name, "boxes small against eps, as in shares of the image"): small for name in FILES if "box" in name},
    ("complete_box_iou_loss", "a box that is a point"): point,
    ("sigmoid_focal_loss", "targets between 0 and 1"): soft,
    ("sigmoid_focal_loss", "no element, reduction='mean'"): empty,
    ("sigmoid_focal_loss", "a target of 0, a logit far below"): easy,
}


def test_every_fault_has_its_case():
    assert CASES.keys() == faults_of(ROWS)


@pytest.mark.parametrize(("name", "where"), CASES, ids=lambda text: text.replace(" ", "_"))
def test_their_fault_is_one_and_is_not_repeated(name, where):
    assert_only_theirs(CASES[name, where], THEIRS[name], OURS[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ours.generalized_box_iou_loss(BOX, BOX, "max"), "Invalid reduction 'max'"),
        (lambda: ours.complete_box_iou_loss(BOX, BOX, eps=0.1), r"eps must lie in \[0, 1e-06\], got 0.1"),
        (lambda: ours.sigmoid_focal_loss(BOX, BOX, reduction="max"), "Invalid reduction 'max'"),
        (lambda: ours.sigmoid_focal_loss(BOX, BOX, alpha=2), "Invalid alpha 2"),
        (lambda: ours.sigmoid_focal_loss(BOX, BOX[:, :2]), "must be shaped like the input"),
    ],
)
def test_what_cannot_be_honoured_raises(call, said):
    with pytest.raises(ValueError, match=said):
        call()
