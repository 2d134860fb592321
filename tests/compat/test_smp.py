"""The losses of segmentation_models_pytorch and what stands for them here, held against each other."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import assert_only_theirs, disagreement, faults_of
from draws import SENTINEL, Draw
from torch import Tensor
from wheels import modules

from lossmith.compat import smp as ours
from lossmith.compat.peer import TABLE

PACKAGE = "segmentation_models_pytorch.losses"
(theirs,) = modules("segmentation_models_pytorch==0.6.0", PACKAGE)
ROWS = {row.name: row for row in TABLE.values() if row.library == "segmentation_models_pytorch"}
HERE = {name: row for name, row in ROWS.items() if row.ours}
CONFIGURATIONS = 200


# ---- the same values ------------------------------------------------------------------------------------------------


def some(choose: random.Random, **values: list[Any]) -> dict[str, Any]:
    """Some of the arguments, each with one of its values."""
    return {name: choose.choice(found) for name, found in values.items() if choose.random() < 0.6}


def tensors(choose: random.Random, settings: dict[str, Any], channels: int, soft: bool = False) -> Draw:
    """A prediction and a target for the mode, with elements that are ignored where there is an index."""
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    mode, n, space = settings["mode"], choose.choice([1, 2, 3]), choose.choice([(5, 4), (3, 4, 2)])
    z = 2 * torch.randn(n, channels, *space, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, max(channels, 2), (n, *space), generator=generator)
    if choose.random() < 0.3:
        labels = labels.clamp(max=channels - 2) if channels > 2 else torch.zeros_like(labels)
    target: Tensor = labels if mode != "multilabel" else (torch.rand(z.shape, generator=generator) < 0.3).long()
    if mode == "binary":
        target = choose.choice([target, target.unsqueeze(1)])
    if mode != "multiclass":
        target = target.to(choose.choice([torch.float64, torch.float32, torch.long]))
    if soft:
        target = torch.rand(target.shape, generator=generator)
    if settings.get("ignore_index") is not None:
        target = target.masked_fill(torch.rand(target.shape, generator=generator) < 0.3, settings["ignore_index"])
    if settings.get("from_logits") is False:
        return Draw(settings, z, target, before=torch.sigmoid if mode != "multiclass" else _softmax)
    return Draw(settings, z, target)


def _softmax(z: Tensor) -> Tensor:
    return z.softmax(1)


def _mode(choose: random.Random, **more: list[Any]) -> tuple[int, dict[str, Any]]:
    mode = choose.choice(["binary", "multiclass", "multilabel"])
    settings = {"mode": mode} | some(choose, ignore_index=[SENTINEL, 255], **more)
    return 1 if mode == "binary" else choose.choice([2, 3, 4]), settings


def _weights(choose: random.Random, settings: dict[str, Any], channels: int) -> dict[str, Any]:
    several = [round(choose.uniform(0.1, 3), 3) for _ in range(channels)]
    return some(choose, class_weights=[several]) if settings["mode"] != "binary" else {}


def _overlap(choose: random.Random, **more: list[Any]) -> Draw:
    channels, settings = _mode(choose, log_loss=[True], from_logits=[False], smooth=[0.5, 1.0], eps=[1e-3], **more)
    settings |= _weights(choose, settings, channels)
    if channels > 1:
        settings |= some(choose, classes=[[0], [1, 0], [channels - 1]])
    soft = settings["mode"] != "multiclass" and choose.random() < 0.3
    return tensors(choose, settings, channels, soft)


def _tversky(choose: random.Random) -> Draw:
    return _overlap(choose, alpha=[0.3, 1.0], beta=[0.7, 1.0], gamma=[1.5, 2.0])


def _focal(choose: random.Random) -> Draw:
    channels, settings = _mode(choose, alpha=[0.25, 0.5], gamma=[0.5, 3.0], from_logits=[False])
    settings |= some(choose, reduction=["mean", "sum", "none", "batchwise_mean", None])
    if settings.get("reduction", "mean") in ("mean", "sum"):
        settings |= _weights(choose, settings, channels)
    if settings["mode"] == "multilabel":
        settings.pop("ignore_index", None)
    if settings["mode"] == "multiclass":
        settings.pop("from_logits", None)
    return tensors(choose, settings, channels)


def _lovasz(choose: random.Random) -> Draw:
    channels, settings = _mode(choose, per_image=[True])
    return tensors(choose, settings, channels)._replace(before=Tensor.float)  # theirs knows no other


def _ce(choose: random.Random) -> Draw:
    settings = {"smooth_factor": choose.choice([0.0, 0.1, 0.3])}
    settings |= some(choose, reduction=["mean", "sum", "none"], ignore_index=[SENTINEL, -100, None], dim=[1, -1])
    drawn = tensors(choose, {"mode": "multiclass", "ignore_index": settings.get("ignore_index", -100)}, 3)
    z = drawn.input.movedim(1, settings.get("dim", 1))
    return Draw(settings, z, drawn.target)


def _bce(choose: random.Random) -> Draw:
    settings = some(choose, reduction=["mean", "sum", "none"], ignore_index=[SENTINEL, -100, None])
    settings |= some(choose, smooth_factor=[0.1, 0.3])
    drawn = tensors(choose, {"mode": "multilabel", "ignore_index": settings.get("ignore_index", -100)}, 3)
    z, y = drawn.input, drawn.target.to(torch.float64)
    prices = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    settings |= some(choose, pos_weight=[prices[1:2], prices.view(-1, *[1] * (z.ndim - 2))])
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    settings |= some(choose, weight=[torch.rand(z.shape[1:], generator=generator), torch.rand(1, generator=generator)])
    return Draw(settings, z, y)


DRAWN: dict[str, Callable[[random.Random], Draw]] = {
    "DiceLoss": _overlap,
    "JaccardLoss": _overlap,
    "TverskyLoss": _tversky,
    "FocalLoss": _focal,
    "LovaszLoss": _lovasz,
    "SoftCrossEntropyLoss": _ce,
    "SoftBCEWithLogitsLoss": _bce,
}


@pytest.mark.parametrize("name", DRAWN)
def test_values_and_gradients_are_theirs(name):
    for number in range(CONFIGURATIONS):
        draw = DRAWN[name](random.Random(f"{name}{number}"))
        found = disagreement(getattr(theirs, name), getattr(ours, name), draw)
        assert not found, (number, draw.settings, tuple(draw.input.shape), tuple(draw.target.shape), found)


def test_a_power_below_1_is_theirs():
    loss, mine = (losses.TverskyLoss("multiclass", gamma=0.75) for losses in (theirs, ours))
    torch.testing.assert_close(mine(Z, Y), loss(Z, Y))


def test_every_class_is_drawn():
    assert {*DRAWN} == {*HERE}


# ---- their faults, one by one ----------------------------------------------------------------------------------------

Z = 2 * torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 3, (2, 6, 5), generator=torch.Generator().manual_seed(1))
R = torch.nn.functional.one_hot(Y, 3).movedim(-1, 1).double()
NOTHING = torch.tensor(-1.0, dtype=torch.float64)


def focal_of_p(losses: Any) -> tuple[Tensor, Tensor]:
    """Probabilities are those of the logits."""
    p = Z.sigmoid()
    return losses.FocalLoss("multiclass", from_logits=False)(p, Y), losses.FocalLoss("multiclass")(Z, Y)


def focal_ignored(losses: Any) -> tuple[Tensor, Tensor]:
    """A channel of which half is ignored is half the channel."""
    void = R.clone()
    void[..., 3:, :] = SENTINEL
    try:
        found = losses.FocalLoss("multilabel", ignore_index=SENTINEL)(Z, void)
    except IndexError:
        found = NOTHING
    return found, losses.FocalLoss("multilabel")(Z[..., :3, :], R[..., :3, :])


def focal_weighted(losses: Any) -> tuple[Tensor, Tensor]:
    """Equal weights change nothing."""
    settings = {"mode": "multiclass", "reduction": "batchwise_mean"}
    try:
        found = losses.FocalLoss(**settings, class_weights=[2.0, 2.0, 2.0])(Z, Y)
    except RuntimeError:
        found = NOTHING
    return found, losses.FocalLoss(**settings)(Z, Y)


def focal_soft(losses: Any) -> tuple[Tensor, Tensor]:
    """A target of ½ is a yes and a no, half each."""
    loss, z = losses.FocalLoss("binary"), Z[:, :1]
    return loss(z, torch.full_like(z, 0.5)), (loss(z, torch.ones_like(z)) + loss(z, torch.zeros_like(z))) / 2


def lovasz_of_p(losses: Any) -> tuple[Tensor, Tensor]:
    """Probabilities are those of the logits."""
    z, y = Z[:, :1], R[:, :1]
    loss = losses.LovaszLoss("binary", from_logits=False)
    return loss(z.sigmoid().float(), y), losses.LovaszLoss("binary")(z.float(), y)


def lovasz_void(losses: Any) -> tuple[Tensor, Tensor]:
    """A loss is a number, and 0 where nothing is to be learnt."""
    found = losses.LovaszLoss("multiclass", ignore_index=SENTINEL)(Z, torch.full_like(Y, SENTINEL))
    return (NOTHING if found.numel() != 1 else found), torch.zeros((), dtype=torch.float64)


def lovasz_one_void(losses: Any) -> tuple[Tensor, Tensor]:
    """The second image is ignored: it should be as if it were not there."""
    loss = losses.LovaszLoss("binary", per_image=True, ignore_index=SENTINEL)
    void = torch.cat([R[:1, :1], torch.full_like(R[1:, :1], SENTINEL)])
    return loss(Z[:, :1].float(), void), loss(Z[:1, :1].float(), R[:1, :1])


def unsmoothed(losses: Any) -> tuple[Tensor, Tensor]:
    """No smoothing is none."""
    try:
        found = losses.SoftCrossEntropyLoss()(Z, Y)
    except TypeError:
        found = NOTHING
    return found, torch.nn.functional.cross_entropy(Z, Y)


def raised_of_nothing(losses: Any) -> tuple[Tensor, Tensor]:
    """Where nothing is to be learnt the gradient is 0."""
    z = Z[:, :1].clone().requires_grad_()
    losses.TverskyLoss("binary", gamma=0.75)(z, torch.zeros_like(Y)).backward()
    assert z.grad is not None
    return z.grad.sum().nan_to_num(-1.0), torch.zeros((), dtype=torch.float64)


CASES: dict[tuple[str, str], Callable[[Any], tuple[Tensor, Tensor]]] = {
    ("FocalLoss", "from_logits=False, mode='multiclass'"): focal_of_p,
    ("FocalLoss", "ignore_index, mode='multilabel'"): focal_ignored,
    ("FocalLoss", "class_weights, reduction='batchwise_mean' or 'none'"): focal_weighted,
    ("FocalLoss", "soft targets"): focal_soft,
    ("LovaszLoss", "from_logits=False"): lovasz_of_p,
    ("LovaszLoss", "ignore_index, mode='multiclass', no valid pixel"): lovasz_void,
    ("LovaszLoss", "ignore_index, per_image=True, an image without a valid pixel"): lovasz_one_void,
    ("TverskyLoss", "gamma below 1, no class that counts is there"): raised_of_nothing,
    ("SoftCrossEntropyLoss", "smooth_factor=None, the default"): unsmoothed,
}


def test_every_fault_has_its_case():
    assert CASES.keys() == faults_of(ROWS)


@pytest.mark.parametrize(("name", "where"), CASES, ids=lambda text: text.replace(" ", "_"))
def test_their_fault_is_one_and_is_not_repeated(name, where):
    assert_only_theirs(lambda of: tuple(x.double() for x in CASES[name, where](of)), theirs, ours)


# ---- arguments, refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HERE)
def test_constructor_and_call_have_their_arguments(name):
    for method in ("__init__", "forward"):
        mine, other = (inspect.signature(getattr(getattr(losses, name), method)) for losses in (ours, theirs))
        assert [(p.name, p.default) for p in mine.parameters.values()] == [
            (p.name, p.default) for p in other.parameters.values()
        ]


def test_every_name_of_theirs_is_here_or_says_why_not():
    assert {*theirs.__all__} == {*ours.__all__}
    assert {*ROWS} == {name for name in ours.__all__ if not name.endswith("_MODE")}


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ours.MCCLoss(), ValueError, "lossmith.TwoClassDiceLoss"),
        (lambda: ours.DiceLoss("multi"), AssertionError, "mode must be 'binary', 'multiclass' or 'multilabel'"),
        (lambda: ours.DiceLoss("binary", class_weights=[1.0]), ValueError, "class_weights have no effect"),
        (lambda: ours.DiceLoss("binary", classes=[0]), AssertionError, "classes have no effect"),
        (lambda: ours.DiceLoss("binary", from_logits=False)(Z[:, :1], R[:, :1]), ValueError, "from_logits=True"),
        (lambda: ours.DiceLoss("multiclass", class_weights=[1, 2])(Z, Y), ValueError, "2 class_weights for 3 classes"),
        (lambda: ours.DiceLoss("multiclass")(Z[:, :1], Y), ValueError, "mode='binary'"),
        (lambda: ours.DiceLoss("multiclass")(Z, R), ValueError, "the target must hold 60 elements"),
        (lambda: ours.DiceLoss("multiclass")(Z, Y[:1]), AssertionError, "2 predictions and 1 targets"),
        (lambda: ours.FocalLoss("binary", normalized=True), ValueError, "there is no normalized here"),
        (lambda: ours.FocalLoss("binary", reduced_threshold=0.5), ValueError, "there is no reduced_threshold here"),
        (lambda: ours.FocalLoss("binary", reduction="max"), ValueError, "reduction must be"),
        (lambda: ours.FocalLoss("binary", gamma=None), ValueError, "gamma must be a number >= 0"),
        (lambda: ours.SoftCrossEntropyLoss(reduction="max"), ValueError, "reduction must be"),
        (lambda: ours.SoftBCEWithLogitsLoss(smooth_factor=0.6), ValueError, r"must lie in \[0, 0.5\]"),
        (lambda: ours.SoftBCEWithLogitsLoss(pos_weight=torch.ones(3))(Z, R), ValueError, r"must be \(3, 1, 1\)"),
        (lambda: ours.SoftBCEWithLogitsLoss()(Z, Y), ValueError, "must be shaped like the input"),
    ],
)
def test_what_cannot_be_honoured_raises(call, error, said):
    with pytest.raises(error, match=said):
        call()
