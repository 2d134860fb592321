"""nnU-Net's losses and what stands for them here, held against each other; its trainer, by a stand-in for its base."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import nnunet_process
import pytest
import torch
from agreement import assert_only_theirs, disagreement, faults_of
from draws import Draw
from torch import Tensor
from wheels import modules

from lossmith.compat import nnunet as ours
from lossmith.compat.peer import TABLE
from processes import Pool

REQUIREMENT = "nnunetv2==2.8.1"
theirs, supervision = modules(
    REQUIREMENT, "nnunetv2.training.loss.compound_losses", "nnunetv2.training.loss.deep_supervision"
)
ROWS = {row.name: row for row in TABLE.values() if row.library == "nnunetv2"}
CONFIGURATIONS = 200
VOID = 9


# ---- the same values ------------------------------------------------------------------------------------------------


def some(choose: random.Random, **values: list[Any]) -> dict[str, Any]:
    return {name: choose.choice(found) for name, found in values.items() if choose.random() < 0.6}


def tensors(choose: random.Random, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels, which pixels are ignored: some of every image."""
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    n, space = choose.choice([1, 2, 3]), choose.choice([(5, 4), (3, 4, 2)])
    z = 2 * torch.randn(n, channels, *space, generator=generator, dtype=torch.float64)
    y = torch.randint(0, choose.choice([1, channels]), (n, 1, *space), generator=generator)
    void = torch.rand(y.shape, generator=generator) < 0.3
    void.flatten(1)[:, 0] = False
    return z, y, void


def _dice(choose: random.Random) -> dict[str, Any]:
    return {"ddp": False} | some(choose, batch_dice=[True, False], do_bg=[True, False], smooth=[1e-5, 0.5])


def _ce(choose: random.Random) -> Draw:
    channels = choose.choice([2, 3, 4])
    settings: dict[str, Any] = {"soft_dice_kwargs": _dice(choose), "ce_kwargs": {}}
    settings |= some(choose, weight_ce=[0.5, 2], weight_dice=[0.5, 2], ignore_label=[VOID])
    if choose.random() < 0.5:
        settings["ce_kwargs"] = {
            "weight": torch.linspace(0.5, 2, channels, dtype=torch.float64),
            "label_smoothing": 0.1,
        }
    z, y, void = tensors(choose, channels)
    y = y.masked_fill(void, VOID) if "ignore_label" in settings else y
    return Draw(settings, z, y.to(choose.choice([torch.int16, torch.float32])))


def _bce(choose: random.Random) -> Draw:
    regions, ignores = choose.choice([1, 2, 3]), choose.choice([True, False])
    settings: dict[str, Any] = {"bce_kwargs": {}, "soft_dice_kwargs": _dice(choose) | {"do_bg": True}}
    settings |= some(choose, weight_ce=[0.5, 2], weight_dice=[0.5, 2])
    z, _, void = tensors(choose, regions)
    y = (z + torch.roll(z, 1, 1) > 0.5).double()
    if ignores:
        settings["use_ignore_label"] = True
        y = torch.cat([y, void.double()], 1)
    if ignores and regions > 1:
        settings["weight_ce"] = 0  # the fault, below
    return Draw(settings, z, y)


DRAWN: dict[str, Callable[[random.Random], Draw]] = {"DC_and_CE_loss": _ce, "DC_and_BCE_loss": _bce}
MEMORY_EFFICIENT = {"dice_class": theirs.MemoryEfficientSoftDiceLoss}


def fresh(loss: Any, **more: Any) -> Callable[..., Any]:
    """A loss built of copies: theirs writes into the dicts that it is given."""
    return lambda **given: loss(**{k: dict(v) if isinstance(v, dict) else v for k, v in given.items()}, **more)


