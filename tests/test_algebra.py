"""Sums of losses: +, -, *, schedules, slots, parts, and what is refused."""

from __future__ import annotations

import copy
import io
import math
import pickle
import re

import numpy as np
import pytest
import torch

import lossmith as ls
from lossmith.losses.dense import Dense
from problems import logits_of

Z = logits_of(2, 3, 4, 5)
Y = torch.arange(40).reshape(2, 4, 5) % 3
DICE, CE, FOCAL = ls.DiceLoss(), ls.CrossEntropyLoss(), ls.FocalLoss()


def test_plus_minus_times(engine):
    d, c, f = DICE(Z, Y), CE(Z, Y), FOCAL(Z, Y)
    for loss, expected in [
        (DICE + CE, d + c),
        (DICE - 0.5 * CE, d - 0.5 * c),
        (2 * (DICE + CE * 0.25) - FOCAL, 2 * d + 0.5 * c - f),
        (-DICE, -d),
        (sum([DICE, CE, FOCAL]), d + c + f),
        (DICE + DICE, 2 * d),
        (0.5 * (0.5 * (DICE + CE) + FOCAL), 0.25 * (d + c) + 0.5 * f),
    ]:
        torch.testing.assert_close(loss(Z, Y), expected, rtol=1e-12, atol=1e-12)
        again = ls.parse(repr(loss))
        assert repr(again) == repr(loss)
        torch.testing.assert_close(again(Z, Y), loss(Z, Y))


def test_parse_is_the_algebra():
    loss = ls.parse("0.5*(dice(squared=true, classes=[0, 1]) - 2*ce) + iou(absent='skip') * 3", ignore_index=7)
    assert repr(loss) == (
        "0.5 * DiceLoss(squared=True, classes=(0, 1), ignore_index=7) - CrossEntropyLoss(ignore_index=7)"
        " + 3.0 * JaccardLoss(absent='skip', ignore_index=7)"
    )
    assert repr(ls.parse("-dice")) == "-1.0 * DiceLoss()"
    assert ls.parse("bce").settings() == CE.settings()
    assert ls.parse("focal(alpha=none, gamma=5e-1)").gamma == 0.5
    assert ls.parse("DiceLoss(squared=True)").squared is True


def test_shared_settings_go_where_they_mean_something():
    loss = ls.parse("ce + dice + focal", per_image=False, gamma=3.0)
    assert repr(loss) == "CrossEntropyLoss() + DiceLoss(per_image=False) + FocalLoss(gamma=3.0)"
    assert ls.parse("ce(ignore_index=1)", ignore_index=2).ignore_index == 1


def test_one_pass_for_all_terms(answered):
    (DICE + CE + FOCAL + ls.TverskyLoss())(Z, Y)
    assert len(answered) == 1


def test_parts(engine):
    loss = DICE + 0.5 * CE + 2 * ls.DiceLoss(squared=True)
    parts = loss.parts(Z, Y)
    assert list(parts) == ["dice", "ce", "dice_2"]
    torch.testing.assert_close(sum(parts.values()), loss(Z, Y))
    classes = loss.parts(Z, Y, per_class=True)
    assert classes["dice"].shape == (3,)
    assert classes["ce"].shape == ()
    torch.testing.assert_close(classes["dice"].mean(), parts["dice"])
    torch.testing.assert_close(classes["dice_2"].mean(), parts["dice_2"])
    assert ls.GeneralizedDiceLoss().parts(Z, Y, per_class=True)["gdl"].shape == ()
    assert list(CE.parts(Z, Y)) == ["ce"]


def test_parts_per_class_of_images_that_lack_a_class(engine):
    labels = Y.clone()
    labels[0] = 0
    loss = ls.DiceLoss(absent="skip")
    each = ls.DiceLoss(reduction="none")(Z, labels)
    expected = torch.stack([each[:, 0].mean(), each[1, 1], each[1, 2]])
    torch.testing.assert_close(loss.parts(Z, labels, per_class=True)["dice"], expected)


