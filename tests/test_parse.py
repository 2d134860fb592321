"""Texts that describe losses: shared ramps, long texts, deep ones, and where an error points."""

from __future__ import annotations

import pytest
import torch

import lossmith as ls
from lossmith.loss import Sum
from problems import logits_of
from test_errors import points_at

Z = logits_of(2, 3, 4, 5)
Y = torch.arange(40).reshape(2, 4, 5) % 3


def shared() -> ls.Loss:
    a, b, c = ls.ramp(0.0, 0.25, 1.0), ls.ramp(1.0, -0.5, 0.5), ls.ramp(0.0, 0.1, 1.0)
    return 2 * (b * ls.DiceLoss() - (1 - a) * ls.FocalLoss()) + (a * ls.CrossEntropyLoss() - 0.5 * b * ls.LogDiceLoss()
    ) + c * ls.TverskyLoss()  # fmt: skip


def test_a_shared_ramp_is_named_and_reads_back_as_one():
    loss = shared()
    assert repr(loss) == (
        "2.0 * ramp(start=1.0, step=-0.5, stop=0.5, name='a') * DiceLoss()"
        " + (-2.0 + 2.0 * ramp(start=0.0, step=0.25, stop=1.0, name='b')) * FocalLoss()"
        " + ramp(start=0.0, step=0.25, stop=1.0, name='b') * CrossEntropyLoss()"
        " + -0.5 * ramp(start=1.0, step=-0.5, stop=0.5, name='a') * LogDiceLoss()"
        " + ramp(start=0.0, step=0.1, stop=1.0) * TverskyLoss()"
    )
    again = ls.parse(repr(loss))
    assert repr(again) == repr(loss)
    assert list(again.state_dict()) == list(loss.state_dict()) == ["ramp.epoch", "ramp_2.epoch", "ramp_3.epoch"]
    for _ in range(3):
        torch.testing.assert_close(again(Z, Y), loss(Z, Y))
        again.step()
        loss.step()


def test_a_ramp_shared_within_deep_supervision_reads_back():
    supervised = ls.DeepSupervision(shared())
    again = ls.DeepSupervision(ls.parse(repr(supervised.loss)))
    again.step()
    supervised.step()
    assert repr(again) == repr(supervised)
    assert [weight.value for weight, _ in again.loss.terms] == [weight.value for weight, _ in supervised.loss.terms]


def test_equal_ramps_without_a_name_stay_two():
    loss = ls.parse("ramp(start=0, step=1, stop=2)*dice + ramp(start=0, step=1, stop=2)*ce")
    assert "name" not in repr(loss)
    assert len(loss.state_dict()) == 2
    named = ls.parse("ramp(start=0, step=1, stop=2, name='x')*dice + ramp(start=0, step=1, stop=2, name='y')*ce")
    assert len(named.state_dict()) == 2


def test_more_shared_ramps_than_letters():
    ramps = [ls.ramp(0.0, 1.0, float(stop)) for stop in range(1, 31)]
    loss = sum(a * ls.DiceLoss() for a in [*ramps, *ramps])
    again = ls.parse(repr(loss))
    assert repr(again) == repr(loss)
    assert len(again.state_dict()) == 30


@pytest.mark.parametrize(
    "text", ["dice", "0.5*dice", "ramp(start=0, step=1, stop=2)*dice", "2*(dice + ce)", "dice(classes=[0, 1])"]
)
@pytest.mark.parametrize("sign", [" + ", " - ", " + 2*-"])
def test_work_grows_with_the_length_of_a_text(text, sign, monkeypatch):
    """Counted, not timed: sums made, addends they were given, and calls of the losses' constructors."""
    made = []
    original = Sum.__init__
    monkeypatch.setattr(Sum, "__init__", lambda self, addends: made.append(len(addends)) or original(self, addends))

    def work(count: int) -> tuple[int, int]:
        made.clear()
        ls.parse(sign.join([text] * count))
        return len(made), sum(made)

    (sums, addends), (more, all_addends) = work(20), work(40)
    assert more <= 2 * sums
    assert all_addends <= 2 * addends
    assert sums <= 21


