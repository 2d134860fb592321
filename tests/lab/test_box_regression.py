"""The DIoU paper's experiment: gradients against autograd, the totals of the paper's figure, the page, the command."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import lossmith
from lossmith.cli import main
from lossmith.lab.experiments.boxes import page as box_page
from lossmith.lab.experiments.boxes import walk as br
from lossmith.lab.experiments.boxes.page import FIGURE

PIXEL = 0.015  # four pixels of the figure, whose lines are ten wide


def value(loss: str, box: Tensor, goal: Tensor) -> Tensor:
    """The losses as their papers write them; box and goal are (cx, cy, w, h)."""
    (x, y, w, h), (X, Y, W, H) = box, goal
    if loss == "smooth_l1":
        return torch.nn.functional.smooth_l1_loss(box, goal, reduction="sum")
    iw = (torch.minimum(x + w / 2, X + W / 2) - torch.maximum(x - w / 2, X - W / 2)).clamp(min=0)
    ih = (torch.minimum(y + h / 2, Y + H / 2) - torch.maximum(y - h / 2, Y - H / 2)).clamp(min=0)
    union = w * h + W * H - iw * ih
    iou = iw * ih / union
    cw = torch.maximum(x + w / 2, X + W / 2) - torch.minimum(x - w / 2, X - W / 2)
    ch = torch.maximum(y + h / 2, Y + H / 2) - torch.minimum(y - h / 2, Y - H / 2)
    if loss == "iou":
        return 1 - iou
    if loss == "giou":
        return 1 - iou + (cw * ch - union) / (cw * ch)
    if loss == "siou":
        # the paper's asin(|dy| / σ) is this angle, but loses half the digits of its slope near dx = 0
        angle = 1 - 2 * torch.sin(torch.atan2((y - Y).abs(), (x - X).abs()) - math.pi / 4) ** 2
        distance = sum(1 - torch.exp(-(2 - angle) * rho) for rho in (((x - X) / cw) ** 2, ((y - Y) / ch) ** 2))
        omega = ((w - W).abs() / torch.maximum(w, W), (h - H).abs() / torch.maximum(h, H))
        return 1 - iou + (distance + sum((1 - torch.exp(-o)) ** 4 for o in omega)) / 2
    diou = 1 - iou + ((x - X) ** 2 + (y - Y) ** 2) / (cw**2 + ch**2)
    if loss == "ciou":
        v = 4 / math.pi**2 * (torch.atan(W / H) - torch.atan(w / h)) ** 2
        return diou + (v / (1 - iou + v)).detach() * v
    if loss == "eiou":
        return diou + ((w - W) / cw) ** 2 + ((h - H) / ch) ** 2
    return diou


def random_boxes(count: int) -> list[tuple[list[float], list[float]]]:
    """Boxes that overlap, touch nothing, lie inside the target and around it."""
    random = np.random.default_rng(5)
    cases = []
    for i in range(count):
        spread, size = ((0.4, 1), (3, 1), (0.1, 0.3), (0.1, 4))[i % 4]
        box = [*(br.CENTRE + spread * random.normal(size=2)), *(size * random.uniform(0.5, 2, size=2))]
        cases.append((box, list(random.uniform(0.5, 2, size=2))))
    return cases


@pytest.mark.parametrize("loss", br.LOSSES)
def test_true_gradients_against_autograd(loss: str) -> None:
    kinds = set()
    for box, size in random_boxes(80):
        moving = torch.tensor(box, dtype=torch.float64, requires_grad=True)
        goal = torch.tensor([br.CENTRE, br.CENTRE, *size], dtype=torch.float64)
        (gradient,) = torch.autograd.grad(value(loss, moving, goal), moving)
        *step, iou = br.descent(br.LOSSES.index(loss), 0, *box, *size)
        assert step == pytest.approx((-gradient).tolist(), rel=1e-9, abs=1e-12)
        assert iou == pytest.approx(1 - value("iou", moving, goal).item(), abs=1e-12)
        kinds.add((iou > 0, box[2] > size[0] and box[3] > size[1]))
    assert len(kinds) >= 3


def test_deviations_by_hand() -> None:
    """A unit box two to the right of a unit target, disjoint in x and not in y; hull 3 × 1, ρ² = 4, c² = 10."""
    box = (12.0, 10.25, 1.0, 1.0, 1.0, 1.0)  # raised by 1/4, so that ch = 1.25
    far, hull = 4 + 0.25**2, (3.0, 1.25)
    diagonal = hull[0] ** 2 + hull[1] ** 2
    pull, grow = -4 / diagonal, 2 * far / diagonal**2

    def x_and_w(deviations: int, loss: int = br.DIOU) -> tuple[float, float]:
        found = br.descent(loss, deviations, *box)
        return found[0], found[2]

    assert x_and_w(0) == pytest.approx((pull + grow * 3, grow * 1.5))
    assert x_and_w(br.DOUBLE_STEP) == pytest.approx((pull + grow * 3, grow * 1.5))  # no overlap, nothing to double
    assert x_and_w(br.CENTRE_SIGN) == pytest.approx((pull - grow * 3, grow * 1.5))
    assert x_and_w(br.BOTH_SIDES) == pytest.approx((pull + grow * 4.25, grow * 4.25 / 2))
    # GIoU: gaps of −1 and .75 make an "intersection" of −.75, and its derivative by the left edge is −.75
    hull_area = 3 * 1.25
    true, unclamped = x_and_w(0, br.GIOU), x_and_w(br.UNCLAMPED, br.GIOU)
    assert true == pytest.approx((-2 * 1.25 / hull_area**2, 1 / hull_area - 1.25 / hull_area**2))
    left, right = -1 + 0.75, 1.0
    assert unclamped == pytest.approx(
        (
            (left + right) / hull_area - 2.75 * 1.25 / hull_area**2,
            (right - left) / 2 / hull_area - 2.75 * 1.25 / hull_area**2 / 2,
        )
    )


def test_aspect_and_cover_by_hand() -> None:
    around = (10.1, 10.0, 3.0, 2.0, 1.0, 1.0)  # covers the target on all four sides; the hull is the box
    grow = 2 * 0.1**2 / 13**2
    true = br.descent(br.DIOU, 0, *around)
    covered = br.descent(br.DIOU, br.COVER_SIGN, *around)
    assert true[2] - covered[2] == pytest.approx(2 * grow * 3)
    assert true[3] - covered[3] == pytest.approx(2 * grow * 2)
    assert true[:2] == covered[:2]
    plain = np.array(br.descent(br.DIOU, 0, *around)[2:4])
    normed = np.array(br.descent(br.CIOU, 0, *around)[2:4]) - plain
    bare = np.array(br.descent(br.CIOU, br.NO_ASPECT_NORM, *around)[2:4]) - plain
    assert bare == pytest.approx(normed * 13)


def test_totals_scale_with_the_points() -> None:
    points = br.draw_points(60, 1)
    run = br.Run("iou")
    whole, _ = br.simulate(points, [run], lambda cases: None)
    twice, _ = br.simulate(np.concatenate([points, points]), [run], lambda cases: None)
    assert twice[run].totals == pytest.approx(2 * whole[run].totals)
    assert twice[run].scaled() == pytest.approx(whole[run].scaled())
    assert whole[run].at(160).mean() == pytest.approx(whole[run].scaled()[159])


def test_points_and_cases_are_those_of_the_paper() -> None:
    points = br.draw_points(20_000, 0)
    radius = np.hypot(*(points - 10).T)
    assert radius.max() <= 3
    assert radius.mean() == pytest.approx(2, abs=0.02)  # uniform in the disc; standard error 0.005
    assert br.CASES_PER_POINT * br.PAPER_POINTS == 1_715_000
    assert (br.RATES.size, br.RATES.sum()) == (200, pytest.approx(16.22))


def test_one_case_step_by_step() -> None:
    """The walk of one point, the loops written out in Python."""
    point, total = br.draw_points(1, 3), np.zeros(200)
    for ratio in (0.25, 1 / 3, 0.5, 1, 2, 3, 4):
        goal = np.array([10, 10, math.sqrt(ratio), 1 / math.sqrt(ratio)])
        for area in (0.5, 0.67, 0.75, 1, 1.33, 1.5, 2):
            for own in (0.25, 1 / 3, 0.5, 1, 2, 3, 4):
                box = np.array([*point[0], math.sqrt(area * own), math.sqrt(area / own)])
                for k in range(200):
                    *step, iou = br.descent(br.GIOU, 0, *box, *goal[2:])
                    box = box + (0.1 if k < 160 else 0.01 if k < 180 else 0.001) * (2 - iou) * np.array(step)
                    total[k] += np.abs(box - goal).sum()
    run = br.Run("giou")
    courses, stopped = br.simulate(point, [run], lambda cases: None)
    assert courses[run].totals == pytest.approx(total, rel=1e-9)
    assert not stopped


def test_the_published_form_gives_the_published_figure() -> None:
    """Within three standard errors of two samples, ours and the paper's 5000 points, of what its curves show."""
    points = br.draw_points(600, 0)
    runs = [br.form_run(loss, "published") for loss in FIGURE]
    courses, _ = br.simulate(points, runs, lambda cases: None)
    for run in runs:
        for iteration, millions in FIGURE[run.loss].items():
            errors = courses[run].at(iteration) / 1e6
            sampling = errors.std() * math.sqrt(1 / 600 + 1 / 5000)
            assert abs(errors.mean() - millions) < 3 * sampling + PIXEL, (run, iteration, errors.mean(), sampling)
    assert courses[runs[0]].at(200).std() / math.sqrt(600) < 0.12e6  # the test above has teeth


