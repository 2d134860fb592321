"""What the experiments that train say of scores that are made up, and the folders that they train on: no training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lossmith.lab.data.labelled import read_pixels
from lossmith.lab.data.scenes import read_scenes
from lossmith.lab.experiments import conservative_across_domains, non_adjacency_trains
from lossmith.lab.experiments.dice_converges_faster import DiceConvergesFaster
from lossmith.lab.experiments.dice_or_weighted_ce import DiceOrWeightedCE
from lossmith.lab.experiments.lovasz_over_thresholds import LovaszOverThresholds
from lossmith.lab.experiments.non_adjacency_trains import NonAdjacencyTrains
from lossmith.lab.experiments.qfl_beta import QFLBeta
from lossmith.lab.experiments.training import folders
from lossmith.lab.experiments.training.claim import Trained, paired
from lossmith.lab.say.decision import Look, decide

HIGH, LOW, LIKE_HIGH = [0.9, 0.91, 0.9], [0.5, 0.52, 0.48], [0.91, 0.9, 0.89]
TOP, NOTHING = [0.99, 0.99, 0.99], [0.1, 0.0, 0.105]


FULL = {
    "fast": False,
    "trivial": 0.1,
    "images": {"train": 9, "validation": 2},
    "foreground": {"train": 0.012, "validation": 0.05},
    "seeds": 3,
    "steps": 7,
    "crop": 32,
    "batch": 2,
}


def made_up(it: Trained, *scores: list[float]) -> dict[str, Any]:
    trials = {loss: [{"score": score} for score in of] for loss, of in zip(it.losses, scores, strict=True)}
    return {**FULL, "trials": trials}


@pytest.mark.parametrize(
    ("scores", "verdict", "left_open"),
    [
        ([HIGH, LOW, LOW], "confirmed", False),
        ([HIGH, LOW, LIKE_HIGH], "no difference seen", True),
        ([LOW, HIGH, LOW], "refuted", False),
        ([LIKE_HIGH, HIGH, LIKE_HIGH], "no difference seen", True),
        ([TOP, TOP, TOP], "no difference seen", False),
        ([TOP, LOW, TOP], "no difference seen", False),  # best of one, and level with another
    ],
)
def test_best_is_who_is_ahead_of_all(scores: list[list[float]], verdict: str, left_open: bool) -> None:
    it = QFLBeta()
    finding = it.judge(made_up(it, *scores))
    assert finding.verdict == verdict
    assert f"{sum(scores[0]) / 3:.3f} with {it.losses[0]}" in finding.sentence
    assert finding.sentence.startswith("Undecided: 3 seeds of 7 steps are too few to tell. ") == left_open


def test_the_short_form_says_that_it_is_short() -> None:
    it = QFLBeta()
    finding = it.judge({**made_up(it, HIGH, LOW, LOW), "fast": True})
    assert finding.sentence.startswith("The short form trains little. Over 3 seeds of 7 steps")
    level = {"train": 0.042, "validation": 0.156}
    two = DiceOrWeightedCE()
    sentence = two.judge({**made_up(two, HIGH, LOW), "fast": True, "foreground": level}).sentence
    assert "The short form trains little, on data that are not strongly imbalanced." in sentence
    assert "with 4.2 % foreground in training and 15.6 % where judged" in sentence


def test_nothing_is_said_of_losses_that_learnt_nothing() -> None:
    it = QFLBeta()
    finding = it.judge(made_up(it, NOTHING, NOTHING, NOTHING))
    assert finding.verdict == "no difference seen"
    assert finding.sentence.startswith("Nothing was learnt, so nothing can be said. ")
    assert finding.sentence.endswith(": what knows nothing has 0.100.")
    some = it.judge(made_up(it, HIGH, NOTHING, HIGH)).sentence
    assert f"worse, {it.losses[1]} has learnt nothing; " in some
    assert "Nothing was learnt" not in some
    assert it.judge(made_up(it, NOTHING, NOTHING, HIGH)).sentence.count("neither has learnt anything") == 1


def test_words_and_captions_take_their_numbers_from_the_data() -> None:
    it = LovaszOverThresholds()
    data = {**made_up(it, HIGH, LOW), "trivial": it.trivial({"trivial": {"nothing": 0.0, "everything": 0.27}})}
    assert it.tables(data)[0].caption == "IoU of 2 held-back frames (what knows nothing: 0.156)"
    one = {**data, "images": {"train": 4, "validation": 1}}
    assert it.tables(one)[0].caption.startswith("IoU of 1 held-back frame (")
    shifted = conservative_across_domains.EXPERIMENT
    assert shifted.measured(made_up(shifted, HIGH, LOW)) == "Dice of 1 shifted frame"  # of two, one is as it was


def test_a_pair_is_what_the_lab_decides_of_it() -> None:
    pair = paired({"a": LOW, "b": HIGH}, 0.1)
    by_seed = {"a": dict(enumerate(LOW)), "b": dict(enumerate(HIGH))}
    standing = decide(by_seed, ["a", "b"], (Look(3, 1.0),)).of("a")
    assert standing is not None
    assert (pair.ahead, pair.behind, pair.low, pair.high) == ("b", "a", standing.low, standing.high)
    assert pair.decided
    assert not pair.as_claimed
    shared = paired({"a": LOW, "b": HIGH}, 0.1, 0.5)
    assert shared.low < pair.low < pair.high < shared.high
    assert paired({"b": HIGH, "a": LOW}, 0.1).as_claimed
    assert not paired({"a": HIGH, "b": LIKE_HIGH}, 0.1).decided
    assert paired({"a": [0.99] * 9, "b": [0.99] * 9}, 0.1).said == "as good"


def test_who_has_learnt_nothing_is_compared_by_its_seeds() -> None:
    """The rule of thumb of a comparison has no interval, and so decides no claim."""
    assert paired({"a": [0.0, 0.0, 0.0], "b": [0.01, 0.0, 0.01]}, 0.1).high > 0
    assert paired({"a": LOW, "b": NOTHING}, 0.1).idle == ["b"]


EARLY, LATE, WHOLE = [0.9, 0.9, 0.9, 0.9, 0.9], [0.05, 0.3, 0.5, 0.6, 0.9], [0.05, 0.9, 0.9, 0.9, 0.5]


@pytest.mark.parametrize(
    ("dice", "ce", "verdict"),
    [
        (EARLY, LATE, "confirmed"),
        (LATE, EARLY, "refuted"),
        (EARLY, EARLY, "no difference seen"),
        ([0.995] * 5, [0.995] * 5, "no difference seen"),
        ([0.9] * 5, [0.9] * 4 + [0.1], "no difference seen"),  # the end is not the way
        ([0.9] * 4 + [0.1], [0.05, 0.3, 0.5, 0.6, 0.9], "refuted"),  # ahead on the way, and behind at the end
        ([0.9, 0.1, 0.5, 0.5, 0.5], [0.1, 0.9, 0.5, 0.5, 0.5], "refuted"),  # and behind on the way
    ],
)
def test_faster_is_ahead_on_the_way(dice: list[float], ce: list[float], verdict: str) -> None:
    courses, steps = {"dice": dice, "ce": ce}, [4, 8, 12, 16, 20]
    kept = {"steps": steps, "on_the_way": 2}
    data = {**FULL, "trials": {x: [{"score": of[-1], "course": of, **kept}] * 3 for x, of in courses.items()}}
    finding = DiceConvergesFaster().judge(data)
    assert finding.verdict == verdict
    assert "after 16 steps" in finding.sentence
    assert DiceConvergesFaster().tables(data)[0].caption == "Mean Dice of 2 held-back frames"


def test_what_diverged_has_nothing() -> None:
    trial = {"metrics": None, "validation": {"step": [4], "score": [0.25], "images": ["a"]}}
    kept = DiceConvergesFaster().record(trial, {})
    assert kept == {"score": 0.0, "steps": [4], "on_the_way": 1, "course": [0.25, 0.0, 0.0, 0.0, 0.0]}
    assert QFLBeta().record(trial, {}) == {"score": 0.0}
    assert NonAdjacencyTrains().record(trial, {})["score"] == 0.0
    assert conservative_across_domains.EXPERIMENT.record(trial, {}) == {"score": 0.0, "same": 0.0}


def test_lovasz_is_judged_by_iou_and_by_the_identity() -> None:
    it = LovaszOverThresholds()
    assert it.record({"metrics": {"dice": 0.8}}, {})["score"] == pytest.approx(0.8 / 1.2, abs=1e-6)
    identity = {"lovasz": 0.34, "error": 0.34, "probability": 0.43, "off": {"error": 1e-16, "probability": 0.2}}
    level = made_up(it, HIGH, LIKE_HIGH)
    assert it.judge({**level, **identity}).verdict == "confirmed with a correction"
    assert it.judge({**made_up(it, LOW, HIGH), **identity}).verdict == "refuted"
    assert it.judge({**level, **identity, "off": {"error": 0.1, "probability": 0.2}}).verdict == "refuted"
    assert it.judge({**level, **identity, "off": {"error": 0.1, "probability": 0.0}}).verdict == "confirmed"


@pytest.mark.parametrize(
    ("scores", "forbidden", "verdict"),
    [
        ([HIGH, HIGH, LOW], [3, 3, 9], "confirmed"),
        ([HIGH, HIGH, LOW], [9, 3, 3], "no difference seen"),  # better by proper contacts alone
        ([HIGH, LOW, LOW], [3, 3, 9], "no difference seen"),
        ([HIGH, LOW, HIGH], [3, 9, 3], "refuted"),
        ([HIGH, LOW, HIGH], [2, 2, 3], "no difference seen"),
    ],
)
def test_non_adjacency_has_to_help_with_labels_and_without(
    scores: list[list[float]], forbidden: list[int], verdict: str
) -> None:
    it = NonAdjacencyTrains()
    data = {**made_up(it, *scores), "labels": {"forbidden": 0, "proper": 12}, "trivial_dice": 0.14}
    for trials, count in zip(data["trials"].values(), forbidden, strict=True):
        for trial in trials:
            trial.update(forbidden=count, proper=14, dice=0.5)
    finding = it.judge(data)
    assert finding.verdict == verdict
    assert "0 and 12 in the labels" in finding.sentence
    assert it.tables(data)[-1].rows[-1] == ["the labels", *["0, 12, 1.000"] * 3]


def test_contacts_are_sides_and_noise_has_too_many() -> None:
    labels = np.array([[0, 1, 1], [2, 0, 0]], np.uint8)
    kept = NonAdjacencyTrains().record({"metrics": {"dice": 0.5}}, {"a": labels, "b": labels.T})
    assert (kept["forbidden"], kept["proper"]) == (6, 4)  # in one picture: 0-1 across, two 1-0 and 0-2 down, 2-0 across
    ring = np.zeros((40, 40), np.uint8)
    ring[10:30, 10:30] = 2
    ring[11:29, 11:29] = 1
    noise = np.random.default_rng(0).choice(3, ring.shape, p=[0.4, 0.05, 0.55]).astype(np.uint8)
    wide = np.where(ring == 2, 0, ring)  # a cell without its ring
    right = non_adjacency_trains._contacts(ring, 2)
    score = [
        non_adjacency_trains._score(*(non_adjacency_trains._contacts(seen, k) for k in (1, 2)), right)
        for seen in (ring, wide, noise)
    ]
    assert score[0] == 1
    assert score[0] > score[1] > 0.5 > 0.1 > score[2]


def test_no_inside_of_a_ringed_cell_touches_the_background() -> None:
    labels = np.full((9, 9), 1, np.uint8)
    labels[0, :4] = labels[4, 4] = 0
    grey = np.zeros((9, 9), np.uint16)
    _, ringed = non_adjacency_trains._ringed({"a": (grey, labels)})["a"]
    assert (ringed == 2).sum() == 5 + 1 + 8  # below the first row and beside its end, and around the hole
    for row, column in np.argwhere(ringed == 1):
        around = ringed[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        assert not (around == 0).any()
    assert ((ringed == 0) == (labels == 0)).all()


def colony(folder: Path) -> Path:
    """Like the built-in set: three frames with a square of cells that moves to the corner."""
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for k in range(3):
        mask = np.zeros((60, 80), np.uint8)
        mask[4 * k : 4 * k + 8, 10 * k : 10 * k + 8] = 1
        grey = (1000 * mask.astype(int) + random.integers(0, 99, mask.shape)).astype(np.uint16)
        Image.fromarray(grey).save(folder / "images" / f"frame_{k:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"frame_{k:02d}.png")
    (folder / "classes.txt").write_text("background\nbacterium\n")
    (folder / "SOURCE.txt").write_text("Made up.\n")
    return folder


def test_parts_of_frames_are_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = colony(tmp_path / "source")
    monkeypatch.setattr(folders, "find_folder", lambda name, say: Path(name) if Path(name).is_dir() else source)
    whole = folders.frames("bacteria", (0, 1), print)
    cut = folders.frames("bacteria", (2, 0), print, 20)
    assert [grey.shape for grey, _ in whole.values()] == [(60, 80)] * 2
    assert [labels.shape for _, labels in cut.values()] == [(20, 20)] * 2
    assert [int(labels.sum()) for _, labels in cut.values()] == [64, 64]  # all cells, in the corner too
    made = folders.write_frames(tmp_path / "made", "bacteria", whole, {"frame_02": cut["frame_02"]}, print)
    share = folders.foreground(made, 1, print), folders.foreground(made, -100, print)
    assert share == ({"train": 0.0, "validation": 0.0}, {"train": 64 / 4800, "validation": 64 / 400})
    data = read_pixels(made, "made", "multiclass", -100)
    assert [sample.stem for sample in data.train] == ["frame_00", "frame_01"]
    assert [sample.shape for sample in data.validation] == [(1, 20, 20)]
    assert data.classes == ["background", "bacterium"]
    assert data.source == "Parts of: Made up."


def test_parts_of_trees_are_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    for stem in ("left", "right"):
        picture = random.integers(0, 255, (300, 300, 3)).astype(np.uint8)
        Image.fromarray(picture).save(source / "images" / f"{stem}.png")
    (source / "boxes.csv").write_text(
        "stem,x1,y1,x2,y2,ignore\nleft,10,10,50,50,0\nleft,200,200,240,240,0\nright,100,20,140,60,0\n"
    )
    (source / "classes.txt").write_text("background\ntree crown\n")
    (source / "SOURCE.txt").write_text("Made up.\n")
    monkeypatch.setattr(folders, "find_folder", lambda name, say: Path(name) if Path(name).is_dir() else source)
    made = folders.write_trees(tmp_path / "made", {"left": (0, 0, 64, 128), "right": (80, 0, 208, 128)}, print)
    assert folders.foreground(made, -100, print) == {}
    data = read_scenes(made, "made")
    assert [scene.image.shape for scene in (*data.train, *data.validation)] == [(3, 128, 64), (3, 128, 128)]
    assert [scene.boxes.tolist() for scene in (*data.train, *data.validation)] == [
        [[10, 10, 50, 50]],
        [[20, 20, 60, 60]],
    ]


def test_a_shift_is_the_same_each_time_and_leaves_the_frame_s_type() -> None:
    grey = np.random.default_rng(1).integers(1000, 3000, (16, 16)).astype(np.uint16)
    once, again = (conservative_across_domains._shift(grey, np.random.default_rng(0)) for _ in range(2))
    assert (once == again).all()
    assert (once != grey).any()
    assert once.dtype == grey.dtype


def test_the_page_s_numbers_by_hand_are_those_of_each_order() -> None:
    it = DiceOrWeightedCE()
    for scores in ([HIGH, LOW], [LOW, HIGH], [[0.0, 0.5, 1.0], HIGH]):
        data = made_up(it, *scores)
        said: list[str] = []
        exec(it.by_hand(data).code, {"print": said.append})
        assert said == [it.by_hand(data).prints]
        assert said[0] in it.judge(data).sentence
