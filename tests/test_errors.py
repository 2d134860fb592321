"""Every way to call a loss wrongly gives one error that names the loss, what it got and the likely fix."""

from __future__ import annotations

import math

import pytest
import torch

import lossmith as ls

Z = torch.zeros(2, 3, 4, 5)
Y = torch.zeros(2, 4, 5, dtype=torch.long)
ONE = torch.zeros(2, 1, 4, 5)

CALLS = [
    # logits
    (ls.DiceLoss(), (Z.long(), Y), TypeError, ["DiceLoss", "logits must be a floating-point tensor", "torch.int64"]),
    (ls.DiceLoss(), ([1.0], Y), TypeError, ["DiceLoss", "logits must be a floating-point tensor", "list"]),
    (ls.DiceLoss(), (torch.zeros(3), Y), ValueError, ["logits must be (N, C, *S)", "(3,)"]),
    (ls.DiceLoss(), (torch.zeros(2, 0, 4, 5), Y), ValueError, ["C >= 1", "(2, 0, 4, 5)"]),
    # target
    (ls.DiceLoss(), (Z,), TypeError, ["the target must be a tensor", "call loss(logits, target)"]),
    (ls.DiceLoss(), (Z, Y, Y), TypeError, ["takes logits and a target, got 3"]),
    (ls.FocalLoss(), (Z, Y[:, :2]), ValueError, ["FocalLoss", "(2, 4, 5)", "(2, 1, 4, 5)", "got a target (2, 2, 5)"]),
    (ls.FocalLoss(), (Z, Y + 0.5), TypeError, ["labels (2, 4, 5) for 3 classes", "whole numbers, got 0.5", "round()"]),
    (ls.FocalLoss(), (Z, Z), ValueError, ["ambiguous", "task='multiclass'", "task='multilabel'"]),
    (ls.FocalLoss(), (ONE, Z), ValueError, ["one channel", "(2, 1, 4, 5)", "got (2, 3, 4, 5)"]),
    (ls.FocalLoss(), (Z, Y.to(torch.complex64)), TypeError, ["integers or real numbers", "complex64"]),
    # task
    (ls.FocalLoss(task="multiclass"), (ONE, Y), ValueError, ["one channel, which is always binary", "two channels"]),
    (ls.FocalLoss(task="binary"), (Z, Y), ValueError, ["task='binary' needs logits with one channel", "multilabel"]),
    # values
    (
        ls.DiceLoss(),
        (Z, Y + 3),
        ValueError,
        ["holds 3", "C = 3", "0 to 2", "ignore_index is -100", "is 3 an ignore_index?"],
    ),
    (ls.DiceLoss(), (Z, Y - 1), ValueError, ["holds -1", "is -1 an ignore_index?"]),
    (ls.DiceLoss(), (ONE, Y + 255), ValueError, ["holds 255", "0 to 1", "(mask > 0)"]),
    (ls.DiceLoss(), (Z, Y + 255), ValueError, ["holds 255", "ignore_index=255"]),
    (ls.DiceLoss(), (Z, (Y + 156).to(torch.uint8)), ValueError, ["holds 156"]),
    (ls.DiceLoss(), (ONE, ONE + 1.5), ValueError, ["holds 1.5", "0 to 1", "sigmoid()", "clamp(0, 1)"]),
    (ls.DiceLoss(task="multilabel"), (Z, Y + 4), ValueError, ["holds 4", "0 to 3"]),
    # settings that do not fit the input
    (ls.DiceLoss(classes=(1, 3)), (Z, Y), ValueError, ["classes=(1, 3) names class 3", "C = 3"]),
    (ls.DiceLoss(class_weight=[1, 2]), (Z, Y), ValueError, ["class_weight needs 3 values", "one per class", "(2,)"]),
    (
        ls.CrossEntropyLoss(class_weight=[1, 2, 3]),
        (ONE, Y),
        ValueError,
        ["class_weight needs 2", "(negative, positive)"],
    ),
    (ls.DiceCELoss(class_weight=[1, 2, 3]), (ONE, Y), ValueError, ["class_weight needs 2", "(negative, positive)"]),
    (ls.DiceLoss(class_weight=[0, 0]), (ONE, Y), ValueError, ["class_weight has no effect on dice with one channel"]),
    (ls.FocalLoss(alpha=0.25), (Z, Y), ValueError, ["alpha=0.25 is one number", "3 classes"]),
    (ls.FocalLoss(alpha=[0.5, 1.0]), (Z, Y), ValueError, ["alpha needs 3 values"]),
    (ls.FocalLoss(alpha=[0.5, 1.0]), (ONE, Y), ValueError, ["one per channel (1), got 2"]),
    (ls.FocalLoss(alpha=torch.tensor(1.5)), (ONE, Y), ValueError, ["alpha of a yes or no must lie in [0, 1], got 1.5"]),
]


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case[3][0][:40])
def test_wrong_call(case, engine):
    loss, inputs, kind, words = case
    with pytest.raises(kind) as error:
        loss(*inputs)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


