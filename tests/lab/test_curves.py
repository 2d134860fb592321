"""Loss curves: every loss of the catalogue, on what losses of its kind read."""

import json
import math
import re
from functools import cache
from pathlib import Path

import pytest

import lossmith as ls
from lossmith.cli import main
from lossmith.lab.page import curve_charts, figures
from lossmith.lab.say import curves

KIND = {"box": "box", "regression": "residual", "distribution": "score"}
ROWS = ls.catalogue()
PICTURED = [row.name for row in ROWS if row.family not in KIND]


@cache
def drawn(text: str) -> curves.Drawn:
    (only,) = curves.draw(text).values()
    return only


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_loss_is_drawn_on_what_it_reads(row: ls.names.Row) -> None:
    one = drawn(row.name)
    line = one.curve
    assert one.axis.kind == ("edge" if row.name == "dfl" else KIND.get(row.family, "picture"))
    assert len(line.x) == len(line.lines["value"]) == len(line.lines["gradient"]) > 80
    assert all(math.isfinite(v) for v in line.lines["value"] + line.lines["gradient"])
    if row.name == "boundary_f1":  # what counts is how certainty changes between neighbours: the same at both ends
        assert max(line.lines["gradient"]) > 0.1
    else:
        assert max(line.lines["value"]) - min(line.lines["value"]) > 0.1
    if one.axis.kind != "picture":  # best where the prediction is the target
        best = line.x[line.lines["value"].index(min(line.lines["value"]))]
        assert best == pytest.approx({"box": 0, "residual": 0, "score": 0.7, "edge": 3.7}[one.axis.kind], abs=0.02)
    elif row.name == "entropy":  # what counts is certainty
        assert line.lines["value"][40] > 10 * line.lines["value"][-1]
    elif row.name != "boundary_f1":
        assert line.lines["value"][-1] < line.lines["value"][0]


@pytest.mark.parametrize("name", [n for n in PICTURED if n not in ("lovasz_hinge", "dice2", "nonadjacency")])
@pytest.mark.parametrize("classes", [2, 4])
def test_every_picture_of_several_classes(name: str, classes: int) -> None:
    curve = curves.sample(ls.parse(name, task="multiclass"), classes)
    assert all(math.isfinite(v) for v in curve.lines["value"] + curve.lines["gradient"])
    assert len(curve.x) == len(curve.lines["value"]) == len(curve.lines["foreground"])
    if name in ("entropy", "boundary_f1"):  # what counts for them is certainty, and how it changes between neighbours
        assert curve.lines["value"][-1] <= curve.lines["value"][0] + 1e-3
    else:
        assert curve.lines["value"][-1] < curve.lines["value"][0]


def test_cross_entropy_by_hand() -> None:
    curve = curves.sample(ls.parse("ce"))
    assert curve.lines["value"] == pytest.approx([-math.log(q) for q in curve.x], rel=1e-3, abs=1e-6)
    assert curve.lines["gradient"] == pytest.approx([1 - q for q in curve.x], rel=1e-2, abs=1e-6)
    assert set(curve.pixels) == {1 / 16}
    assert curve.lines["foreground"] == pytest.approx([1 / 16] * len(curve.x), rel=1e-3)


def test_multiclass_probabilities() -> None:
    curve = curves.sample(ls.parse("ce"), classes=5)
    assert curve.lines["value"][40] == pytest.approx(-math.log(curve.x[40]), rel=1e-4)