def test_disjoint_share() -> None:
    points, count = br.draw_points(30, 2), 0
    for x, y in points:
        for ratio in br.RATIOS:
            for area in br.AREAS:
                for own in br.RATIOS:
                    iou = br.descent(
                        br.IOU, 0, x, y, math.sqrt(area * own), math.sqrt(area / own), ratio**0.5, ratio**-0.5
                    )[-1]
                    count += iou == 0
    assert br.disjoint_share(points) == count / (30 * 343)


def command(*words: str) -> list[str]:
    return ["lab", "box-regression", "--points", "30", *words]


def body(page: Path) -> str:
    """The page without the plotly script."""
    return re.sub(r"<script>.*?</script>", "", page.read_text(encoding="utf-8"), count=1, flags=re.S)


def test_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(command("--out", str(page))) == 0
    assert capsys.readouterr().out == f"{page}\n"
    text = body(page)
    assert "http" not in text
    assert not re.search(r"<link|<img|<iframe|@import|url\(|src=", text)  # needs nothing else
    assert page.stat().st_size > 3_000_000  # plotly is inside
    assert text.count("Plotly.newPlot(") == 3
    for words in ("DIoU’s lead over GIoU", "What each deviation does", "only: intersection not clamped", "smooth L1"):
        assert words in text
    assert "nan" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)


