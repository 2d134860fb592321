"""Drawn boxes: the folder, ATSS, what the detector's loss reads, COCO's scores, and a whole comparison of seconds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from crowns import make_folder

import lossmith as ls
from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.data import builtin
from lossmith.lab.data.scenes import Scene, Scenes, clip_boxes, read_scenes
from lossmith.lab.kinds import boxes
from lossmith.lab.kinds.boxes import KIND as BOXES
from lossmith.lab.kinds.boxes import BoxCrops, DetectionSettings
from lossmith.lab.run.detector import BINS, EDGES, SCORE, Detector, assign, centerness, decode, grid
from lossmith.lab.run.trial import run_trial
from lossmith.lab.run.watch import Watcher
from lossmith.lab.say.average_precision import average_precision, resampled_ap50
from lossmith.lab.say.bootstrap import NO_DIFFERENCE, bootstrap
from lossmith.lab.say.decision import decide
from lossmith.lab.say.ranking import rank
from lossmith.lab.settings import Asked, Planned

QFL = "qfl + 2*giou + 0.25*dfl"
FOCAL = "focal + giou"


@pytest.fixture(scope="module")
def crowns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("crowns") / "crowns")


@pytest.fixture(scope="module")
def scenes(crowns: Path) -> Scenes:
    return read_scenes(crowns, "crowns")


@pytest.fixture
def shared(scenes: Scenes) -> DetectionSettings:
    small = BOXES.settings(scenes, Asked("crowns", steps=4, crop=64, batch=2))
    return replace(small, features=(8, 8, 8))


def test_the_folder(scenes: Scenes) -> None:
    assert [s.stem for s in scenes.train] == ["left"]
    assert [s.stem for s in scenes.validation] == ["right x0 y0", "right x256 y0"]
    assert len(scenes.train[0].boxes) == 9
    assert scenes.validation[1].image.shape == (1, 192, 64)


def test_a_box_that_a_cut_leaves_less_than_half_of_is_ignored() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [6, 0, 16, 10], [4, 0, 14, 10], [20, 0, 30, 10]])
    inside, ignore = clip_boxes(boxes, np.zeros(4, dtype=bool), (0, 0, 10, 10))
    assert inside.tolist() == [[0, 0, 10, 10], [6, 0, 10, 10], [4, 0, 10, 10]]
    assert ignore.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("left,5,5,4,9", "line 2: the box"),
        ("left,5,5,9999,9", "line 2: the box"),
        ("left,a,5,6,9", "line 2: x1, y1, x2, y2 must be numbers"),
        ("up,1,1,2,2", "no image with the stem 'up'"),
    ],
)
def test_bad_boxes(tmp_path: Path, line: str, message: str) -> None:
    folder = make_folder(tmp_path / "bad")
    (folder / "boxes.csv").write_text(f"stem,x1,y1,x2,y2\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_scenes(folder, "bad")


def test_atss() -> None:
    box = torch.tensor([[2.0, 2.0, 7.0, 7.0]])  # of the very size of the squares, its centre on a point
    target = assign(box, torch.tensor([False]), 10, 10)
    # Candidates are the 3 x 3 points about (4.5, 4.5): IoU 1 in the middle, 4/6 beside it, 16/34 at the corners;
    # mean 0.616, deviation 0.184: only the middle is above 0.80.
    assert target[0].nonzero().tolist() == [[4, 4]]
    assert target[1:, 4, 4].tolist() == box[0].tolist()
    ignored = assign(box, torch.tensor([True]), 10, 10)
    assert (ignored[0] == -1).sum() == 25
    assert (ignored[0] == 1).sum() == 0


def test_a_point_goes_to_the_box_that_it_fits_best() -> None:
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [2.0, 2.0, 7.0, 7.0]])
    target = assign(boxes, torch.tensor([False, False]), 10, 10)
    assert target[1:, 4, 4].tolist() == boxes[1].tolist()


def perfect(target: torch.Tensor, edges: bool) -> torch.Tensor:
    """An output that says the target: sure scores, exact boxes."""
    height, width = target.shape[1:]
    output = torch.zeros(74, height, width)
    points = grid(height, width)
    output[SCORE] = torch.where(target[:1] == 1, 12.0, -12.0)
    sides = ls.box.encode_distances(points, target[1:].flatten(1).T, 1).clamp(0.01, BINS - 0.01)
    if edges:
        low = sides.floor().long()
        share = torch.zeros(*sides.shape, BINS + 1)
        share.scatter_(-1, low[..., None], (low + 1 - sides)[..., None])
        share.scatter_(-1, low[..., None] + 1, (sides - low)[..., None])
        output[EDGES] = share.clamp(min=1e-12).log().flatten(1).T.reshape(-1, height, width)
    else:
        output[2:6] = (sides.expm1().log() - 2).T.reshape(4, height, width)
    return output


@pytest.mark.parametrize("text", [QFL, FOCAL, "focal + smooth_l1", "bce + ciou", "vfl + giou"])
def test_the_truth_costs_nothing_and_is_decoded(text: str, scenes: Scenes, shared: DetectionSettings) -> None:
    loss = BOXES.parse(text, replace(shared, quality="none"), scenes).loss
    boxes = torch.tensor([[1.0, 1.0, 6.0, 6.5], [7.0, 7.25, 12.0, 12.0]])
    target = assign(boxes, torch.tensor([False, False]), 14, 14)
    output = perfect(target, "edge" in loss.slots)
    without_edges = loss.loss(
        **{
            "score": (output[SCORE].reshape(-1, 1), (target[:1] == 1).float().reshape(-1, 1)),
            "box": (boxes, boxes),
            **({"edge": (torch.zeros(0, 4, 17), torch.zeros(0, 4))} if "edge" in loss.slots else {}),
        }
    )
    assert without_edges < 1e-3
    wrong = loss(-output[None], target[None])
    right = loss(output[None], target[None])
    assert right < (0.2 if "edge" in loss.slots else 5e-3)  # the edges cost the entropy between two bins
    assert wrong > 1 + right
    found = decode(output, loss)
    assert found.shape == (2, 6)
    order = found[:, 0].argsort()
    np.testing.assert_allclose(found[order, :4], 8 * boxes.numpy(), atol=1e-3)


def test_what_the_score_is_to_be(scenes: Scenes, shared: DetectionSettings) -> None:
    """At a positive the score's gradient vanishes at the IoU of the box for qfl, at nothing short of 1 for focal."""
    target = assign(torch.tensor([[1.0, 1.0, 6.0, 6.0]]), torch.tensor([False]), 8, 8)
    y, x = (target[0] == 1).nonzero()[0].tolist()
    output = perfect(target, edges=False)
    output[2:6] += 0.5  # a box too large
    points = grid(8, 8)[(target[0] == 1).flatten()]
    sides = torch.nn.functional.softplus(output[2:6, target[0] == 1].T + 2)
    overlap = 1 - ls.IoULoss()(ls.box.decode_distances(points, sides, 1)[:1], target[1:, y, x][None])
    assert 0.5 < overlap < 0.95
    output[0, y, x] = torch.logit(overlap)
    slopes = {}
    for text in ("qfl + giou", FOCAL):
        leaf = output[None].clone().requires_grad_()
        BOXES.parse(text, replace(shared, quality="none"), scenes).loss(leaf, target[None]).backward()
        assert leaf.grad is not None
        slopes[text] = leaf.grad[0, 0, y, x].item()
    assert abs(slopes["qfl + giou"]) < 1e-6
    assert slopes[FOCAL] < -1e-3