def test_a_chain_of_factors_and_of_signs_makes_one_sum(monkeypatch):
    made = []
    original = Sum.__init__
    monkeypatch.setattr(Sum, "__init__", lambda self, addends: made.append(len(addends)) or original(self, addends))
    loss = ls.parse("2*" * 50 + "-" * 5001 + "dice" + "*0.5" * 50)
    assert repr(loss) == "-1.0 * DiceLoss()"
    assert made == [1]


def test_terms_of_a_long_sum_are_multiplied_once_and_not_in_every_call(monkeypatch):
    loss = ls.parse(" + ".join(["0.5*dice"] * 30))
    calls = []
    original = ls.loss.product
    monkeypatch.setattr(ls.loss, "product", lambda *args: calls.append(args) or original(*args))
    assert len(loss.terms) == len(loss.addends) == 30
    assert len(calls) == 30  # once each: weights that were kept would not follow a recipe's that is assigned
    loss(Z, Y)
    before = len(calls)
    loss(Z, Y)
    assert len(calls) == before


def test_depth_has_a_bound_that_is_said():
    deepest = 64
    assert repr(ls.parse("(" * deepest + "dice" + ")" * deepest)) == "DiceLoss()"
    assert repr(ls.parse("(dice) + " * 100 + "ce")).count("DiceLoss()") == 100  # beside each other is not deep
    for opening in ("(", "2*(", "dice(classes=" + "[", "-("):
        inner = opening if "[" not in opening else "["
        text = opening + inner * deepest
        with pytest.raises(ValueError, match="nested too deeply: at most 64") as error:
            ls.parse(text)
        _, quoted, pointer = str(error.value).splitlines()
        assert quoted == f"  {text}"
        assert text[pointer.index("^") - 2] in "(["


WRONG = [
    (
        "ramp(start=0, step=1, stop=2, name='a')*dice + ramp(start=0, step=1, stop=3, name='a')*ce",
        47,
        "the ramp 'a' is ramp(start=0.0, step=1.0, stop=2.0) elsewhere in this text",
    ),
    ("dice + ramp(start=0, step=1, stop=2, name=3)*ce", 7, "the name of a ramp is a 'string', got 3"),
    ("dice + ramp(start=1, step=-1, stop=2)*ce", 7, "never reaches its stop"),
    ("dice + (ce + focal(ignore_index=3))", 8, "must agree on ignore_index"),
    ("dice + 1e999*ce", 0, "the weight of CrossEntropyLoss() must be finite, got inf"),
    ("2*ramp(start=0, step=1, stop=2)*3*(ramp(start=0, step=1, stop=2)*dice)*2", 33, "schedule times a schedule"),
    ("(ramp(start=0, step=1, stop=2)*dice)*2*ramp(start=0, step=1, stop=2)", 38, "schedule times a schedule"),
    ("1 + 2 + dice", 6, "losses are added to losses"),
    ("dice + 0.5*ce - 1", 14, "losses are added to losses"),
    ("2*dice*3*ce", 8, "losses are added to losses"),
    ("1 - ramp(start=0, step=1, stop=2)", 0, "this is a number, not a loss"),
    (
        "(ramp(start=0, step=1, stop=2) - ramp(start=0, step=1, stop=2))*dice",
        31,
        "cannot apply '-' here: a sum of schedules",
    ),
]


@pytest.mark.parametrize(("text", "position", "message"), WRONG)
def test_errors_point(text, position, message):
    points_at(text, position, message)


@pytest.mark.parametrize("kind", [ValueError, TypeError])
def test_what_a_constructor_says_is_raised_as_it_is_with_a_pointer(kind, monkeypatch):
    def refuse(self, **given):
        raise kind("FocalLoss: gamma must be otherwise")

    monkeypatch.setattr(ls.FocalLoss, "__init__", refuse)
    with pytest.raises(kind) as error:
        ls.parse("dice + focal(gamma=2)")
    assert str(error.value) == "FocalLoss: gamma must be otherwise\n  dice + focal(gamma=2)\n         ^"


def test_a_text_of_several_lines_is_pointed_at_in_its_line():
    with pytest.raises(ValueError, match="no loss is called 'bogus'") as error:
        ls.parse("dice +\n  bogus\n+ ce")
    assert str(error.value).splitlines()[1:] == ["    bogus", "    ^"]
