"""kornia's losses and what stands for them here, held against each other: values, gradients, arguments, refusals."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import disagreement
from draws import Draw
from torch import Tensor

import lossmith as ls
from lossmith.compat import kornia as ours
from lossmith.compat.kornia import elsewhere
from lossmith.compat.peer import TABLE

theirs = pytest.importorskip("kornia.losses")
ROWS = {row.name: row for row in TABLE.values() if row.library == "kornia"}
HERE = {name: row for name, row in ROWS.items() if row.ours}
CONFIGURATIONS = 200
VOID = -100


# ---- the same values ------------------------------------------------------------------------------------------------


def some(choose: random.Random, **values: list[Any]) -> dict[str, Any]:
    """Some of the arguments, each with one of its values."""
    return {name: choose.choice(found) for name, found in values.items() if choose.random() < 0.6}


def per_class(choose: random.Random, channels: int, like: torch.dtype) -> Tensor:
    return torch.tensor([round(choose.uniform(0.1, 3), 3) for _ in range(channels)], dtype=like)


def labelled(choose: random.Random, settings: dict[str, Any], channels: int, space: tuple[int, ...]) -> Draw:
    """Logits and labels, some ignored, some images without any that count, some classes absent."""
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    n = choose.choice([1, 2, 3])
    z = 2 * torch.randn(n, channels, *space, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, max(channels, 2), (n, *space), generator=generator)
    if choose.random() < 0.3:
        labels[0] = 0
    ignore = settings.get("ignore_index", VOID)
    if ignore is not None and choose.random() < 0.6:
        labels = labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.3, ignore)
        if choose.random() < 0.2:
            labels[-1] = ignore
    return Draw(settings, z, labels)


def _space(choose: random.Random) -> tuple[int, ...]:
    return choose.choice([(5, 4), (3, 4, 2), (6,)])


IGNORE: list[Any] = [1, VOID, 255, None]


def _focal(choose: random.Random) -> Draw:
    channels = choose.choice([2, 3, 4])
    settings: dict[str, Any] = {"alpha": choose.choice([None, 0.25, 0.5, 1])}
    settings |= some(choose, gamma=[0.5, 1.0, 3], reduction=["mean", "sum", "none"], ignore_index=IGNORE)
    settings |= some(choose, weight=[per_class(choose, channels, torch.float64)])
    return labelled(choose, settings, channels, _space(choose))


def _binary(choose: random.Random) -> Draw:
    channels = choose.choice([1, 2, 3])
    settings: dict[str, Any] = {"alpha": choose.choice([None, 0.25, 0.5, 1])}
    settings |= some(choose, gamma=[0.5, 1.0, 3], reduction=["mean", "sum", "none"], ignore_index=[VOID, 255, None])
    settings |= some(choose, weight=[per_class(choose, channels, torch.float64)])
    settings |= some(choose, pos_weight=[per_class(choose, channels, torch.float64)])
    drawn = labelled(choose, settings, channels, _space(choose))
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    target = torch.rand(drawn.input.shape, generator=generator)
    target = target if choose.random() < 0.3 else (target < 0.4).to(choose.choice([torch.float64, torch.long]))
    ignore = settings.get("ignore_index", VOID)
    if ignore is not None and choose.random() < 0.6:
        target = target.masked_fill(torch.rand(target.shape, generator=generator) < 0.3, ignore)
    return drawn._replace(target=target)


def _dice(choose: random.Random) -> Draw:
    channels = choose.choice([2, 3, 4])
    settings = some(choose, average=["micro", "macro"], eps=[0.0, 1e-5, 1.0], ignore_index=IGNORE)
    settings |= some(choose, weight=[per_class(choose, channels, torch.float64)])
    return labelled(choose, settings, channels, (5, 4))


def _tversky(choose: random.Random) -> Draw:
    settings: dict[str, Any] = {"alpha": choose.choice([0.3, 0.5, 1.0]), "beta": choose.choice([0.7, 0.5, 1.0])}
    settings |= some(choose, eps=[1e-5, 1.0], ignore_index=IGNORE)
    return labelled(choose, settings, choose.choice([2, 3, 4]), (5, 4))


def _lovasz(choose: random.Random) -> Draw:
    channels = choose.choice([2, 3, 4])
    settings = some(choose, weight=[per_class(choose, channels, torch.float64)])
    drawn = labelled(choose, settings | {"ignore_index": None}, channels, (5, 4))
    return drawn._replace(settings=settings, input=drawn.input[:1] if choose.random() < 0.2 else drawn.input)


def _hinge(choose: random.Random) -> Draw:
    return labelled(choose, {"ignore_index": None}, 1, (5, 4))._replace(settings={})


DRAWN: dict[str, Callable[[random.Random], Draw]] = {
    "FocalLoss": _focal,
    "BinaryFocalLossWithLogits": _binary,
    "DiceLoss": _dice,
    "TverskyLoss": _tversky,
    "LovaszSoftmaxLoss": _lovasz,
    "LovaszHingeLoss": _hinge,
}
FUNCTIONS = {
    "FocalLoss": "focal_loss",
    "BinaryFocalLossWithLogits": "binary_focal_loss_with_logits",
    "DiceLoss": "dice_loss",
    "TverskyLoss": "tversky_loss",
    "LovaszSoftmaxLoss": "lovasz_softmax_loss",
    "LovaszHingeLoss": "lovasz_hinge_loss",
}


def called(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A function with its settings, as if it were a class."""
    return lambda **settings: lambda pred, target: function(pred, target, **settings)