@pytest.mark.parametrize("name", DRAWN)
def test_values_and_gradients_are_theirs(name):
    """200 random configurations of each, in turn against each of their two classes of Dice."""
    for number in range(CONFIGURATIONS):
        draw = DRAWN[name](random.Random(f"{name}{number}"))
        loss = fresh(getattr(theirs, name), **(MEMORY_EFFICIENT if number % 2 else {"dice_class": theirs.SoftDiceLoss}))
        found = disagreement(loss, fresh(getattr(ours, name)), draw)
        assert not found, (number, draw.settings, tuple(draw.input.shape), tuple(draw.target.shape), found)


@pytest.mark.parametrize("name", DRAWN)
def test_constructor_and_call_have_their_arguments(name):
    for method in ("__init__", "forward"):
        mine, other = (inspect.signature(getattr(getattr(losses, name), method)) for losses in (ours, theirs))
        assert [*mine.parameters] == [*other.parameters]
    assert {*DRAWN} == {*ROWS}


# ---- their faults ----------------------------------------------------------------------------------------------------

Z = 2 * torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (2, 1, 6, 5), generator=torch.Generator().manual_seed(1))
R = (Z + Z.roll(1, 1) > 0).float()
DICE = {"ddp": False, "smooth": 1e-5}
NONE = torch.zeros_like(R[:, :1])


def void_labels(losses: Any) -> tuple[Tensor, Tensor]:
    """The second image is ignored: it should be as if it were not there."""
    loss = losses.DC_and_CE_loss({**DICE, "do_bg": False}, {}, ignore_label=VOID, dice_class=theirs.SoftDiceLoss)
    return loss(Z, torch.cat([Y[:1], torch.full_like(Y[1:], VOID)])), loss(Z[:1], Y[:1])


def void_regions(losses: Any) -> tuple[Tensor, Tensor]:
    """The second image is ignored: it should be as if it were not there."""
    loss = losses.DC_and_BCE_loss({}, dict(DICE), use_ignore_label=True, weight_ce=0)
    void = torch.cat([NONE[:1], NONE[1:] + 1])
    return loss(Z, torch.cat([R, void], 1)), loss(Z[:1], torch.cat([R, NONE], 1)[:1])


def nothing_ignored(losses: Any) -> tuple[Tensor, Tensor]:
    """An ignore map that ignores nothing should change nothing."""
    with_map = losses.DC_and_BCE_loss({}, dict(DICE), use_ignore_label=True)
    return with_map(Z, torch.cat([R, NONE], 1)), losses.DC_and_BCE_loss({}, dict(DICE))(Z, R)


IMAGE = "ignored pixels, an image without any other"
CASES: dict[tuple[str, str], Callable[[Any], tuple[Tensor, Tensor]]] = {
    ("DC_and_CE_loss", IMAGE): void_labels,
    ("DC_and_BCE_loss", IMAGE): void_regions,
    ("DC_and_BCE_loss", "use_ignore_label, several regions"): nothing_ignored,
}


def test_every_fault_has_its_case():
    assert CASES.keys() == faults_of(ROWS)