def test_multilabel_probabilities() -> None:
    """Each channel gives its true answer the probability q."""
    one = drawn("ce(task='multilabel', class_weight=[1,1,1])")
    assert one.note == "3 channels, multilabel"
    assert one.curve.lines["value"] == pytest.approx([-math.log(q) for q in one.curve.x], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_a_box_slides_by_its_widths(fmt: str) -> None:
    """Boxes of one size that overlap by 1 − |s| of their width: IoU (1 − |s|) / (1 + |s|), slope 2 / (1 + |s|)²."""
    line = drawn(f"iou_box(fmt='{fmt}')").curve
    assert (line.x[0], line.x[-1]) == (-2, 2)
    assert line.lines["value"] == pytest.approx([1 - max(0, 1 - abs(s)) / (1 + abs(s)) for s in line.x], abs=1e-6)
    inside = [i for i, s in enumerate(line.x) if 0.01 < s < 0.99]
    assert [line.lines["gradient"][i] for i in inside] == pytest.approx(
        [2 / (1 + line.x[i]) ** 2 for i in inside], rel=1e-4
    )


def test_a_residual_runs_from_minus_3_to_3() -> None:
    line = drawn("huber").curve
    assert (line.x[0], line.x[-1]) == (-3, 3)
    assert line.lines["value"] == pytest.approx([r * r / 2 if abs(r) < 1 else abs(r) - 0.5 for r in line.x], abs=1e-6)
    assert line.lines["gradient"] == pytest.approx([max(-1, min(1, r)) for r in line.x], abs=1e-6)


def test_a_score_against_its_quality() -> None:
    line = drawn("vfl").curve
    assert line.lines["value"] == pytest.approx(
        [0.7 * (-0.7 * math.log(p) - 0.3 * math.log(1 - p)) for p in line.x], rel=1e-4
    )
    assert line.lines["gradient"] == pytest.approx([0.7 * (p - 0.7) for p in line.x], abs=1e-5)


def test_generalised_focal_loss_is_its_score_and_a_constant() -> None:
    whole, score = drawn("gfl"), drawn("qfl")
    rest = [a - b for a, b in zip(whole.curve.lines["value"], score.curve.lines["value"], strict=True)]
    assert rest == pytest.approx([rest[0]] * len(rest), rel=1e-3)
    assert rest[0] > 2 * 0.3  # two times the GIoU loss of a box 0.7 times as wide, and the edges
    assert "IoU 0.7" in whole.note


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("focal(alpha=[1,2,3])", "3 classes"),
        ("ce(class_weight=[1,2,3])", "3 classes"),
        ("ce(class_weight=[1,2])", ""),  # one channel: no and yes
        ("ce(pos_weight=3)", ""),
        ("ce(pos_weight=[1,2,3])", "3 channels, multilabel"),
        ("dice(class_weight=[1,2])", "2 classes"),
        ("dice(include_background=false)", "2 classes"),
        ("dice(classes=[1,3])", "4 classes"),
        ("unified_focal(rare=[2])", "3 classes"),
        ("lovasz(task='multiclass')", "2 classes"),
        ("dice2(class_weight=[1,2,3])", "3 channels, multilabel"),
        ("lovasz_hinge(class_weight=[1,2])", "2 channels, multilabel"),
        ("kl", ""),
        ("nonadjacency", "3 classes, forbidden=[[0, 0, 0], [0, 0, 1], [0, 1, 0]]"),
        ("nonadjacency(forbidden=[[0,0,1],[0,0,0],[1,0,0]])", "3 classes"),
    ],
)
def test_the_number_of_classes_is_the_settings(text: str, note: str) -> None:
    one = drawn(text)
    assert one.note == note
    (section,) = curve_charts.sections({text: one})
    assert list(section.chart.legend) == [f"{text} ({note})" if note else text]


REFUSED = [
    (
        "ce(class_weight=[1,2,3]) + focal(alpha=[1,2])",
        "class_weight=[1, 2, 3] is for 3 classes but alpha=[1, 2] is for 2 classes; "
        "make them agree on the number of classes",
        "ce(class_weight=[1,2,3]) + focal(alpha=[1,2,3])",
    ),
    (
        "dice(classes=[3], class_weight=[1,2])",
        "class_weight=[1, 2] is for 2 classes but classes=[3] names class 3; make them agree on the number of classes",
        "dice(classes=[1], class_weight=[1,2])",
    ),
    ("dice(classes=[64])", "classes=[64] names class 64, and plot draws classes 0 to 63", "dice(classes=[3])"),
    ("ce(reduction='none')", "reduction='none' gives many numbers, and a curve is of one; drop it", "ce"),
    (
        "boundary(spacing=[1,2,3])",
        "spacing=[1, 2, 3] is not for the two axes that are drawn here; write spacing=[2, 3]",
        "boundary(spacing=[2, 3])",
    ),
    (
        "focal(alpha=[1,2,3], task='binary')",
        "FocalLoss: alpha of a yes or no must lie in [0, 1], got [1.0, 2.0, 3.0]",
        "focal(alpha=[1,2,3])",
    ),
    (
        "ce(pos_weight=3, task='multiclass')",
        "CrossEntropyLoss: pos_weight is for a yes or no in each channel; 2 classes that exclude each other have "
        "class_weight, one factor per class",
        "ce(class_weight=[1,3], task='multiclass')",
    ),
    (
        "lovasz_hinge(task='multiclass')",
        "LovaszHingeLoss: lovasz_hinge is defined for binary and multilabel targets, and the 2 classes of 'multiclass' "
        "exclude each other; use one channel, or task='multilabel'",
        "lovasz_hinge(task='multilabel')",
    ),
]