@pytest.mark.parametrize("name", DRAWN)
def test_values_and_gradients_are_theirs(name):
    """200 random configurations of each class; every other one of our function against their class."""
    for number in range(CONFIGURATIONS):
        draw = DRAWN[name](random.Random(f"{name}{number}"))
        mine = called(getattr(ours, FUNCTIONS[name])) if number % 2 else getattr(ours, name)
        found = disagreement(getattr(theirs, name), mine, draw)
        assert not found, (number, draw.settings, tuple(draw.input.shape), tuple(draw.target.shape), found)


def test_every_class_is_drawn():
    assert {*DRAWN, *FUNCTIONS.values()} == {*HERE}


def test_a_label_of_minus_100_is_ignored_by_the_hinge():
    """Their fault, from the table: the label is taken for a number."""
    z = torch.randn(1, 1, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (z[:, 0] > 0.3).long()
    void = y.clone()
    void[:, 3:] = VOID
    assert float(theirs.LovaszHingeLoss()(z, void)) < 0, "mended there: take it out of the table"
    torch.testing.assert_close(ours.LovaszHingeLoss()(z, void), ours.LovaszHingeLoss()(z[:, :, :3], y[:, :3]))
    assert [(row.name, fault.where) for row in HERE.values() for fault in row.faults] == [
        ("LovaszHingeLoss", "a label of -100")
    ]


# ---- the same arguments ----------------------------------------------------------------------------------------------


def arguments(function: Any) -> list[tuple[str, Any]]:
    return [(name, p.default) for name, p in inspect.signature(function).parameters.items() if name != "self"]


@pytest.mark.parametrize("name", HERE)
def test_constructor_and_call_have_their_arguments(name):
    if name in DRAWN:
        for method in ("__init__", "forward"):
            assert arguments(getattr(getattr(ours, name), method)) == arguments(getattr(getattr(theirs, name), method))
    else:
        assert arguments(getattr(ours, name)) == arguments(getattr(theirs, name))


def test_every_name_of_theirs_is_here_or_says_why_not():
    assert {*theirs.__all__} == {*ours.__all__} == {*ROWS}


@pytest.mark.parametrize("name", elsewhere.REASONS)
def test_what_is_elsewhere_says_so(name):
    with pytest.raises(ValueError, match=f"kornia.losses.{name} has no counterpart in lossmith: ") as error:
        getattr(ours, name)(1, key=2)
    for word in str(error.value).replace(",", " ").split():
        if word.startswith("lossmith."):
            assert getattr(ls, word.removeprefix("lossmith."))


# ---- what cannot be honoured -----------------------------------------------------------------------------------------

Z, Y = torch.zeros(2, 3, 4, 4, dtype=torch.float64), torch.ones(2, 4, 4, dtype=torch.long)
LEARNT = torch.nn.Parameter(torch.ones(3))
LABELS = torch.zeros(2, 4, 4, requires_grad=True)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ours.DiceLoss(weight=LEARNT), ValueError, "weight requires a gradient"),
        (lambda: ours.BinaryFocalLossWithLogits(0.25, pos_weight=LEARNT), ValueError, "pos_weight requires a gradient"),
        (lambda: ours.DiceLoss("mean"), ValueError, "average must be 'micro' or 'macro'"),
        (lambda: ours.focal_loss(Z, Y, 0.25, reduction="batch"), NotImplementedError, "reduction must be"),
        (lambda: ours.dice_loss(Z[:, :1], Y), ValueError, "two channels"),
        (lambda: ours.focal_loss(Z[:, :1], Y, None), ValueError, "BinaryFocalLossWithLogits"),
        (lambda: ours.lovasz_softmax_loss(Z[:, :1], Y), ValueError, "BxNxHxW, with N > 1. Got: .* LovaszHingeLoss"),
        (lambda: ours.lovasz_hinge_loss(Z, Y), ValueError, "Bx1xHxW. Got: .* LovaszSoftmaxLoss"),
        (lambda: ours.lovasz_hinge_loss(Z[:, :1], LABELS), ValueError, "give target.detach()"),
        (lambda: ours.dice_loss(Z[..., 0], Y[..., 0]), ValueError, "Invalid pred shape, we expect BxNxHxW. Got: "),
        (lambda: ours.focal_loss(Z[0, 0, 0], Y, 0.25), ValueError, r"Invalid pred shape, we expect BxNx\*. Got: "),
        (lambda: ours.dice_loss(Z, Y[:1]), ValueError, "pred and target shapes must be the same. Got: "),
        (lambda: ours.lovasz_hinge_loss(Z[:, :1], Y.to("meta")), ValueError, "must be in the same device. Got: cpu"),
        (lambda: ours.dice_loss(Z, Y, weight=torch.ones(2)), ValueError, "one number for each of 3 classes"),
        (lambda: ours.dice_loss(Z, Y, weight=[1, 2, 3]), TypeError, "weight must be a tensor"),
        (lambda: ours.tversky_loss("pred", Y, 0.5, 0.5), TypeError, "pred type is not a torch.Tensor. Got str"),
    ],
)
def test_what_cannot_be_honoured_raises(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_loss_travels():
    loss = ours.FocalLoss(0.25, reduction="mean", weight=torch.tensor([1.0, 2.0, 3.0]))
    expected = loss(Z, Y)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(twin(Z, Y), expected)
    assert not loss.state_dict()