def test_page_of_one_form_and_one_point(tmp_path: Path) -> None:
    """One point has no standard error, one form no comparison."""
    page = tmp_path / "page.html"
    for form in ("true", "published", "both"):
        assert main(["lab", "box-regression", "--points", "1", "--form", form, "--out", str(page)]) == 0
        assert ("What each deviation does" in body(page)) == (form == "both")
        assert ("How the script differs" in body(page)) == (form != "true")
        assert "unknown" in body(page)


def test_sentences_follow_the_numbers() -> None:
    """Where the forms agree, the page must not say that the script made the gap."""
    points = br.draw_points(50, 0)
    runs = [br.form_run(loss, form) for loss in br.LOSSES for form in ("true", "published")]
    courses, _ = br.simulate(points, list(dict.fromkeys(runs)), lambda cases: None)
    sentences = " ".join(box_page.findings(courses, {}, points, ["published", "true"]))
    assert "turned the order round" in sentences
    same = courses | {br.form_run(loss, "true"): courses[br.form_run(loss, "published")] for loss in br.SCRIPT}
    sentences = " ".join(box_page.findings(same, {}, points, ["published", "true"]))
    assert sentences.count("the script made 0% of the gap") == 3
    swapped = courses | {br.form_run("giou", "published"): courses[br.form_run("diou", "published")]}
    assert "there is no published gap" in " ".join(box_page.findings(swapped, {}, points, ["published", "true"]))