def test_ignored_points_teach_the_score_nothing(scenes: Scenes, shared: DetectionSettings) -> None:
    target = assign(torch.tensor([[1.0, 1.0, 6.0, 6.0]]), torch.tensor([True]), 8, 8)
    for text in (QFL, FOCAL):
        leaf = torch.zeros(1, 74, 8, 8, requires_grad=True)
        BOXES.parse(text, shared, scenes).loss(leaf, target[None]).backward()
        assert leaf.grad is not None
        assert (leaf.grad[0, 0][target[0] == -1] == 0).all()
        assert (leaf.grad[0, 0][target[0] == 0] > 0).all()
        assert (leaf.grad[0, 1:] == 0).all()


def test_centerness() -> None:
    points = torch.tensor([[2.0, 2.0], [1.0, 2.0]])
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(2, 1)
    torch.testing.assert_close(centerness(points, boxes), torch.tensor([1.0, (1 / 3) ** 0.5]))


def test_the_quality_belongs_to_losses_whose_score_is_none(scenes: Scenes, shared: DetectionSettings) -> None:
    assert BOXES.parse(QFL, shared, scenes).loss.quality == "none"
    assert BOXES.parse(FOCAL, shared, scenes).loss.quality == "centerness"
    assert "BCE(centerness)" in repr(BOXES.parse(FOCAL, shared, scenes).loss)
    output = torch.zeros(74, 8, 8)
    output[1] = -1.0
    found = decode(output, BOXES.parse(FOCAL, shared, scenes).loss)
    np.testing.assert_allclose(found[:, 4], found[:, 5] * torch.tensor(-1.0).sigmoid().item(), rtol=1e-6)