WEIGHTS = [
    ({"weight": torch.ones(3)}, ValueError, ["weight must be (2,)", "(2, 4, 5)", "got (3,)"]),
    ({"weight": [1.0, 2.0]}, TypeError, ["weight must be a real tensor", "list"]),
    ({"weight": torch.tensor([1.0, -1.0])}, ValueError, ["weights must be >= 0, got -1"]),
    ({"denominator": torch.ones(2)}, ValueError, ["the denominator must be one number >= 0"]),
    ({"denominator": -1.0}, ValueError, ["the denominator must be one number >= 0, got -1.0"]),
    ({"denominator": math.inf}, ValueError, ["the denominator must be one number >= 0, got inf", "every loss 0"]),
    ({"denominator": torch.tensor(math.inf)}, ValueError, ["one number >= 0, got tensor(inf), which"]),
    ({"denominator": "a"}, ValueError, ["the denominator must be one number >= 0, got 'a'"]),
    ({"mask": torch.ones(2)}, TypeError, ["takes no 'mask' in a call", "weight"]),
]


@pytest.mark.parametrize("case", WEIGHTS, ids=lambda case: case[2][0][:40])
def test_wrong_keyword_of_a_call(case, engine):
    call, kind, words = case
    with pytest.raises(kind) as error:
        (ls.DiceLoss() + ls.CrossEntropyLoss())(Z, Y, **call)
    for word in words:
        assert word in str(error.value)


def test_denominator_where_it_means_nothing():
    with pytest.raises(TypeError, match=r"DiceLoss\(\) takes no 'denominator'"):
        ls.DiceLoss()(Z, Y, denominator=3.0)
    with pytest.raises(ValueError, match="belongs to reduction='mean', not to 'sum'"):
        ls.CrossEntropyLoss(reduction="sum")(Z, Y, denominator=3.0)


def test_a_text_nested_too_deeply():
    with pytest.raises(ValueError, match="nested too deeply"):
        ls.parse("(" * 3000)


SETTINGS = [
    (lambda: ls.DiceLoss(smoth=1), TypeError, ["DiceLoss has no setting 'smoth'", "did you mean 'smooth'?"]),
    (lambda: ls.DiceLoss(zzz=1), TypeError, ["no setting 'zzz'", "there are:", "smooth"]),
    (lambda: ls.DiceLoss(smooth=-1), ValueError, ["smooth must be a number >= 0", "-1"]),
    (lambda: ls.DiceLoss(smooth="1"), TypeError, ["smooth must be a finite number", "'1'"]),
    (lambda: ls.DiceLoss(smooth=math.nan), ValueError, ["smooth must be a finite number", "nan"]),
    (lambda: ls.DiceLoss(squared=1), TypeError, ["squared must be True or False"]),
    (lambda: ls.DiceLoss(reduction="avg"), ValueError, ["reduction must be one of 'mean', 'sum', 'none'", "'avg'"]),
    (lambda: ls.DiceLoss(absent="max"), ValueError, ["absent must be one of 'smooth', 'skip'"]),
    (lambda: ls.DiceLoss(classes="0"), TypeError, ["classes must be a list of integers"]),
    (lambda: ls.DiceLoss(ignore_index=1.5), TypeError, ["ignore_index must be an integer"]),
    (lambda: ls.DiceLoss(task="multi"), ValueError, ["task must be one of 'multiclass', 'binary', 'multilabel'"]),
    (lambda: ls.DiceLoss(class_weight=["a"]), TypeError, ["class_weight must be a list of finite numbers >= 0"]),
    (lambda: ls.DiceLoss(class_weight=[1.0, -1.0]), ValueError, ["class_weight must be a list of finite numbers >= 0"]),
    (lambda: ls.DiceLoss(class_weight=[]), ValueError, ["class_weight must be a list of finite numbers >= 0"]),
    (lambda: ls.DiceLoss(classes=[]), ValueError, ["classes must be a list of integers"]),
    (lambda: ls.DiceLoss(smooth=10**400), ValueError, ["smooth must be a finite number"]),
    (lambda: ls.DiceLoss(ignore_index=2**70), ValueError, ["ignore_index must be an integer"]),
    (lambda: ls.parse("dice", gamma=3), TypeError, ["no loss here has a setting 'gamma'", "none of DiceLoss() does"]),
    (lambda: ls.parse(None), TypeError, ["parse reads a text", "NoneType"]),
    (lambda: ls.DiceLoss(class_weight=[math.inf]), ValueError, ["class_weight must be a list of finite numbers"]),
    (
        lambda: ls.WeightedCrossEntropyLoss(clamp=(2.0, 1.0)),
        ValueError,
        ["clamp must be two numbers, 0 < low <= high", "2.0"],
    ),
    (lambda: ls.FocalLoss(gamma=-0.1), ValueError, ["gamma must be a number >= 0"]),
    (lambda: ls.FocalTverskyLoss(exponent=0.0), ValueError, ["exponent must be a number >= 0.001", "got 0.0"]),
    (lambda: ls.LogDiceLoss(exponent=0.0), ValueError, ["exponent must be a number >= 0.001"]),
    (lambda: ls.ExpLogLoss(gamma=0.0), ValueError, ["gamma must be a number >= 0.001"]),
    (lambda: ls.SIoULoss(theta=0.0), ValueError, ["theta must be a number >= 0.001"]),
    (
        lambda: ls.UnifiedFocalLoss(gamma=1.0),
        ValueError,
        ["UnifiedFocalLoss: gamma must be a number in [0, 0.999], got 1.0"],
    ),
    (lambda: ls.FocalLoss(alpha=2.0), ValueError, ["alpha must be a number in [0, 1]"]),
    (lambda: ls.CrossEntropyLoss(label_smoothing=1.1), ValueError, ["label_smoothing must be a number in [0, 1]"]),
    (
        lambda: ls.GeneralizedDiceLoss(class_weight=[1, 2]),
        TypeError,
        ["takes no class_weight", "its weights come from the sizes"],
    ),
    (lambda: ls.parse("dice", smoth=1), TypeError, ["no loss here has a setting 'smoth'", "did you mean 'smooth'?"]),
]