@pytest.mark.parametrize(("name", "where"), CASES, ids=lambda text: text.replace(" ", "_"))
def test_their_fault_is_one_and_is_not_repeated(name, where):
    assert_only_theirs(CASES[name, where], theirs, ours)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ours.DC_and_CE_loss({"clip_tp": 1.0}, {}), "soft_dice_kwargs may hold .* got clip_tp"),
        (lambda: ours.DC_and_CE_loss({}, {"ignore_index": 3}), "ce_kwargs may hold .* got ignore_index"),
        (lambda: ours.DC_and_BCE_loss({"weight": 3}, {}), "bce_kwargs may hold pos_weight, got weight"),
        (lambda: ours.DC_and_CE_loss({}, {})(Z[:, :1], Y), "use DC_and_BCE_loss"),
    ],
)
def test_what_cannot_be_honoured_raises(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# ---- processes -------------------------------------------------------------------------------------------------------


def test_batch_dice_of_two_processes_is_that_of_the_whole_batch():
    """Value and gradient as theirs has them in one process with the whole batch."""
    dice = {"batch_dice": True, "do_bg": False, "smooth": 1e-5}
    pool = Pool(2)
    try:
        found = pool.run(2, nnunet_process.share, {"soft_dice_kwargs": dice, "ce_kwargs": {}}, Z, Y)
    finally:
        pool.close()
    z = Z.clone().requires_grad_()
    whole = theirs.DC_and_CE_loss(dice | {"ddp": False}, {}, **MEMORY_EFFICIENT)(z, Y)
    (gradient,) = torch.autograd.grad(whole, z)
    for value, _ in found:
        torch.testing.assert_close(value, whole.detach())
    torch.testing.assert_close(torch.cat([part for _, part in found]) / 2, gradient, rtol=1e-4, atol=1e-7)


# ---- the trainer -----------------------------------------------------------------------------------------------------


class Trainer:
    """A stand-in for nnU-Net's trainer, with what its `_build_loss` asks."""

    def __init__(self, regions: bool, ignore: int | None, batch_dice: bool, scales: int, is_ddp: bool = False) -> None:
        self.label_manager = SimpleNamespace(has_regions=regions, ignore_label=ignore)
        self.configuration_manager = SimpleNamespace(batch_dice=batch_dice)
        self.is_ddp, self.enable_deep_supervision, self.scales = is_ddp, scales > 1, scales

    def _get_deep_supervision_scales(self) -> list[list[float]]:
        return [[0.5**k] * 2 for k in range(self.scales)]


@pytest.fixture
def trainer(monkeypatch):
    """Our trainer, upon the stand-in."""
    names = ours.TRAINER.split(".")
    for end in range(1, len(names) + 1):
        module = ModuleType(".".join(names[:end]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    module.nnUNetTrainer = Trainer  # type: ignore[attr-defined]
    found = ours.nnUNetTrainerLossmith
    vars(ours).pop("nnUNetTrainerLossmith")
    return found


def test_a_trainer_is_found_by_its_name(trainer):
    assert trainer.__name__ == "nnUNetTrainerLossmith"
    assert issubclass(trainer, Trainer)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("ignore", [None, 3])
@pytest.mark.parametrize("regions", [True, False])
def test_the_loss_of_a_trainer_is_theirs(trainer, regions, ignore, batch_dice):
    """Three heads, of which the coarsest counts for nothing; regions with ignored pixels are weighed as without."""
    loss = trainer(regions, ignore, batch_dice, 3)._build_loss()
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "ddp": False}
    if regions:
        factor = 1 / 3 if ignore else 1  # their fault
        single = theirs.DC_and_BCE_loss({}, dice, weight_ce=factor, use_ignore_label=ignore is not None)
        target = torch.cat([R, (torch.arange(5) == 2).expand(2, 1, 6, 5).float()], 1) if ignore else R
    else:
        dice["do_bg"] = False
        single = theirs.DC_and_CE_loss(dice, {}, ignore_label=ignore, **MEMORY_EFFICIENT)
        target = Y.masked_fill(torch.arange(5) == 2, 3) if ignore else Y
    wrapped = supervision.DeepSupervisionWrapper(single, [2 / 3, 1 / 3, 0.0])
    results = []
    for one in (loss, wrapped):
        heads = [Z[..., :: 2**k, :: 2**k].clone().requires_grad_() for k in range(3)]
        value = one(heads, [target[..., :: 2**k, :: 2**k] for k in range(3)])
        value.backward()
        assert heads[2].grad is None
        results.append((value.detach(), heads[0].grad, heads[1].grad))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_every_head_has_a_gradient_under_ddp(trainer):
    assert trainer(False, None, False, 3, is_ddp=True)._build_loss().weights[-1] == pytest.approx(1e-6 / 1.500001)
    assert isinstance(trainer(False, None, False, 1)._build_loss(), ours.DC_and_CE_loss)


def test_without_nnunet_the_trainer_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    with pytest.raises(ImportError, match="pip install nnunetv2"):
        ours.nnUNetTrainerLossmith  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'trainer'"):
        ours.trainer  # noqa: B018