@pytest.mark.parametrize("text", ["focal", "giou", "dice + giou", "qfl + focal + giou", "nice + giou"])
def test_losses_that_do_not_fit(text: str, scenes: Scenes, shared: DetectionSettings) -> None:
    with pytest.raises(UserError, match=r"--loss .* \(boxes\): "):
        BOXES.parse(text, shared, scenes)


def tile(boxes: list[list[float]], ignore: list[bool] | None = None) -> Scene:
    return Scene(
        "",
        np.zeros((1, 64, 64), np.float32),
        np.array(boxes, float).reshape(-1, 4),
        np.array(ignore or [False] * len(boxes)),
    )


def test_average_precision() -> None:
    tiles = [tile([[0, 0, 20, 20]]), tile([[0, 0, 40, 40], [50, 50, 60, 60]], [False, True])]
    hit = [0, 0, 20, 20, 0.9, 0.1]
    wrong = [40, 40, 60, 60, 0.5, 0.5]
    other = [0, 0, 40, 40, 0.4, 0.4]
    found = [np.array([hit, wrong]), np.array([other, [50, 50, 60, 60, 0.95, 0.9]])]
    scores = average_precision(tiles, found)
    # Hit, miss, hit; what is found in an ignored box counts neither way. 51 places of recall have precision 1, 50 2/3.
    assert scores["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert (scores["ar_small"], scores["ar_medium"], scores["ar_large"]) == (1.0, 1.0, None)
    by_class = average_precision(tiles, found, column=5)["ap50"]
    assert by_class == pytest.approx((101 * 2 / 3) / 101)
    draws = np.array([[0, 1], [1, 1], [0, 0]])
    np.testing.assert_allclose(
        resampled_ap50(tiles, found, draws), [scores["ap50"], 1.0, scores_of(tiles, found, [0, 0])], atol=1e-12
    )


def scores_of(tiles: list[Scene], found: list[np.ndarray], draw: list[int]) -> float:
    score = average_precision([tiles[i] for i in draw], [found[i] for i in draw])["ap50"]
    assert score is not None
    return score


def test_the_bootstrap_over_tiles(scenes: Scenes) -> None:
    truth = {s.stem: np.column_stack([s.boxes, np.full((len(s.boxes), 2), 0.9)]) for s in scenes.validation}
    nothing = {s.stem: np.zeros((0, 6)) for s in scenes.validation}

    def judged(other: dict[str, np.ndarray], ap50: float) -> str:
        half = dict.fromkeys(BOXES.metrics.titles, 0.5)
        trials = [
            {"loss": loss, "seed": 0, "hash": loss, "diverged": None, "metrics": {**half, "ap50": score}}
            for loss, score in (("a", 1.0), ("b", ap50))
        ]
        decision = decide({"a": {0: 1.0}, "b": {0: max(ap50, 0.5)}}, ["a", "b"])
        ranking = rank(trials, ["a", "b"], decision, BOXES.metrics)
        return str(bootstrap(ranking, trials, {"a": truth, "b": other}, scenes)["b"]["verdict"])

    assert judged(nothing, 0.0) == "lower"
    assert judged(truth, 1.0) == NO_DIFFERENCE


def test_crops_are_cut_and_flipped_with_their_boxes(scenes: Scenes, shared: DetectionSettings) -> None:
    crops = BoxCrops(scenes.train, replace(shared, steps=20), 0)
    inside, outside = [], []
    for step in range(20):
        image, target = crops.batch(step)
        small = torch.nn.functional.avg_pool2d(image, 8)[:, 0]
        inside += small[target[:, 0] == 1].tolist()
        outside += small[target[:, 0] == 0].tolist()
    assert np.mean(inside) > 1.0 + np.mean(outside)
    assert crops.checksum == BoxCrops(scenes.train, replace(shared, steps=20), 0).checksum
    assert crops.checksum != BoxCrops(scenes.train, replace(shared, steps=20), 1).checksum


def test_the_detector_learns(scenes: Scenes, shared: DetectionSettings) -> None:
    longer = replace(shared, steps=60, crop=128, features=(8, 16, 16), lr=1e-2)
    loss = BOXES.parse("qfl + giou", longer, scenes).loss
    record, _, _ = run_trial(BOXES, loss, Planned("", 0, longer.lr), scenes, longer, Watcher())
    assert record["training"]["loss"][-1] < 0.6 * record["training"]["loss"][0]
    assert record["metrics"]["ap50"] > 0.3


def test_divergence_is_a_result(scenes: Scenes, shared: DetectionSettings) -> None:
    loss = BOXES.parse("1e38*qfl + 1e38*giou", shared, scenes).loss
    record, predictions, _ = run_trial(BOXES, loss, Planned("", 0, 1e30), scenes, shared, Watcher())
    assert record["diverged"]
    assert record["metrics"] is None
    assert predictions == {}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes.BoxKind, "sizes", lambda *_: (256, 4, (8, 8, 8)))
    # In so few steps nothing is learnt, and what has learnt nothing is not ranked.
    monkeypatch.setattr(boxes.BoxKind, "trivial", lambda *_: {"nothing": -1.0, "everything": -1.0})