@pytest.mark.parametrize("case", SETTINGS, ids=lambda case: case[2][0][:40])
def test_wrong_setting(case):
    """A wrong type is a TypeError, a wrong value of the right type a ValueError, as in torch and in Python."""
    make, kind, words = case
    with pytest.raises(kind) as error:
        make()
    assert type(error.value) is kind
    for word in words:
        assert word in str(error.value)


TEXTS = [
    ("", 0, "no loss here"),
    ("dise", 0, "no loss is called 'dise'; did you mean 'dice'?"),
    ("dice + foca", 7, "did you mean 'focal'?"),
    ("dice +", 6, "the text ends too early"),
    ("dice + * ce", 7, "expected a loss or a number, got '*'"),
    ("(dice + ce", 10, "expected ')', but the text ends"),
    ("dice ce", 5, "unexpected 'ce'"),
    ("dice & ce", 5, "unexpected '&'"),
    ("dice(1)", 5, "settings are written as name=value"),
    ("dice(smooth)", 5, "settings are written as name=value"),
    ("dice(smooth=1 squared=true)", 14, "expected ','"),
    ("dice(smooth=1, smooth=2)", 15, "smooth is set twice"),
    ("dice(smooth=foo)", 12, "a value is a number"),
    ("dice(classes=[1, 2)", 18, "expected ','"),
    ("2 * 3", 0, "this is a number, not a loss"),
    ("dice + 1", 5, "losses are added to losses"),
    ("dice * ce", 5, "losses are added to losses"),
    ("ramp(start=0, step=0.1, stop=1)*(ramp(start=0, step=0.1, stop=1)*dice)", 31, "schedule times a schedule"),
    ("ramp(0, 1, 2)*dice", 5, "settings are written as name=value"),
    ("ramp(start=0)*dice", 0, "write ramp(start=0.01"),
    ("__import__('os')", 11, "settings are written as name=value"),
]


@pytest.mark.parametrize(("text", "position", "message"), TEXTS)
def test_wrong_text(text, position, message):
    points_at(text, position, message)


def points_at(text, position, message):
    """Reading the text is an error that says this, quotes the text, and points at this character."""
    with pytest.raises(ValueError, match=r"\^") as error:
        ls.parse(text)
    first, quoted, pointer = str(error.value).splitlines()
    assert message in first
    assert quoted == f"  {text}"
    assert pointer.index("^") - 2 == position


def test_a_wrong_setting_in_a_text_points_at_its_loss():
    with pytest.raises(TypeError, match="did you mean 'gamma'") as error:
        ls.parse("dice + focal(gama=2)")
    assert str(error.value).splitlines()[-1].index("^") - 2 == 7


def test_labels_out_of_range_become_nan_where_looking_would_cost():
    """As on an accelerator: traced and transformed code must not look at values."""
    for loss in (ls.DiceLoss(), ls.CrossEntropyLoss(), ls.FocalLoss(reduction="none")):
        value = torch.func.vmap(lambda z, y, f=loss: f(z[None], y[None]))(Z, Y + 3)
        assert value.isnan().any()