def test_denominator_goes_to_the_terms_that_divide(engine):
    value = (DICE + CE)(Z, Y, denominator=10.0)
    torch.testing.assert_close(value, DICE(Z, Y) + ls.CrossEntropyLoss(reduction="sum")(Z, Y) / 10)
    torch.testing.assert_close(CE(Z, Y, denominator=torch.tensor(0)), ls.CrossEntropyLoss(reduction="sum")(Z, Y))


def test_refusals():
    with pytest.raises(ValueError, match="must agree on ignore_index: dice has -100, ce has 255"):
        DICE + ls.CrossEntropyLoss(ignore_index=255)
    with pytest.raises(ValueError, match="must agree on task: dice has None, ce has 'multilabel'"):
        DICE + ls.CrossEntropyLoss(task="multilabel")
    with pytest.raises(ValueError, match="reduction='none' and cannot be part of a sum"):
        DICE + ls.CrossEntropyLoss(reduction="none")
    for wrong in (lambda: DICE * CE, lambda: DICE + 1, lambda: 1 - DICE, lambda: DICE * "2", lambda: DICE / 2):
        with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
            wrong()
    a = ls.ramp(0, 0.1, 1)
    with pytest.raises(TypeError, match="a schedule times a schedule"):
        a * (a * DICE)
    for wrong in (lambda: a - DICE, lambda: (a - a) * DICE, lambda: a + a):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()
    with pytest.raises(ValueError, match="must be finite, got inf"):
        float("inf") * DICE
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        ls.ramp(0, float("nan"), 1)
    with pytest.raises(ValueError, match="never reaches its stop"):
        ls.ramp(0, -0.1, 1)


@pytest.mark.parametrize(
    ("make", "term", "number"),
    [
        (lambda: 1e308 * (1e308 * CE), "CrossEntropyLoss()", "inf"),
        (lambda: DICE - -1e200 * (-1e200 * -(CE + FOCAL)), "CrossEntropyLoss()", "-inf"),
        (lambda: 0 * math.inf * DICE, "DiceLoss()", "nan"),
        (lambda: 10**400 * DICE, "DiceLoss()", "inf"),
        (lambda: 1e308 * ls.DiceCELoss(dice_weight=1e30), "DiceLoss()", "inf"),
        (lambda: 1e308 * (ls.ramp(0, 1, 10) * DICE), "DiceLoss()", "inf"),
        (lambda: 1e308 * ((1 - ls.ramp(0, 1, 10)) * DICE), "DiceLoss()", "-inf"),
        (lambda: (1e308 * (1e308 * ls.ramp(0, 1, 10))) * DICE, "DiceLoss()", "nan"),
        (lambda: (1e308 + ls.ramp(1e308, 1, 1.1e308)) * DICE, "DiceLoss()", "inf"),
        (lambda: ls.ramp(0, 1, 1e300) * ls.DiceCELoss(ce_weight=1e30), "CrossEntropyLoss()", "inf"),
    ],
)
def test_weights_are_finite_after_the_algebra(make, term, number):
    with pytest.raises(ValueError, match=re.escape(f"the weight of {term} must be finite, got {number}")):
        make()


A_HALF = [np.float32(0.5), np.float64(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).half()]


@pytest.mark.parametrize("half", A_HALF, ids=lambda x: f"{type(x).__name__}-{x.dtype}")
def test_numbers_of_numpy_and_torch_are_weights(half):
    a = ls.ramp(0.0, 0.25, 1.0)
    for loss in (half * DICE, DICE * half):
        assert repr(loss) == "0.5 * DiceLoss()"
        assert type(loss.terms[0][0]) is float
    for schedule in (half * a, a * half, half - a, a - half, half + a, a + half):
        assert isinstance(schedule * DICE, ls.Loss)
    assert ((half - a).value, (a + half).value, (half * a).scale) == (0.5, 0.5, 0.5)
    assert repr((np.int64(2) * DICE) * torch.tensor(3)) == "6.0 * DiceLoss()"


