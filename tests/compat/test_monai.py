"""MONAI's losses and what stands for them here, held against each other: values, gradients, arguments, refusals."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import assert_only_theirs, disagreement, faults_of
from draws import MONAI, SENTINEL, Draw
from torch import Tensor

import lossmith as ls
from lossmith import compat
from lossmith.compat import monai as ours
from lossmith.compat.monai import elsewhere
from lossmith.compat.peer import TABLE
from test_docs import script

theirs = pytest.importorskip("monai.losses")
ROWS = {row.name: row for row in TABLE.values() if row.library == "monai"}
HERE = {name: row for name, row in ROWS.items() if row.ours}
CONFIGURATIONS = 200


# ---- the same values ------------------------------------------------------------------------------------------------


def faulty(name: str, draw: Draw) -> str:
    """The fault of theirs, as the table names it, that a call shows; "" if it shows none."""
    settings, several = draw.settings, draw.input.shape[1] > 1
    if name == "MaskedDiceLoss" and settings.get("to_onehot_y") and several:
        return "to_onehot_y=True with a mask"
    if name == "DiceCELoss" and settings.get("sigmoid") and several:
        return "sigmoid=True with several channels"
    several = draw.input.shape[1] > (1 if settings.get("include_background", True) else 2)
    if name == "FocalLoss" and "ignore_index" in settings and several and settings.get("reduction", "mean") == "mean":
        return "ignore_index, several channels, reduction='mean'"
    return ""


@pytest.mark.parametrize("name", MONAI)
def test_values_and_gradients_are_theirs(name):
    """200 random configurations of each class: where the table names no fault they agree, and where it does some do
    not: a fault that is mended there turns this red."""
    shown: dict[str, int] = {}
    for number in range(CONFIGURATIONS):
        draw = MONAI[name](random.Random(f"{name}{number}"))
        fault = faulty(name, draw)
        found = disagreement(getattr(theirs, name), getattr(ours, name), draw)
        assert fault or not found, (number, draw.settings, tuple(draw.input.shape), tuple(draw.target.shape), found)
        if fault:
            shown[fault] = shown.get(fault, 0) + bool(found)
    assert all(shown.values()), shown
    assert shown.keys() <= {fault.where for fault in ROWS[name].faults}


def test_every_class_is_drawn():
    assert {*MONAI, "DeepSupervisionLoss"} == {*HERE}


# ---- their faults, one by one ----------------------------------------------------------------------------------------

Z = 2 * torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 3, (2, 1, 6, 5), generator=torch.Generator().manual_seed(1)).double()
R = torch.zeros_like(Z).scatter_(1, Y.long(), 1.0)
VOID, EMPTY, ABSENT = (
    "ignore_index, an image without a valid pixel",
    "smooth_nr=0 and smooth_dr=0, a class neither there nor predicted",
    "smooth_nr=0 and smooth_dr=0, an image with none of the classes that count",
)
BARE: dict[str, Any] = {"smooth_nr": 0.0, "smooth_dr": 0.0, "softmax": True, "to_onehot_y": True}


def one_void(name: str) -> Callable[[Any], tuple[Tensor, Tensor]]:
    """The second image is ignored: it should be as if it were not there."""

    def case(losses: Any) -> tuple[Tensor, Tensor]:
        loss = getattr(losses, name)(to_onehot_y=True, softmax=True, ignore_index=SENTINEL)
        void = torch.cat([Y[:1], torch.full_like(Y[1:], SENTINEL)])
        return loss(Z, void), loss(Z[:1], Y[:1])

    return case


def empty(name: str) -> Callable[[Any], tuple[Tensor, Tensor]]:
    """Class 2 is neither there nor predicted, without smoothing: a number, and a right one is 0 for that class."""

    def case(losses: Any) -> tuple[Tensor, Tensor]:
        z = torch.where(torch.arange(3).view(1, 3, 1, 1) == 2, -torch.inf, 30.0 * R)
        loss = getattr(losses, name)(**BARE)
        return loss(z, Y.clamp(max=1)).nan_to_num(-1.0), getattr(ours, name)(**BARE | SMALL)(z, Y.clamp(max=1))

    return case


def absent(name: str) -> Callable[[Any], tuple[Tensor, Tensor]]:
    """One channel and an empty target, without smoothing: a number, as with a little of it."""

    def case(losses: Any) -> tuple[Tensor, Tensor]:
        bare = {"smooth_nr": 0.0, "smooth_dr": 0.0, "sigmoid": True}
        z, nothing = Z[:, :1], torch.zeros_like(Z[:, :1])
        return getattr(losses, name)(**bare)(z, nothing).nan_to_num(-1.0), getattr(ours, name)(**bare | SMALL)(
            z, nothing
        )

    return case


SMALL = {"smooth_nr": 1e-30, "smooth_dr": 1e-30}


def masked(losses: Any) -> tuple[Tensor, Tensor]:
    """The mask is a half of the image: it should be as if that half were the image."""
    mask = torch.zeros(2, 1, 6, 5, dtype=torch.float64)
    mask[:, :, :3] = 1
    loss = losses.MaskedDiceLoss(to_onehot_y=True, softmax=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return loss(Z, Y, mask), loss(Z[:, :, :3], Y[:, :, :3])


def unignored(losses: Any) -> tuple[Tensor, Tensor]:
    """An ignore_index that no label has should change nothing."""
    return (
        losses.FocalLoss(to_onehot_y=True, ignore_index=SENTINEL)(Z, Y),
        losses.FocalLoss(to_onehot_y=True)(Z, Y),
    )


def soft_focal(losses: Any) -> tuple[Tensor, Tensor]:
    """A target of ½ is a yes and a no, half each."""
    z = Z[:, :1]
    loss = losses.FocalLoss()
    return loss(z, torch.full_like(z, 0.5)), (loss(z, torch.ones_like(z)) + loss(z, torch.zeros_like(z))) / 2


def sigmoid_ce(losses: Any) -> tuple[Tensor, Tensor]:
    """Channels that do not exclude each other have a binary cross-entropy each."""
    both = (R + R.roll(1, 1)).clamp(max=1)
    return (
        losses.DiceCELoss(sigmoid=True, lambda_dice=0.0)(Z, both),
        torch.nn.functional.binary_cross_entropy_with_logits(Z, both),
    )


def whole_pixels(losses: Any) -> tuple[Tensor, Tensor]:
    """The dtype of a target says nothing of where it lies."""
    loss, y = losses.HausdorffDTLoss(sigmoid=True), (Y > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return loss(Z[:, :1], y.long()), loss(Z[:, :1], y.double())


def unified_void(losses: Any) -> tuple[Tensor, Tensor]:
    """The second image is ignored."""
    p, y = Z[:, :1].sigmoid(), (Y > 0).double()
    loss = losses.AsymmetricUnifiedFocalLoss(ignore_index=SENTINEL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return loss(p, torch.cat([y[:1], torch.full_like(y[1:], SENTINEL)])), loss(p[:1], y[:1])


def unified_logits(losses: Any) -> tuple[Tensor, Tensor]:
    """Numbers beyond [0, 1] have no meaning; theirs gives them one."""
    try:
        return losses.AsymmetricUnifiedFocalLoss()(Z[:, :1], (Y > 0).double()), torch.tensor(-1.0).double()
    except ValueError:
        return torch.zeros(()), torch.zeros(())


CASES: dict[tuple[str, str], Callable[[Any], tuple[Tensor, Tensor]]] = {
    **{(name, VOID): one_void(name) for name in ("DiceLoss", "TverskyLoss")},
    **{(name, EMPTY): empty(name) for name in ("DiceLoss", "TverskyLoss", "DiceCELoss", "DiceFocalLoss")},
    **{(name, ABSENT): absent(name) for name in ("GeneralizedDiceLoss", "GeneralizedDiceFocalLoss")},
    ("MaskedDiceLoss", "to_onehot_y=True with a mask"): masked,
    ("FocalLoss", "ignore_index, several channels, reduction='mean'"): unignored,
    ("FocalLoss", "soft targets under a sigmoid"): soft_focal,
    ("DiceCELoss", "sigmoid=True with several channels"): sigmoid_ce,
    ("HausdorffDTLoss", "a target of integers without to_onehot_y"): whole_pixels,
    ("AsymmetricUnifiedFocalLoss", "ignore_index"): unified_void,
    ("AsymmetricUnifiedFocalLoss", "y_pred that is no probability"): unified_logits,
}


def test_every_fault_has_its_case():
    assert CASES.keys() == faults_of(ROWS)


@pytest.mark.parametrize(("name", "where"), CASES, ids=lambda text: text.replace(" ", "_"))
def test_their_fault_is_one_and_is_not_repeated(name, where):
    assert_only_theirs(CASES[name, where], theirs, ours)


# ---- the same arguments ----------------------------------------------------------------------------------------------


def arguments(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {name: getattr(p.default, "value", p.default) for name, p in parameters.items() if name != "self"}


@pytest.mark.parametrize("name", HERE)
def test_constructor_and_call_have_their_arguments(name):
    for method in ("__init__", "forward"):
        mine, other = (arguments(getattr(getattr(losses, name), method)) for losses in (ours, theirs))
        assert list(mine.items()) == list(other.items())


def test_every_name_of_theirs_is_here_or_says_why_not():
    exported = {name for name, x in vars(theirs).items() if inspect.isclass(x) and not name.startswith("_")}
    assert exported == {*ours.__all__}
    for name in ours.__all__:
        assert ROWS.get(getattr(ours, name).__name__), name
    assert {*ROWS} == {getattr(ours, name).__name__ for name in ours.__all__}


@pytest.mark.parametrize("name", elsewhere.REASONS)
def test_what_is_elsewhere_says_so(name):
    with pytest.raises(ValueError, match=f"monai.losses.{name} has no counterpart in lossmith: ") as error:
        getattr(ours, name)(1, key=2)
    for word in str(error.value).replace(",", " ").replace("(", " ").split():
        if word.startswith("lossmith."):
            assert getattr(ls, word.removeprefix("lossmith."))


# ---- what pipelines hand over ----------------------------------------------------------------------------------------


def test_metatensors_of_float_labels():
    from monai.data import MetaTensor

    z, loss = Z.float().requires_grad_(), ours.DiceCELoss(to_onehot_y=True, softmax=True)
    value = loss(MetaTensor(z), MetaTensor(Y.float()))
    value.backward()
    assert type(value) is Tensor
    torch.testing.assert_close(value, loss(Z, Y).float())
    assert z.grad is not None


def test_a_loss_travels():
    loss = ours.DiceLoss(to_onehot_y=True, softmax=True, weight=[1, 2, 3], smooth_nr=0)
    assert repr(loss) == "DiceLoss(to_onehot_y=True, softmax=True, weight=[1, 2, 3], smooth_nr=0)"
    expected = loss(Z, Y)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss.to(torch.float16)):
        assert torch.equal(twin(Z, Y), expected)
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("DiceLoss", {"include_background": False, "sigmoid": True}, "include_background=False"),
        ("DiceLoss", {"softmax": True}, "softmax=True"),
        ("DiceLoss", {"to_onehot_y": True}, "to_onehot_y=True"),
        ("DiceCELoss", {"to_onehot_y": True, "sigmoid": True}, "to_onehot_y=True"),
        ("DiceCELoss", {"label_smoothing": 0.1, "sigmoid": True}, "label_smoothing"),
        ("FocalLoss", {"include_background": False}, "include_background=False"),
    ],
)
def test_what_one_channel_has_no_use_for_is_said(name, settings, said):
    with pytest.warns(UserWarning, match=f"{said} has no effect on one channel"):
        getattr(ours, name)(**settings)(Z[:, :1].sigmoid(), (Y > 0).double())


def test_heads_of_several_resolutions():
    """Around one of ours, one of theirs and a function."""
    heads = [Z.float(), Z[:, :, ::2, ::2].float()]
    for loss in (ours.DiceLoss(to_onehot_y=True, softmax=True), theirs.DiceLoss(to_onehot_y=True, softmax=True)):
        for settings in (
            {},
            {"weight_mode": "two"},
            {"weight_mode": "same"},
            {"weights": [2.0, 3.0]},
            {"weights": [1.0]},
        ):
            mine = ours.DeepSupervisionLoss(loss, **settings)(heads, Y.float())
            torch.testing.assert_close(mine, theirs.DeepSupervisionLoss(loss, **settings)(heads, Y.float()))
    single = ours.DeepSupervisionLoss(lambda z, y: z.mean())
    torch.testing.assert_close(single(heads[0], Y), heads[0].mean())
    with pytest.raises(ValueError, match="the input is None"):
        single(None, Y)


# ---- probabilities ---------------------------------------------------------------------------------------------------


def test_probabilities_of_exactly_0_and_1_keep_value_and_gradient():
    right, wrong = R.float(), (1 - R).roll(1, 2).float()
    for name in ("DiceLoss", "TverskyLoss", "GeneralizedDiceLoss", "BoundaryLoss", "HausdorffDTLoss"):
        for p in (right, wrong):
            draw = Draw({"include_background": True}, p, R)
            assert not disagreement(getattr(theirs, name), getattr(ours, name), draw), name
    for name in ("DiceLoss", "TverskyLoss", "GeneralizedDiceLoss"):
        assert float(getattr(ours, name)()(right, R)) == 0


@pytest.mark.parametrize("name", ["DiceLoss", "TverskyLoss", "GeneralizedDiceLoss", "BoundaryLoss", "HausdorffDTLoss"])
def test_logits_are_not_taken_for_probabilities(name):
    with pytest.raises(ValueError, match="is no probability: logits want sigmoid=True or softmax=True"):
        getattr(ours, name)(include_background=True)(Z.clone().requires_grad_(), R)  # torch warns of a careless float()
    getattr(ours, name)(include_background=True, softmax=True)(Z, R)
    getattr(ours, name)(include_background=True, sigmoid=True)(Z, R)


# ---- distance maps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 7), (3, 4, 5)])
def test_the_map_of_the_boundary_loss_is_theirs(size):
    target = (torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    target[0, 0], target[0, 1] = 0, 1  # no boundary
    mine, other = (losses.BoundaryLoss().compute_distance_map(target) for losses in (ours, theirs))
    torch.testing.assert_close(mine, other)
    assert not mine[0, :2].any()


@pytest.mark.parametrize("name", ["DiceLoss", "BoundaryLoss", "FocalLoss", "AsymmetricUnifiedFocalLoss"])
def test_a_target_of_another_shape_is_said_to_be(name):
    with pytest.raises((AssertionError, ValueError), match=r"shapes do not match: the target .* like the input"):
        getattr(ours, name)()(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 5, 6))


@pytest.mark.parametrize("softmax", [False, True])
def test_alphas_of_another_number_of_classes(softmax):
    with pytest.raises(ValueError, match="FocalLoss: the length of alpha is 2, of 3 classes"):
        ours.FocalLoss(to_onehot_y=True, alpha=[0.1, 0.5], use_softmax=softmax)(Z, Y)


# ---- the documents ---------------------------------------------------------------------------------------------------


def test_rivals_of_the_benchmark_are_what_stands_for_them():
    """Every row of MONAI in docs/rivals.py by what is here; the faults in it are in our table too."""
    with script("rivals") as rivals:
        rows = [row for row in rivals.RIVALS if row.library == "MONAI"]
        apart = {row.theirs for row in rows if not same_value(rivals, row)}
    assert len(rows) > 15
    assert apart == {
        "DiceLoss()",  # logits without an activation
        "AsymmetricUnifiedFocalLoss()(z, y), C = 2",
        "DiceCELoss(sigmoid=True, smooth_nr=1, smooth_dr=1), multilabel",
        "HausdorffDTLoss(sigmoid=True)(z, y), C = 1, y integer",
    }


def same_value(rivals: Any, row: Any) -> bool:
    z, y = rivals.fixture(row.task)
    found = [rivals.measured(row.call, z, y, **where) for where in ({}, {"losses": "lossmith.compat.monai"})]
    return isinstance(found[1], float) and found[1] == pytest.approx(found[0], rel=1e-6)


def test_the_page_is_current():
    with script("compat") as page:
        text = page.PAGE.read_text(encoding="utf-8")
        assert page.written(text) == text


def test_nothing_here_imports_a_peer():
    for file in Path(compat.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "torch"}, (file, names)


def test_a_bundle_names_it_in_its_configuration():
    from monai.bundle import ConfigParser

    said = {"loss": {"_target_": "lossmith.compat.monai.DiceCELoss", "to_onehot_y": True, "softmax": True}}
    loss = ConfigParser(said).get_parsed_content("loss")
    torch.testing.assert_close(loss(Z, Y), theirs.DiceCELoss(to_onehot_y=True, softmax=True)(Z, Y))