@pytest.mark.usefixtures("quick")
def test_compare(crowns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", str(crowns), "--loss", QFL, "--loss", FOCAL, "--seeds", "1", "--steps", "6", "--crop", "64"]
    command += ["--batch", "2", "--device", "cpu", "--out", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["finished"] == 2
    assert len({t["weights_checksum"] for t in results["trials"]}) == 1
    assert len({t["crops_checksum"] for t in results["trials"]}) == 1
    (over_tiles,) = results["tiles"].values()
    assert "not over training seeds" in over_tiles["interval"]
    times = [p.stat().st_mtime_ns for p in sorted((tmp_path / "trials").iterdir())]
    assert main(command) == 0  # resumes: nothing to do
    assert "AP50" in capsys.readouterr().out
    assert [p.stat().st_mtime_ns for p in sorted((tmp_path / "trials").iterdir())] == times
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "ATSS on one level" in page
    assert main([*command, "--quality", "iou"]) == 2
    assert "holds trials with quality = centerness, this run has iou" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_options_that_do_not_fit(
    crowns: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert main(["compare", str(crowns), "--loss", FOCAL, "--task", "binary", *out]) == 2
    assert "has boxes, not labelled pixels" in capsys.readouterr().err
    assert main(["compare", str(folder), "--loss", "ce", "--quality", "iou", *out]) == 2
    assert "has no boxes.csv" in capsys.readouterr().err


def test_weights_do_not_depend_on_the_heads_that_are_read() -> None:
    output = Detector(3, (8, 8, 8))(torch.zeros(1, 3, 64, 48))
    assert output.shape == (1, EDGES.stop, 8, 6)
    assert output[:, SCORE].sigmoid().mean().item() == pytest.approx(0.01, abs=0.05)


def test_trees() -> None:
    try:
        folder = builtin.find_folder("trees", print)
    except UserError as error:
        pytest.skip(str(error))
    data = read_scenes(folder, "trees")
    assert data.train[0].image.shape == (3, 2472, 1275)
    assert len(data.validation) == 40
    assert len(data.train[0].boxes) == 254
    assert sum(int((~s.ignore).sum()) for s in data.validation) == 322