def test_what_is_no_number_is_no_weight():
    for wrong in (np.ones(1), torch.ones(1), np.array([1.0, 2.0]), torch.ones(2), np.complex64(1), torch.tensor(1j)):
        for product in (lambda x=wrong: x * DICE, lambda x=wrong: DICE * x, lambda x=wrong: x * ls.ramp(0, 1, 2)):
            with pytest.raises(TypeError, match=r"unsupported operand|does not support ufuncs"):
                product()
    learned = torch.tensor(0.5, requires_grad=True)
    for product in (lambda: learned * DICE, lambda: DICE * learned, lambda: ls.ramp(0, 1, 2) * learned):
        with pytest.raises(TypeError, match="a weight is a number: a tensor that requires a gradient"):
            product()


def test_schedules():
    a = ls.ramp(0.01, 0.01, 0.03)
    loss = (1 - a) * DICE + a * CE
    d, c = DICE(Z, Y), CE(Z, Y)
    for expected in (0.01, 0.02, 0.03, 0.03):
        torch.testing.assert_close(loss(Z, Y), (1 - expected) * d + expected * c)
        loss.step()
    assert repr(ls.parse(repr(loss))) == repr(loss)
    falling = ls.ramp(1.0, -0.25, 0.5) * DICE
    weights = []
    for _ in range(4):
        weights.append(float(falling(Z, Y) / d))
        falling.step()
    assert weights == pytest.approx([1.0, 0.75, 0.5, 0.5])
    value = (2 * (0.5 - a) * DICE)(Z, Y)
    torch.testing.assert_close(value, 2 * (0.5 - a.value) * d)


def test_schedules_live_in_the_state_dict():
    a = ls.ramp(0.0, 0.1, 1.0)
    loss = (1 - a) * DICE + a * CE
    loss.step()
    loss.step()
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    b = ls.ramp(0.0, 0.1, 1.0)
    fresh = (1 - b) * DICE + b * CE
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert b.value == pytest.approx(0.2)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        other.step()  # one ramp still, and not the first one's
        torch.testing.assert_close(other(Z, Y), 0.7 * DICE(Z, Y) + 0.3 * CE(Z, Y))
    assert a.value == pytest.approx(0.2)


class _Edges(Dense):
    """Half of cross-entropy on an input of its own: stands for the losses that read boxes or distributions."""

    family = "pixel"
    slot = "edge"
    takes = frozenset({"weight", "denominator"})

    def wants(self):
        return CE.wants()

    def value(self, batch):
        return 0.5 * CE.value(batch)


def test_slots(engine):
    loss = DICE + CE + _Edges(ignore_index=7)  # terms that read different inputs need not agree
    z, y = Z[:, :2], Y.clamp(max=1)
    expected = DICE(Z, Y) + CE(Z, Y) + 0.5 * CE(z, y)
    torch.testing.assert_close(loss(score=(Z, Y), edge=(z, y)), expected)
    assert list(loss.parts(score=(Z, Y), edge=(z, y))) == ["dice", "ce", "_Edges"]
    weight = torch.tensor([1.0, 3.0])
    weighted = loss(score=(Z, Y), edge=(z, y), weight={"edge": weight}, denominator={"score": 5.0})
    expected = DICE(Z, Y) + ls.CrossEntropyLoss(reduction="sum")(Z, Y) / 5 + 0.5 * CE(z, y, weight=weight)
    torch.testing.assert_close(weighted, expected)
    with pytest.raises(TypeError, match=r"reads 2 different inputs: call loss\(score=\(input, target\), edge="):
        loss(Z, Y)
    with pytest.raises(TypeError, match="give score=\\(input, target\\) or two arguments, not both"):
        CE(Z, Y, score=(Z, Y))
    with pytest.raises(TypeError, match="the input 'edge' is missing; give edge="):
        loss(score=(Z, Y))
    with pytest.raises(TypeError, match=r"edge must be a pair \(input, target\)"):
        loss(score=(Z, Y), edge=z)
    with pytest.raises(TypeError, match=r"weight names the inputs 'box', but there are 'edge', 'score'"):
        loss(score=(Z, Y), edge=(z, y), weight={"box": weight})
    torch.testing.assert_close(CE(score=(Z, Y)), CE(Z, Y))
    with pytest.raises(TypeError, match=r"the input 'score' is missing; call loss\(logits, target\)"):
        CE()
