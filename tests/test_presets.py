"""Settings of papers: one table, one word in Python and in texts. Values are those of the papers' formulas by hand."""

from __future__ import annotations

import math
import re

import pytest
import torch

import lossmith as ls
from golden_boxes import DFL, EDGE, FOCAL_EIOU, QFL, VFL
from golden_fixtures import B_TARGET, P_TARGET, Q_TARGET, B, P, Q
from lossmith.papers import PAPERS, UNSTATED
from problems import labels_of, logits_of
from test_errors import points_at

FIRST = torch.tensor([[1.0, 1.0, 4.0, 3.0]]), torch.tensor([[2.0, 1.0, 5.0, 4.0]])  # IoU 4/11
# Σ over P: p r = 1.5, p = 1.8, r = 2, p² = 1.22, so that TP = 1.5, FP = 0.3, FN = 0.5
BY_HAND = {
    "focal": (B, B_TARGET, (0.75 * (0.0169935431314 + 0.283058700645) / 0.75 + 0.00045089070881 + 0.691570110256) / 4),
    "wce": (P, P_TARGET, 0.2704051149),
    "dice": (P, P_TARGET, 1 - 2 * 1.5 / (1.22 + 2)),
    "jaccard": (P, P_TARGET, 1 - 1.5 / 2.3),
    "tversky": (P, P_TARGET, 1 - 1.5 / (1.5 + 0.3 * 0.3 + 0.7 * 0.5)),
    "focal_tversky": (P, P_TARGET, (1 - 2.5 / (2.5 + 0.3 * 0.3 + 0.7 * 0.5)) ** 0.75),
    "dice2": (P, P_TARGET, 1 - (1.5 + 1e-5) / (3.8 + 1e-5) - (1.7 + 1e-5) / (4.2 + 1e-5)),
    "logcosh_dice": (P, P_TARGET, math.log(math.cosh(1 - 4 / 4.8))),
    "ss": (P, P_TARGET, 0.028),
    "gdl": (P, P_TARGET, 0.2),
    "combo": (P, P_TARGET, 0.25 * 0.2361725515994 - 0.5 * 4 / 4.8),
    "dice_ce": (P, P_TARGET, 0.236172551599 + 1 - 4 / 4.8),
    "dice_focal": (P, P_TARGET, 0.178262298188),
    "unified_focal": (P, P_TARGET, 0.215469368236),
    "explog": (Q, Q_TARGET, 0.892282221244),
    "lovasz": (P, P_TARGET, 0.266666666667),
    "lovasz_hinge": (B, B_TARGET, 2.25),
}
BY_HAND_BOX = {
    "iou_box": -math.log(4 / 11),
    "giou": 0.719696969697,
    "diou": 0.686363636364,
    "ciou": 0.686363636364,  # IoU < 0.5: the aspect does not count
    "eiou": FOCAL_EIOU,
    "siou": 0.692112265624,
    "l1": 0.75,
    "l2": 0.75,
    "smooth_l1": 0.375,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_values_are_those_of_the_formula(name):
    logits, target, value = BY_HAND[name]
    loss = ls.parse(f"{name}@paper")
    assert loss(torch.tensor(logits).double(), torch.tensor(target)).item() == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize("name", BY_HAND_BOX)
def test_values_of_boxes_are_those_of_the_formula(name):
    assert ls.parse(f"{name}@paper")(*FIRST).item() == pytest.approx(BY_HAND_BOX[name], rel=1e-5)


def test_values_of_detectors_scores_and_edges_are_those_of_the_formula():
    for name, values in {"qfl": QFL, "vfl": VFL}.items():
        for (logit, target), value in values.items():
            found = ls.parse(f"{name}@paper")(torch.tensor([[logit]]), torch.tensor([[target]]))
            assert found.item() == pytest.approx(value, rel=1e-4)
    assert ls.DistributionFocalLoss.paper()(torch.tensor([EDGE]), torch.tensor([2.3])).item() == pytest.approx(DFL[2.3])
    terms = ls.GeneralizedFocalLoss.paper().terms
    assert [(weight, repr(term)) for weight, term in terms] == [
        (1.0, "QualityFocalLoss()"), (2.0, "GIoULoss()"), (0.25, "DistributionFocalLoss()"),
    ]  # fmt: skip


def test_settings_that_need_a_map_or_a_matrix():
    border = ls.BorderCrossEntropyLoss.paper()
    assert (border.w0, border.sigma) == (10.0, 5.0)
    assert ls.HausdorffDTLoss.paper().alpha == 2.0
    pairs = ls.NonAdjacencyLoss.paper(forbidden=[[0, 1], [1, 0]])
    assert (pairs.window, pairs.include_center) == (3, True)


@pytest.mark.parametrize("row", ls.catalogue(), ids=lambda row: row.name)
def test_every_loss_is_in_the_table_or_says_why_not(row):
    assert (row.name in PAPERS) != (row.name in UNSTATED)
    if row.name in UNSTATED:
        for call in (row.cls.paper, lambda: ls.parse(f"{row.name}@paper")):
            with pytest.raises(ValueError, match="no settings of a paper are known"):
                call()
        return
    paper = PAPERS[row.name]
    assert paper.settings.keys() <= row.fields.keys()
    authors = re.findall(r"[A-Z]\w+(?= \d| et al| &)", row.paper)
    assert any(author in paper.source for author in authors)
    loss = row.cls.paper()
    assert type(loss) is row.cls
    assert {name: loss.settings()[name] for name in paper.settings} == paper.settings
    assert repr(ls.parse(repr(loss))) == repr(loss) == repr(ls.parse(f"{row.name}@paper"))
    assert repr(ls.parse(f"{row.cls.__name__} @ paper ( )")) == repr(loss)


def test_the_table_names_no_other_loss():
    assert PAPERS.keys() | UNSTATED.keys() == {row.name for row in ls.catalogue()}


def test_changes_by_name():
    loss = ls.FocalLoss.paper(gamma=3.0, ignore_index=255)
    assert loss.settings() == ls.FocalLoss(gamma=3.0, alpha=0.25, ignore_index=255).settings()
    with pytest.raises(TypeError, match=r"FocalLoss has no setting 'gama'; did you mean 'gamma'\?"):
        ls.FocalLoss.paper(gama=3.0)
    ls.FocalLoss.paper().settings()["gamma"] = 7  # a copy: the table stays
    assert PAPERS["focal"].settings == {"gamma": 2.0, "alpha": 0.25}


def test_in_a_text_the_paper_stands_between_what_is_said_and_what_is_shared():
    loss = ls.parse("dice@paper(smooth=2) + 0.5*tversky@paper + jaccard", smooth=7.0, ignore_index=255)
    assert [term.settings()["smooth"] for _, term in loss.terms] == [2, 0.0, 7.0]
    assert {term.settings()["ignore_index"] for _, term in loss.terms} == {255}
    assert repr(ls.parse("gfl@paper(box=ciou@paper)")) == "GeneralizedFocalLoss(box=CIoULoss(gate=0.5))"
    assert repr(ls.parse("2*-(iou@paper)")) == "-2.0 * JaccardLoss(smooth=0.0)"


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("dice + focal@code", 13, "behind '@' stands 'paper'"),
        ("dice + focal@", 13, "behind '@' stands 'paper'"),
        ("focal@paper@paper", 11, "unexpected '@'"),
        ("focal(gamma=2)@paper", 14, "unexpected '@'"),
        ("2@paper", 1, "unexpected '@'"),
        ("(dice + ce)@paper", 11, "unexpected '@'"),
        ("dice + bogus@paper", 7, "no loss is called 'bogus'"),
        ("dice + huber@paper", 7, "HuberLoss: no settings of a paper are known: Huber 1964 leaves δ open"),
        ("ramp@paper", 0, "write ramp"),
        ("dice@paper(classes=[0, @])", 23, "a value is"),
    ],
)
def test_errors_point(text, position, message):
    points_at(text, position, message)


def test_a_loss_of_ones_own_says_where_it_is_from(monkeypatch):
    monkeypatch.setattr("lossmith.loss.CATALOGUE", dict(ls.loss.CATALOGUE))

    class Own(ls.DiceLoss):
        """As it was written before there was `paper()`."""

        name = "own_dice"
        paper = "Somebody 2020"

    assert Own.source == "Somebody 2020"
    with pytest.raises(ValueError, match=r"Own: no settings of a paper are known: it is not in lossmith\.papers"):
        Own.paper()


def test_alpha_of_the_paper_is_of_a_yes_or_no():
    logits, labels = logits_of(2, 3, 4), labels_of(3, 2, 4, ignore=False)
    with pytest.raises(ValueError, match=r"alpha=0\.25 is one number"):
        ls.FocalLoss.paper()(logits, labels)
    assert ls.FocalLoss.paper(task="multilabel")(logits, labels) > 0
