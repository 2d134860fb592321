"""Losses against an axis that was asked for: closed forms, the files, the object of a notebook, and what is refused."""

import base64
import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from advice import Reached, reached
from matplotlib.figure import Figure

import lossmith as ls
from lossmith.cli import main
from lossmith.lab.page import curve_charts, stills
from lossmith.lab.say import axes, curves

NAMES = list(dict.fromkeys(axis.name for axis in axes.AXES))
A, ALL, WRONG, RIGHT = 16 * 16, 32 * 48, 0.01, 0.99  # the shifted object, its picture, the two probabilities

LABELLED = "losses of pixels and regions, as ce and dice, that read labels"


def lines(text: str, against: str) -> tuple[list[float], dict[str, list[float]]]:
    (one,) = curves.draw(text, against).values()
    return one.curve.x, one.curve.lines


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points of each axis, where it is not about the points."""
    thin = [replace(axis, points=axis.points[:: len(axis.points) // 8]) for axis in axes.AXES]
    monkeypatch.setattr(curves, "AXES", thin)


# ---------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("text", ["ce", "ce(class_weight=[1,1,1])", "ce(task='multilabel')"])
def test_cross_entropy_against_p(text: str) -> None:
    """−ln p, whose slope along the logit of p is p − 1."""
    x, found = lines(text, "p")
    assert found["value"] == pytest.approx([-math.log(p) for p in x], rel=1e-6)
    assert found["gradient"] == pytest.approx([p - 1 for p in x], rel=1e-6)


def test_a_slope_has_its_sign() -> None:
    """The conservative loss pulls back from p = 1 / e on, where the size of the gradient shows nothing of it."""
    x, found = lines("conservative", "p")
    assert {slope < 0 for p, slope in zip(x, found["gradient"], strict=True) if p < 1 / math.e} == {True}
    assert {slope < 0 for p, slope in zip(x, found["gradient"], strict=True) if p > 1 / math.e} == {False}


def test_dice_against_overlap() -> None:
    """1 − (2 TP + 1) / (P + T + 1): a shift keeps P, false positives alone add to it, false negatives alone take."""
    x, found = lines("dice", "overlap")

    def dice(hit: float, marked: float) -> float:
        tp = A * (hit * RIGHT + (1 - hit) * WRONG)
        p = marked * A * RIGHT + (ALL - marked * A) * WRONG
        return 1 - (2 * tp + 1) / (p + A + 1)

    assert found["value"] == pytest.approx([dice(o, 1) for o in x], abs=1e-5)
    assert found["value_fp"] == pytest.approx([dice(1, 2 - o) for o in x], abs=1e-5)
    assert found["value_fn"] == pytest.approx([dice(o, o) for o in x], abs=1e-5)
    assert found["value"][0] > 0.98
    assert found["value_fp"][0] < found["value_fn"][0] / 2  # 1 / 3 and 1, but for ε and the doubts


def test_cross_entropy_against_overlap() -> None:
    """Every wrong pixel costs −ln .01 and pulls with .99, whichever side it is on."""
    x, found = lines("ce", "overlap")
    for end, sides in (("", 2), ("_fp", 1), ("_fn", 1)):
        wrong = [sides * A * (1 - o) / ALL for o in x]
        value = [-e * math.log(WRONG) - (1 - e) * math.log(RIGHT) for e in wrong]
        assert found[f"value{end}"] == pytest.approx(value, rel=1e-4)
        assert found[f"gradient{end}"] == pytest.approx([e * RIGHT + (1 - e) * WRONG for e in wrong], rel=1e-4)


def test_tversky_tells_the_two_sides_apart() -> None:
    _, found = lines("tversky(fp_weight=0.3, fn_weight=0.7)", "overlap")
    _, other = lines("tversky(fp_weight=0.7, fn_weight=0.3)", "overlap")
    assert found["value_fp"][0] < other["value_fp"][0]
    assert found["value_fn"][4] > other["value_fn"][4]


def test_cross_entropy_against_size() -> None:
    """The object's pixels pull with ½, the background's with .05: who owns the gradient is a matter of counting."""
    x, found = lines("ce", "size")
    share = [percent / 100 for percent in x]
    total = [0.5 * a + 0.05 * (1 - a) for a in share]
    assert found["gradient"] == pytest.approx(total, rel=1e-4)
    assert found["foreground"] == pytest.approx([0.5 * a / t for a, t in zip(share, total, strict=True)], rel=1e-4)
    assert found["value"] == pytest.approx([-a * math.log(0.5) - (1 - a) * math.log(0.95) for a in share], rel=1e-4)
    (one,) = curves.draw("ce", "size").values()
    assert one.curve.pixels == pytest.approx(share)


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_iou_against_scale(fmt: str, coarse: None) -> None:
    """One box lies in the other: 1 − s², or 1 − 1 / s²; at s = 1 the slope is the mean of both sides."""
    x, found = lines(f"iou_box(fmt='{fmt}')", "scale")
    assert (x[0], x[-1]) == pytest.approx((1 / 4, 4))
    assert found["value"] == pytest.approx([1 - min(s, 1 / s) ** 2 for s in x], abs=1e-9)
    apart = [(s, slope) for s, slope in zip(x, found["gradient"], strict=True) if abs(s - 1) > 1e-6]
    assert [slope for _, slope in apart] == pytest.approx([-2 * s if s < 1 else 2 / s**3 for s, _ in apart])


def test_iou_against_aspect(coarse: None) -> None:
    """√a by 1 / √a over 1 by 1: they share 1 / √a of 2 − 1 / √a."""
    x, found = lines("iou_box", "aspect")
    wide = [max(math.sqrt(a), 1 / math.sqrt(a)) for a in x]
    assert found["value"] == pytest.approx([1 - 1 / (2 * w - 1) for w in wide], abs=1e-9)


def test_coordinates_against_shift(coarse: None) -> None:
    """Two corners of four move: beside the losses of boxes a loss of numbers can be drawn too."""
    x, found = lines("smooth_l1", "shift")
    assert found["value"] == pytest.approx([0.5 * (s * s / 2 if abs(s) < 1 else abs(s) - 0.5) for s in x])


# --------------------------------------------------------------------------------------------- who is drawn on what


@pytest.mark.parametrize("row", ls.catalogue(), ids=lambda row: row.name)
def test_every_loss_is_drawn_or_told_where_it_can_be(row: ls.names.Row, coarse: None) -> None:
    drawn = []
    for name in NAMES:
        try:
            found = curves.draw(row.name, name)
        except ValueError as error:
            others = re.search(r"^\w+ is for .*; draw this one against (.*)$", str(error))
            assert others is not None
            assert set(re.split(", | or ", others[1])) <= set(NAMES) - {name}
            continue
        drawn.append(name)
        for each in found.values():
            assert each.axis.name == name
            for line in each.axis.lines:
                assert len(each.curve.lines[line.key]) == len(each.curve.x)
            values = [v for line in each.curve.lines.values() for v in line if v is not None]
            assert all(map(math.isfinite, values))
    assert drawn


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ce", "--against", "q"], f"no axis is called 'q'; there are {', '.join(NAMES)}"),
        (
            ["ce", "giou", "--against", "overlap"],
            f"giou: overlap is for {LABELLED}; draw this one against shift, scale or aspect",
        ),
        (
            ["entropy", "--against", "size"],
            f"entropy: size is for {LABELLED}; draw this one against p or picture",
        ),
        (
            ["dfl", "--against", "p"],
            "dfl: p is for losses of pixels and regions, as ce and dice; draw this one against edge",
        ),
        (["ce", "--out", "ce.pdf"], "ce.pdf: ends in none of .png, .svg and .html; choose one of them"),
    ],
)
def test_one_line(words: list[str], line: str, coarse: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", *words]) == 2
    assert capsys.readouterr() == ("", f"lossmith: {line}\n")


@pytest.mark.parametrize("where", ["no/where.svg", "folder.svg", "ce.pdf"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_computed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.svg").mkdir()
    monkeypatch.setattr(curves, "draw", reached)
    assert main(["plot", "ce", "--out", str(tmp_path / where)]) == 2
    with pytest.raises(Reached):
        main(["plot", "ce", "--out", str(tmp_path / "ce.svg")])


def test_of_a_sum_the_part_is_drawn_that_has_the_axis(coarse: None) -> None:
    assert list(curves.draw("qfl + 2*giou + 0.25*dfl", "scale")) == ["qfl + 2*giou + 0.25*dfl: box"]


def test_the_help_and_the_docstring_name_every_axis(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "--help"]) == 0
    words = set(re.findall(r"\w+", capsys.readouterr().out))
    assert set(NAMES) <= words
    assert set(NAMES) - {"picture"} <= set(re.findall(r'"(\w+)"', ls.plot.__doc__ or ""))


# ----------------------------------------------------------------------------------------------------- what is shown


def test_panels_that_are_compared_have_one_scale(coarse: None) -> None:
    (section,) = curve_charts.sections(curves.draw("ce", "overlap"))
    ranges = [panel.y_range for panel in section.chart.panels]
    assert ranges[0] == ranges[1] == ranges[2] != ranges[3] == ranges[4] == ranges[5]
    low, high = ranges[0]
    assert low < 0.01 < 1.5 < high


def test_the_share_of_the_pixels_grows_with_the_object(coarse: None) -> None:
    (section,) = curve_charts.sections({**curves.draw("ce", "size"), **curves.draw("dice", "size")})
    *losses, pixels = section.chart.panels[2].series
    assert [series.note for series in losses] == ["ce", "dice"]
    assert pixels.note == "share of the pixels"
    assert [100 * y for y in pixels.y] == pytest.approx(list(pixels.x))
    assert section.chart.panels[0].x_log


def test_a_slope_below_zero_is_not_cut_off(coarse: None) -> None:
    (section,) = curve_charts.sections(curves.draw("ce", "p"))
    value, slope = section.chart.panels
    low = []
    for panel in (value, slope):
        axis = Figure().subplots()
        stills._draw(axis, panel)
        low.append(axis.get_ylim()[0])
    assert low[0] == 0
    assert low[1] < -0.998


def test_files_by_their_suffix(coarse: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.svg", "a.PNG", "a.html", "a"):
        assert main(["plot", "ce", "dice", "l1", "--out", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in ("a.svg", "a.PNG", "a.html", "a")]
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    picture = html.unescape((tmp_path / "a.svg").read_text(encoding="utf-8"))
    for axis in (axes.PICTURE, next(axis for axis in axes.AXES if axis.name == "residual")):
        for words in (axis.heading, axis.title, *(line.title for line in axis.lines), axis.caption[:40]):
            assert words in picture
    assert {"ce", "dice", "l1"} <= set(re.findall(r">(\w+)</text>", picture))
    for name in ("a.html", "a"):
        assert axes.PICTURE.caption in html.unescape((tmp_path / name).read_text(encoding="utf-8"))


def test_json_writes_a_file_only_if_one_is_named(
    coarse: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "ce", "--against", "overlap", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["ce"]
    assert not list(tmp_path.iterdir())
    assert (found["kind"], found["against"]) == ("picture", "overlap")
    assert {"value", "value_fp", "value_fn", "gradient", "gradient_fp", "gradient_fn"} <= found.keys()
    assert "16 × 16" in found["caption"]
    assert main(["plot", "ce", "--against", "p", "--json", "--out", "ce.svg"]) == 0
    assert json.loads(capsys.readouterr().out)["ce"]["against"] == "p"
    assert [path.name for path in tmp_path.iterdir()] == ["ce.svg"]


# ---------------------------------------------------------------------------------------------------- in a notebook


def test_a_plot_shows_and_saves_itself(coarse: None, tmp_path: Path) -> None:
    plot = ls.plot("dice", ls.TverskyLoss(fn_weight=0.7, fp_weight=0.3), against="p")
    assert list(plot.as_json()) == ["dice", repr(ls.TverskyLoss(fn_weight=0.7, fp_weight=0.3))]
    assert repr(plot).startswith("plot('dice', ")
    shown = plot._repr_html_()
    picture, said = re.fullmatch(r'<img src="data:image/svg\+xml;base64,(.*?)" alt="(.*?)" style=".*">', shown).groups()
    assert base64.b64decode(picture) == plot.save(tmp_path / "a.svg").read_bytes()
    assert "a pixel of every 16 belongs to the foreground" in said
    with pytest.raises(ValueError, match="ends in none of"):
        plot.save("a.pdf")
    with pytest.raises(ValueError, match=r"^no axis is called 'over'; there are p, overlap, "):
        ls.plot("dice", against="over")
    with pytest.raises(ValueError, match=r"^dicy: no loss is called 'dicy'; did you mean 'dice'"):
        ls.plot("dicy")