def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command("--form", "published", "--json")) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert set(found) >= {"claim", "verdict", "sentence", "figures", "data", "form", "totals"}
    assert found["form"] == "published"
    assert list(found["totals"]) == list(br.LOSSES)
    assert {len(totals) for totals in found["totals"].values()} == {200}
    assert 4e6 < found["totals"]["iou"][0] < 9e6  # of 1,715,000 cases, not of 30 · 343
    assert found["data"]["points"] == 30  # what is judged is what was asked for
    assert set(found["data"]["runs"]) == {"published"}
    assert found["sentence"].startswith("With the script's gradients")
    assert main(command("--form", "published", "--json", "--seed", "1")) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["totals"] != found["totals"]
    assert other["sentence"] != found["sentence"]
    assert not list(tmp_path.iterdir())
    assert main(command("--json")) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["form"] == "both"
    assert set(both["data"]["runs"]) == {"published", "true"}
    assert both["totals"]["published"] == found["totals"]
    assert both["totals"]["true"]["eiou"] == found["totals"]["eiou"]
    assert both["totals"]["true"]["giou"] != found["totals"]["giou"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--points", "0"], "--points"),
        (["--form", "false"], "--form"),
        (["--seed", "-1"], "--seed"),
        (["--points", "30", "--fast"], "--points and --fast: give one of them"),
        (["--out", "no/where/page.html"], "--out no/where/page.html: cannot be written (No such file or directory)"),
        (["--out", "."], "--out .: is a folder"),
        (["--unknown"], "--unknown"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "box-regression", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lossmith: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize("finished", [0, 50])
def test_ctrl_c_keeps_what_is_done(
    finished: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, points, page = br._walk, br.draw_points(90, 0), tmp_path / "page.html"

    def interrupted(loss: int, deviations: int, part: br.Array, *rest: br.Array) -> int:
        if (part[0] == points[finished]).all():
            raise KeyboardInterrupt
        return int(real(loss, deviations, part, *rest))

    monkeypatch.setattr(br, "_walk", interrupted)
    assert main(["lab", "box-regression", "--points", "90", "--out", str(page)]) == 130
    said = capsys.readouterr().err
    if finished == 0:
        assert said == "lossmith: stopped before the first anchor points were done\n"
        assert not page.exists()
    else:
        assert said == f"lossmith: stopped after 50 of 90 anchor points; {page} shows what is done\n"
        assert "Stopped after 50 of 90 anchor points" in body(page)
        assert main(["lab", "box-regression", "--points", "90", "--form", "true", "--json"]) == 130
        assert json.loads(capsys.readouterr().out)["data"]["points"] == 50  # nothing is simulated once more


def test_ctrl_c_among_the_deviations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, page = br._walk, tmp_path / "page.html"

    def interrupted(loss: int, deviations: int, *rest: br.Array) -> int:
        if deviations == br.UNCLAMPED:
            raise KeyboardInterrupt
        return int(real(loss, deviations, *rest))

    monkeypatch.setattr(br, "_walk", interrupted)
    assert main(command("--out", str(page))) == 130
    assert "stopped after 30 of 30 anchor points, in the table of deviations;" in capsys.readouterr().err
    assert "What each deviation does" not in body(page)
    assert "DIoU’s lead over GIoU" in body(page)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A file where each folder would be: numba's own cache raises at import then."""
    package = Path(lossmith.__file__).parent
    copy = shutil.copytree(package, tmp_path / "lossmith", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "lab" / "experiments" / "boxes" / "__pycache__").touch()
    program = "from lossmith.lab.experiments.boxes import walk as br; print(br._clip(-3.0), br.__file__)"
    blocked = {"HOME": str(copy / "cli.py"), "XDG_CACHE_HOME": str(copy / "cli.py"), "PYTHONPATH": str(tmp_path)}
    mine = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"} | blocked
    done = subprocess.run([sys.executable, "-c", program], env=mine, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == f"-1.0 {copy / 'lab' / 'experiments' / 'boxes' / 'walk.py'}\n"
