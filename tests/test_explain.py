"""`explain`: numbers against autograd and by hand, a made case of each diagnosis, and that nothing is left behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lossmith as ls
from lossmith.engine.tensors import transformed
from lossmith.explanation import Explanation
from problems import IGNORE, IGNORED, PROBLEMS, ROWS, build, labels_of, logits_of, shares_of

Z, Y = logits_of(2, 3, 4, 5), labels_of(3, 2, 4, 5)


@pytest.fixture(autouse=True)
def _without_kernels(request):
    """What explains asks no engine in particular; kernels are compiled for one test."""
    with ls.use_engine("auto" if "kernels" in request.node.name else "plain"):
        yield


def shares_add_up(found: Explanation) -> None:
    for term in found.terms:
        for groups in (term.classes, term.levels):
            total = sum(group.share for group in groups.values())
            assert not groups or total == pytest.approx(1.0 if term.norm else 0.0, abs=1e-6), term
            norm = math.sqrt(sum(group.norm**2 for group in groups.values()))
            assert not groups or norm == pytest.approx(term.norm, rel=1e-6)
    for given in found.inputs:
        counted = sum(group.elements for name, group in found.terms[-1].levels.items() if name != "ignored")
        assert len(found.inputs) > 1 or counted == given.counted


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_loss_on_logits_is_explained(problem):
    """Its value is the loss, its gradient that of autograd, and the shares add up to 1."""
    for row in ROWS:
        if problem.task not in row.cls.tasks or (row.name == "kl" and problem.task != "multiclass"):
            continue
        loss = build(row, problem)
        z = problem.logits.clone().requires_grad_()
        try:
            value = loss(z, problem.target)
        except ValueError:
            continue  # not for this input, as it says
        found = ls.explain(loss, problem.logits, problem.target)
        assert found.value == pytest.approx(value.item(), rel=1e-9), row.name
        (slope,) = torch.autograd.grad(value, z)
        assert found.terms[-1].norm == pytest.approx(slope.norm().item(), rel=1e-9), row.name
        shares_add_up(found)
        assert all(math.isfinite(x) for x in found.to_dict().values())


BOXES = (
    torch.tensor([[0.0, 0, 4, 3], [1, 1, 5, 5], [8, 8, 9, 9]]),
    torch.tensor([[0.5, 0, 4, 3], [2, 1, 5, 4], [0, 0, 2, 2]]),
)
OTHERS = {
    "qfl": (torch.tensor([[0.5, -1.0], [2.0, 0.1]]), torch.tensor([[0.7, 0.0], [0.0, 0.9]])),
    "vfl": (torch.tensor([[0.5, -1.0], [2.0, 0.1]]), (torch.tensor([0, 2]), torch.tensor([0.7, 0.0]))),
    "dfl": (logits_of(3, 5), torch.tensor([2.3, 0.1, 4.0], dtype=torch.float64)),
}


@pytest.mark.parametrize("row", [row for row in ls.catalogue() if row not in ROWS and row.name != "gfl"], ids=str)
def test_every_other_loss_is_explained(row):
    given, target = OTHERS.get(row.name, BOXES)
    leaf = given.clone().requires_grad_()
    for call in ({}, {"weight": torch.linspace(0, 1, len(given)).double().to(given)}):
        found = ls.explain(row.cls(), given, target, **call)
        value = row.cls()(leaf, target, **call)
        assert found.value == pytest.approx(value.item())
        assert found.terms[0].norm == pytest.approx(torch.autograd.grad(value, leaf)[0].norm().item(), rel=1e-5)
        shares_add_up(found)
        assert bool(found.inputs[0].ignored) == bool(call)


def test_a_detectors_loss_is_explained():
    points, boxes = torch.tensor([[8.0, 8.0], [24.0, 8.0]]), torch.tensor([[0.0, 0.0, 20.0, 16.0], [math.nan] * 4])
    call = torch.zeros(2, 3), torch.zeros(2, 4, 9), points, 8.0, torch.tensor([1, 3]), boxes
    found = ls.explain(ls.GeneralizedFocalLoss(), *call)
    assert [(term.name, term.slot) for term in found.terms] == [("qfl", "score"), ("giou", "box"), ("dfl", "edge")]
    assert found.value == pytest.approx(ls.GeneralizedFocalLoss()(*call).item())
    assert [given.ignored for given in found.inputs] == [{}, {"weight=0": 1}, {"weight=0": 4}]
    assert found.broken["boxes"][:3] == (4, 0, (1, 0))
    shares_add_up(found)


def test_a_sum_of_several_inputs():
    loss = ls.parse("qfl + 2*giou + l1")
    call = {"score": OTHERS["qfl"], "box": BOXES}
    found = ls.explain(loss, **call)
    assert [(term.name, term.slot) for term in found.terms] == [
        ("qfl", "score"), ("giou", "box"), ("l1", "box"), ("total", "box"),
    ]  # fmt: skip
    parts = loss.parts(**call)
    assert {t.name: t.value for t in found.terms if not t.total} == pytest.approx(
        {k: v.item() for k, v in parts.items()}
    )
    shares_add_up(found)
    assert "class of score" in str(found)


# ---- by hand ---------------------------------------------------------------------------------------------------------

HAND = torch.tensor([[[0.9, 0.6, 0.2, 0.3, 0.5]]], dtype=torch.float64).logit(), torch.tensor([[1, 1, 1, 0, 255]])


def test_shares_by_hand():
    """∂CE/∂z = (p − r) / 4: 0.1, 0.4 and 0.8 of class 1, 0.3 of class 0; easy, hard, wrong and hard."""
    found = ls.explain(ls.CrossEntropyLoss(**IGNORE), *HAND)
    (term,) = found.terms
    assert {k: g.elements for k, g in term.classes.items()} == {"0": 1, "1": 3, "ignored": 1}
    assert {k: round(g.share, 12) for k, g in term.classes.items()} == {"0": 0.1875, "1": 0.8125, "ignored": 0.0}
    assert {k: round(g.share, 12) for k, g in term.levels.items()} == {
        "easy": 0.0625, "hard": 0.4375, "wrong": 0.5, "ignored": 0.0,
    }  # fmt: skip
    assert term.classes["1"].norm == pytest.approx(math.sqrt(0.01 + 0.16 + 0.64) / 4)
    assert term.classes["0"].value == pytest.approx(-math.log(0.7))
    assert term.classes["1"].value == pytest.approx(-math.log(0.9 * 0.6 * 0.2) / 3)
    assert found.inputs[0].ignored == {"ignore_index=255": 1}


def test_a_soft_label_is_shared_out():
    """Two pixels: ∂CE/∂z = (p − r) / 2, of labels (½, ½) and (1, 0) with p = (0.8, 0.2)."""
    logits = torch.tensor([[[0.8, 0.8], [0.2, 0.2]]]).double().log()
    target = torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]).double()
    (term,) = ls.explain(ls.CrossEntropyLoss(task="multiclass"), logits, target).terms
    assert term.classes["0"].elements == 1.5
    assert term.classes["0"].share == pytest.approx((0.3 / 2 + 0.2) / 0.5)
    assert term.classes["1"].share == pytest.approx(0.3 / 2 / 0.5)
    (term,) = ls.explain(ls.CrossEntropyLoss(task="multiclass"), logits, target * torch.tensor([1.2, 1.0])).terms
    assert term.classes["0"].elements == pytest.approx(1.5)  # labels that do not add up to 1 share one element, too


def test_independent_channels_have_a_yes_each_and_one_no():
    logits = torch.tensor([[[0.9, 0.4], [0.2, 0.3]]], dtype=torch.float64).logit()
    target = torch.tensor([[[1, 0], [1, 0]]])
    (term,) = ls.explain(ls.CrossEntropyLoss(task="multilabel"), logits, target).terms
    assert {k: round(g.share, 12) for k, g in term.classes.items()} == {
        "0": round(0.1 / 1.6, 12), "1": 0.5, "no": round(0.7 / 1.6, 12),
    }  # fmt: skip
    assert [round(g.elements) for g in term.levels.values()] == [1, 2, 1]


def test_values_of_classes_are_those_of_parts():
    loss = ls.parse("2*dice(include_background=false, ignore_index=255)")
    (term,) = ls.explain(loss, Z, Y).terms
    assert [term.classes[k].value for k in ("1", "2")] == pytest.approx(
        loss.parts(Z, Y, per_class=True)["dice"].tolist()
    )
    assert term.classes["0"].value is None


def test_levels_of_boxes_and_numbers():
    found = ls.explain(ls.IoULoss(), *BOXES)  # IoU 0.875, 9/16, 0
    assert [group.elements for group in found.terms[0].levels.values()] == [1, 1, 1]
    off = torch.tensor([0.0, 1.0, 1.0, 3.0, 3.1])
    (term,) = ls.explain(ls.L1Loss(), off, torch.zeros(5)).terms
    assert [group.elements for group in term.levels.values()] == [3, 1, 1]
    assert [group.share for group in term.levels.values()] == pytest.approx([0.5, 0.25, 0.25])


def test_why_pixels_are_ignored():
    weight = torch.ones(2, 4, 5)
    weight[0, 0] = 0
    found = ls.explain(ls.DiceLoss(**IGNORE), Z, Y, weight=weight)
    marked = int((Y == IGNORED).sum())
    assert found.inputs[0].ignored == {"ignore_index=255": marked, "weight=0": int((Y[0, 0] != IGNORED).sum())}
    found = ls.explain(ls.CrossEntropyLoss(), Z, Y % 3, weight=torch.tensor([0.0, 1.0]))
    assert found.inputs[0].ignored == {"weight=0": 20}
    two = torch.tensor([[True, True], [True, False]])
    found = ls.explain(
        ls.CrossEntropyLoss(task="multilabel"), logits_of(2, 2, 4), labels_of(2, 2, 2, 4, ignore=False), label_mask=two
    )
    assert found.inputs[0].ignored == {"not annotated": 4}


# ---- diagnoses -------------------------------------------------------------------------------------------------------


def said(loss: str, *given: Tensor, **call: object) -> list[str]:
    return ls.explain(ls.parse(loss), *given, **call).diagnosis


SURE_WRONG = torch.full((1, 1, 8), 12.0), torch.zeros(1, 8, dtype=torch.long)


def test_stuck_where_p_is_saturated():
    for loss in ("dice", "quadratic", "dice + jaccard"):
        (line,) = [line for line in said(loss, *SURE_WRONG) if line.startswith("stuck")]
        assert line.startswith("stuck: 8 wrong pixels are sure of themselves (p saturated), and have ")
    for loss in ("ce", "dice + ce", "focal"):
        assert not [line for line in said(loss, *SURE_WRONG) if "stuck" in line]
    farther = SURE_WRONG[0] * 10, SURE_WRONG[1]  # where float32 has nothing left
    assert "stuck: no gradient reaches any of 8 wrong pixels (p saturated)" in said("dice", *farther)
    slots = ls.explain(ls.parse("dice + l1"), score=SURE_WRONG, box=(torch.ones(2, 4), torch.ones(2, 4)))
    assert any("sure of themselves" in line for line in slots.diagnosis)


def test_stuck_where_boxes_do_not_meet():
    some = [
        torch.cat([x, torch.tensor([more])]) for x, more in zip(BOXES, ([0.0, 0, 2, 2], [1.0, 1, 3, 3]), strict=True)
    ]
    assert "stuck: 1 of 2 wrong boxes have no gradient" in said("iou_box", *some)
    assert "stuck: no gradient reaches any of 1 wrong boxes" in said("iou_box", *(x[2:] for x in BOXES))
    assert said("giou", *BOXES) == []


def test_negative():
    target = torch.zeros(1, 5, 5, dtype=torch.long)
    target[0, 1:4, 1:4] = 1
    right = (target * 20.0 - 10.0).unsqueeze(1)
    (line,) = [line for line in said("boundary + dice", right, target) if line.startswith("negative")]
    assert line.startswith("negative: BoundaryLoss() is -0.03997, which this loss may be")
    assert any("ComboLoss() is -0.5" in line for line in said("combo", right, target))
    assert any("-1.0 * CrossEntropyLoss()" in x or "negative weight" in x for x in said("dice - ce", Z.float(), Y % 3))
    empty = torch.full((1, 1, 5, 5), -20.0), torch.zeros(1, 5, 5, dtype=torch.long)
    assert any("with its default settings it would begin at 0" in x for x in said("dice2(balanced=false)", *empty))


def test_zero():
    lines = said("dice(ignore_index=255) + ce(ignore_index=255)", Z, torch.full_like(Y, 255))
    assert lines == ["zero: nothing counts: all 40 pixels are ignored (ignore_index=255: 40)"]
    assert said("ce", logits_of(0, 3, 4), torch.zeros(0, 4, dtype=torch.long)) == [
        "zero: nothing counts: all 0 pixels are ignored (there are none)"
    ]
    right = torch.tensor([[[3000.0, -3000.0]]]), torch.tensor([[1, 0]])
    assert said("ce", *right) == ["zero: every answer is right, as far as the loss looks"]
    skips = said("dice(absent='skip', classes=[2])", Z, torch.zeros_like(Y))
    assert any(line.startswith("zero with wrong answers") for line in skips)


def test_nan_is_found_where_it_is():
    z, y = Z.clone(), Y.clone()
    z[1, 2, 3, 4], y[1, 3, 4] = math.nan, 1
    found = ls.explain(ls.parse("dice + ce", **IGNORE), z, y)
    assert "NaN: the logits hold 1 NaN, the first at (1, 2, 3, 4) (dice, ce)" in found.diagnosis
    assert found.broken["logits"] == (1, 0, (1, 2, 3, 4), 0)
    y[1, 3, 4] = IGNORED
    found = ls.explain(ls.parse("dice + ce", **IGNORE), z, y)
    assert found.broken["logits"].ignored == 1
    assert math.isfinite(found.value)
    assert "of what is not finite in the logits, 1 lie in what is ignored and do no harm" in found.diagnosis
    z[0, 0, 0, 0], y[0, 0, 0] = math.nan, IGNORED
    z[1, 0, 0, 0], y[1, 0, 0] = math.inf, 1  # the first that counts is told
    assert ls.explain(ls.CrossEntropyLoss(**IGNORE), z, y).broken["logits"] == (2, 1, (1, 0, 0, 0), 2)


def test_nan_in_targets_and_weights():
    weight = torch.ones(2, 4, 5)
    weight[1, 0, 2] = math.nan
    assert any("the weight holds 1 NaN, the first at (1, 0, 2)" in x for x in said("ce", Z, Y % 3, weight=weight))
    target = shares_of(2, 3, 4, 5)
    target[0, 1, 2, 3] = math.nan
    assert any(
        "the target holds 1 NaN, the first at (0, 1, 2, 3)" in x for x in said("ce(task='multiclass')", Z, target)
    )
    pair = (torch.tensor([0, 1]), torch.tensor([0.5, math.nan]))
    assert ls.explain(ls.QualityFocalLoss(), torch.zeros(2, 2), pair).broken["target[1]"].first == (1,)
    assert said("iou_box", torch.full((2, 4), math.nan), torch.ones(2, 4)) == [
        "NaN: the prediction holds 8 NaN, the first at (0, 0) (iou_box)"
    ]
    impossible = torch.tensor([[[0.0], [-math.inf]]])
    assert any(
        line.startswith("infinite: the logits hold 1 inf") for line in said("ce", impossible, torch.ones(1, 1).long())
    )


def test_who_owns_the_gradient():
    z = torch.tensor([[[-3.0] * 200 + [0.5]]])
    y = torch.tensor([[0] * 200 + [1]])
    assert any(line.startswith("easy pixels own 9") for line in said("ce", z, y))
    assert not any(line.startswith("easy") for line in said("focal(gamma=5)", z, y))
    assert any(x.startswith("unbalanced: the gradient of ce is ") for x in said("ce + 0.0001*dice", z, y))
    (line,) = [
        x
        for x in said("nonadjacency(forbidden=[[0, 1], [1, 0]], ignore_index=255)", z, y * 0 + 255)
        if "ignored" in x and "own" in x
    ]
    assert line == "ignored pixels own 100% of the gradient: a term reads no labels"
    assert "absent from the target: class 2" in said("dice", Z, Y % 2)
    assert "absent from the target: classes 1, 2" in said("dice", Z, Y * 0)


def test_without_a_target():
    found = ls.explain(ls.EntropyLoss(), Z)
    shares_add_up(found)
    assert found.terms[0].levels["wrong"].elements == 0
    assert found.inputs[0].ignored == {}
    assert "without labels" in str(found)


# ---- what is left behind, and what it says ---------------------------------------------------------------------------


def test_nothing_is_left_behind():
    z = Z.clone().requires_grad_()
    graph = z * 2
    weight = torch.ones(2, 4, 5, requires_grad=True)
    loss = ls.ramp(0.0, 0.25, 1.0) * ls.DiceLoss(**IGNORE) + ls.CrossEntropyLoss(**IGNORE)
    loss.eval()
    plan, state, seed, text = loss._plan(), dict(loss.state_dict()), torch.random.get_rng_state(), repr(loss)
    kept = Z.clone(), Y.clone()
    ls.explain(loss, graph, Y, weight=weight)
    assert z.grad is None
    assert weight.grad is None
    assert graph.requires_grad
    assert loss._plan() is plan
    assert loss.state_dict() == state
    assert torch.equal(torch.random.get_rng_state(), seed)
    assert repr(loss) == text
    assert not loss.training
    assert torch.equal(z.detach(), kept[0])
    assert torch.equal(Y, kept[1])
    assert torch.is_grad_enabled()
    assert not transformed(z)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_modes_without_gradients(mode):
    with mode():
        found = ls.explain(ls.DiceLoss(), Z.clone(), Y % 3)
    assert found.terms[0].norm > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_strides(dtype):
    z = logits_of(2, 4, 5, 3).to(dtype).movedim(-1, 1)
    found = ls.explain(ls.parse("dice + ce", **IGNORE), z, Y)
    shares_add_up(found)
    assert found.value == pytest.approx(ls.parse("dice + ce", **IGNORE)(z, Y).item(), rel=1e-5)


def test_kernels_answer_too(answered):
    z = Z.float()
    found, loss = ls.explain(ls.parse("dice + ce", **IGNORE), z, Y), ls.parse("dice + ce", **IGNORE)
    assert any(engine == "numba" for engine, _ in answered)
    leaf = z.clone().requires_grad_()
    loss(leaf, Y).backward()
    assert found.terms[-1].norm == pytest.approx(leaf.grad.norm().item(), rel=1e-5)
    shares_add_up(found)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_other_reductions(reduction):
    found = ls.explain(ls.FocalLoss(reduction=reduction, **IGNORE), Z, Y)
    assert found.value == pytest.approx(ls.FocalLoss(reduction="sum", **IGNORE)(Z, Y).item())


def test_deep_supervision():
    loss = ls.DeepSupervision(ls.DiceLoss() + ls.CrossEntropyLoss())
    heads = [Z, Z[..., ::2, ::2]]
    found = ls.explain(loss, heads, Y % 3)
    assert found.value == pytest.approx(loss(heads, Y % 3).item())
    assert {t.name: t.value for t in found.terms if not t.total} == pytest.approx(
        {name: value.item() for name, value in loss.parts(heads, Y % 3).items()}
    )
    shares_add_up(found)


def test_wrong_calls_raise_what_the_loss_raises():
    with pytest.raises(TypeError, match="explain takes a loss of this library, got CrossEntropyLoss"):
        ls.explain(torch.nn.CrossEntropyLoss(), Z, Y)
    with pytest.raises(ValueError, match="ignore_index=255"):
        ls.explain(ls.DiceLoss(), Z, Y)
    with pytest.raises(TypeError, match="call loss"):
        ls.explain(ls.DiceLoss(), Z)
    with pytest.raises(TypeError, match="must be a floating-point tensor"):
        ls.explain(ls.DiceLoss(), Z.long(), Y)
    with pytest.raises(TypeError, match="takes no 'wait'"):
        ls.explain(ls.DiceLoss(), Z, Y % 3, wait=1)


def test_text_and_page():
    loss = ls.parse("dice + 0.5*focal", **IGNORE)
    found = ls.explain(loss, Z, Y)
    lines = str(found).splitlines()
    assert lines[0] == f"{loss!r} = {found.value:.6g}"
    hidden = int((Y == IGNORED).sum())
    assert lines[1] == f"multiclass (2, 3, 4, 5), 40 pixels, {hidden} ignored (ignore_index=255: {hidden})"
    assert max(map(len, lines)) <= 120
    assert repr(found) == str(found)
    page = found._repr_html_()
    assert len(page) < 8000
    assert page.count("<table>") == page.count("</table>") == 2
    assert "#000" not in page
    assert "white" not in page
    numbers = found.to_dict()
    assert all(type(value) is float for value in numbers.values())
    assert numbers["dice/wrong/share"] == found.terms[0].levels["wrong"].share
    assert numbers["score/ignored"] == hidden
    strange = ls.explain(
        ls.parse("ramp(start=0, step=1, stop=2, name='<b>')*dice + ramp(start=0, step=1, stop=2, name='<b>')*ce"),
        Z,
        Y % 3,
    )
    assert "<b>'" not in strange._repr_html_()


def test_many_classes_fit_a_screen():
    found = ls.explain(ls.parse("dice + ce"), logits_of(1, 150, 4, 4), labels_of(150, 1, 4, 4, ignore=False))
    assert len(str(found).splitlines()) < 45
    assert "130 more" in str(found)
    assert "and 1" in found.diagnosis[-1]
    assert len(found.terms[0].classes) == 150


def test_many_terms_are_told_by_their_shares():
    found = ls.explain(ls.parse("dice + ce + gdl + jaccard"), Z, Y % 3)
    (head,) = [line for line in str(found).splitlines() if line.startswith("class ")]
    assert head.split("  ")[-1] == "total: share"
    assert "dice: share" in head
    assert "value" not in head