@pytest.mark.parametrize(("text", "reason", "instead"), REFUSED, ids=[text for text, *_ in REFUSED])
def test_an_error_speaks_of_what_was_written(
    text: str, reason: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", text, "--json"]) == 2
    assert capsys.readouterr().err == f"lossmith: {text}: {reason}\n"
    assert main(["plot", instead, "--json"]) == 0


def test_a_sum_over_several_inputs_is_drawn_once_for_each() -> None:
    parts = curves.draw("qfl + 2*giou + 0.25*dfl")
    assert {name: part.axis.kind for name, part in parts.items()} == {
        "qfl + 2*giou + 0.25*dfl: score": "score",
        "qfl + 2*giou + 0.25*dfl: box": "box",
        "qfl + 2*giou + 0.25*dfl: edge": "edge",
    }
    alone = [drawn(name).curve.lines["value"] for name in ("qfl", "giou", "dfl")]
    for part, value, weight in zip(parts.values(), alone, (1, 2, 0.25), strict=True):
        assert part.curve.lines["value"] == pytest.approx([weight * v for v in value])
    mixed = curves.draw("focal(alpha=[1,2,3]) + giou")
    assert [(part.axis.kind, part.note) for part in mixed.values()] == [("picture", "3 classes"), ("box", "")]


def test_losses_on_one_input_share_a_curve() -> None:
    together, box, corners = (drawn(text) for text in ("giou + smooth_l1", "giou", "smooth_l1"))
    assert together.axis.kind == box.axis.kind == "box"
    assert corners.axis.kind == "residual"
    assert together.curve.lines["value"][0] == pytest.approx(
        box.curve.lines["value"][0] + 1.5 / 2
    )  # two corners of four move by 2


def test_the_page_has_a_figure_for_each_kind(tmp_path: Path) -> None:
    out = tmp_path / "curves.html"
    assert main(["plot", "ce", "giou", "l1", "qfl", "iou_box", "dfl", "vfl", "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Pixels and regions",
        "Boxes",
        "Regression",
        "Scores, for a target quality of 0.7",
        "Edges as distributions, for a target at 3.7",
    ]
    assert page.count("<section>") == 5
    assert len(re.findall(r"Plotly\.newPlot\(\s*\"", page)) == 3 + 4 * 2
    boxes = page.split("<section>")[2]
    assert '"name":"giou"' in boxes
    assert '"name":"iou_box"' in boxes
    assert '"text":"shift in widths of the box"' in boxes
    assert "giou: %{y:.4g}" in boxes


def test_json_says_what_was_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "ce(class_weight=[1,2,3])", "giou", "--json"]) == 0
    picture, box = json.loads(capsys.readouterr().out).values()
    assert set(picture) >= {"q", "value", "gradient", "foreground", "foreground_pixels"}
    assert picture["x"] == picture["q"]
    assert (picture["kind"], picture["axis"]) == ("picture", "probability of the true class")
    assert picture["note"] == "3 classes"
    assert (box["kind"], box["axis"]) == ("box", "shift in widths of the box")
    assert box["gradient_axis"] == "Gradient ∂loss/∂shift"
    assert "q" not in box


def test_drawn() -> None:
    chart = curve_charts.curves({"ce": curves.sample(ls.parse("ce"))}, figures.colours(["ce"]))
    html = figures.markup(chart)
    assert "Plotly.newPlot(" in html
