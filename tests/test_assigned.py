"""A setting that is assigned is as one that the loss was built with: in value, in text, in what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

import lossmith as ls
from lossmith.losses.dense import Dense
from problems import PROBLEMS, ROWS, arguments, build, by_pair, nudges, shared_settings

WRONG = {"gamma": -3, "smooth": -1.0, "reduction": "average", "ignore_index": 0.5, "class_weight": [1.0, -1.0]}
DENSE = [row for row in ROWS if issubclass(row.cls, Dense)]


def told(loss: ls.Loss) -> tuple[str, dict]:
    return repr(loss), loss.settings()


@pytest.mark.parametrize("row", DENSE, ids=lambda row: row.name)
def test_it_is_as_if_built_with(row):
    problem = next(p for p in PROBLEMS if p.task in row.cls.tasks)
    shape = problem.logits.shape
    tried = 0
    for more in [*shared_settings(problem, row.cls), *nudges(row.cls, problem.task, shape[1], problem.axes)]:
        built, assigned = build(row, problem, **more), build(row, problem)
        assigned(problem.logits, problem.target)  # what was worked out for the old settings is not for the new
        for name, value in more.items():
            setattr(assigned, name, value)
        assert told(assigned) == told(built)
        torch.testing.assert_close(assigned(problem.logits, problem.target), built(problem.logits, problem.target))
        assert [(name, b.tolist()) for name, b in assigned.named_buffers()] == [
            (name, b.tolist()) for name, b in built.named_buffers()
        ]
        for name in more:  # and back
            setattr(assigned, name, build(row, problem).settings().get(name, row.cls.keywords[name]))
        assert told(assigned) == told(build(row, problem))
        tried += 1
    assert tried > 1


@by_pair
def test_what_does_not_do_is_refused_and_leaves_all_as_it_was(row, task):
    make, _, _ = arguments(row, task)
    for name, value in WRONG.items():
        loss = make()
        if name not in loss.keywords:
            continue
        before = told(loss), copy.deepcopy(loss.state_dict())
        with pytest.raises((TypeError, ValueError)) as built:
            type(loss)(**{**loss.settings(), name: value})
        with pytest.raises((TypeError, ValueError)) as assigned:
            setattr(loss, name, value)
        assert str(assigned.value) == str(built.value)
        assert (told(loss), loss.state_dict()) == before


def test_settings_that_contradict_each_other():
    loss = ls.DiceLoss(include_background=False)
    with pytest.raises(ValueError, match="give one of the two"):
        loss.classes = (0, 1)
    assert loss.classes is None
    assert told(loss) == told(ls.DiceLoss(include_background=False))
    both = ls.parse("ce + dice")
    both.losses[0].ignore_index = 3
    with pytest.raises(ValueError, match="must agree on ignore_index: ce has 3, dice has -100"):
        both(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long))
    both.losses[1].reduction = "none"
    with pytest.raises(ValueError, match="cannot be part of a sum"):
        both(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long))


def test_what_is_made_of_settings_follows():
    """The sum of a recipe, the terms of GFL: and what was refused is in none of them."""
    recipe = ls.DiceFocalLoss()
    recipe.focal_weight, recipe.ignore_index = 3.0, 1
    assert repr(recipe.sum) == repr(ls.DiceFocalLoss(focal_weight=3.0, ignore_index=1).sum)
    loss = ls.parse("ce + 2*dice_focal")
    loss.losses[1].focal_weight = 3.0
    assert [weight for weight, _ in loss.terms] == [1.0, 2.0, 6.0]
    gfl = ls.GeneralizedFocalLoss()
    gfl.beta, gfl.box = 1.0, ls.CIoULoss()
    assert repr(gfl.terms) == repr(ls.GeneralizedFocalLoss(beta=1.0, box=ls.CIoULoss()).terms)
    with pytest.raises(ValueError, match="fmt='xyxy'"):
        gfl.box = ls.GIoULoss(fmt="cxcywh")
    assert repr(gfl.terms) == repr(ls.GeneralizedFocalLoss(beta=1.0, box=ls.CIoULoss()).terms)


def test_a_weight_stays_what_was_assigned_wherever_it_goes():
    """`.to()` and `.half()` once brought back what the loss was built with."""
    loss = ls.DiceCELoss(class_weight=[1.0, 2.0])
    loss.class_weight = torch.tensor([1.0, 5.0])
    for moved in (loss.half(), loss.to(torch.float32), copy.deepcopy(loss)):
        assert moved.class_weight.tolist() == [1.0, 5.0]
        assert moved.sum.losses[1].class_weight.tolist() == [1.0, 5.0]
    assert loss.to("meta").class_weight.is_meta
    loss.class_weight = [2.0, 3.0]
    assert loss.class_weight.is_meta
    assert all(buffer.is_meta for buffer in loss.buffers())


class Halved(ls.FocalLoss):
    """A loss of a user's, whose constructor assigns."""

    def __init__(self, gamma: float) -> None:
        super().__init__(gamma=gamma)
        self.gamma = gamma / 2


def test_a_constructor_may_assign():
    assert told(Halved(4.0))[1]["gamma"] == 2.0
    with pytest.raises(ValueError, match="gamma must be a number >= 0"):
        Halved(4.0).gamma = -1.0
