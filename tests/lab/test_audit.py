"""What `lossmith audit` measures, against slow loops; what it finds wrong; and that it streams."""

import json
import os
import shlex
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from advice import Said, follows, pixels, rewrite, save
from balls import make_labelled, make_volumes
from crowns import make_folder as make_boxes
from discs import make_folder
from PIL import Image
from scipy import ndimage

from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.audit import cost, sides, stream
from lossmith.lab.audit import pixels as measuring
from lossmith.lab.audit.fingerprint import fingerprint
from lossmith.lab.audit.scenes import SceneJob, measure_scene
from lossmith.lab.audit.survey import survey
from lossmith.lab.audit.tally import PixelTally, Sizes, Tally
from lossmith.lab.commands import terminal
from lossmith.lab.kinds import kind_of
from lossmith.lab.run import work
from lossmith.lab.settings import Asked

Array = np.ndarray[Any, Any]
Audit = Callable[..., dict[str, Any]]


# Folders as in conftest.py, where a comparison is begun of each first; here that would only take time.
@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "discs", images=4, size=32)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return make_labelled(tmp_path / "labelled", images=8, size=16)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return make_volumes(tmp_path / "volumes", (20, 32, 20))


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return make_boxes(tmp_path / "crowns")


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is built to learn how long its steps take."""
    monkeypatch.setattr("lossmith.lab.audit.cost.estimate", lambda found, facts: None)


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str], untimed: None) -> Audit:
    """The fingerprint that `lossmith audit --json` prints."""

    def run(*words: object) -> dict[str, Any]:
        assert main(["audit", *map(str, words), "--json"]) == 0
        facts: dict[str, Any] = json.loads(capsys.readouterr().out)
        return facts

    return run


def texts(facts: dict[str, Any], fatal: bool | None = None) -> list[str]:
    return [fault["text"] for fault in facts["faults"] if fatal in (None, fault["fatal"])]


# ------------------------------------------------------------------------------------------------------- one image


def test_objects_are_what_touches() -> None:
    inside = np.zeros((6, 8), bool)
    inside[0, 0] = inside[1, 1] = True  # by a corner
    inside[4:6, 3:6] = True
    inside[0, 7] = True
    assert sorted(measuring.object_sizes(inside).tolist()) == [1, 2, 6]
    assert measuring.object_sizes(np.zeros((3, 3), bool)).tolist() == []
    assert measuring.object_sizes(np.ones((2, 3, 4), bool)).tolist() == [24]


@pytest.mark.parametrize("shape", [(9, 14), (4, 11), (7, 8, 6)])
def test_crops_without_are_counted_at_every_place(shape: tuple[int, ...]) -> None:
    inside = np.random.default_rng(0).random(shape) < 0.06 / len(shape)
    crop = 9 - 2 * len(shape)
    places = [max(1, n - crop + 1) for n in shape]
    windows = [
        inside[tuple(slice(a, a + crop) for a in np.unravel_index(i, places))] for i in range(int(np.prod(places)))
    ]
    expected = sum(not window.any() for window in windows) / len(windows)
    assert 0 < expected < 1
    assert measuring.crops_without(inside, crop) == pytest.approx(expected)


def test_the_boundary_is_where_labels_differ_and_nothing_is_ignored() -> None:
    label = np.array([[0, 0, 0, 0], [0, 1, 1, 2], [0, 1, 9, 2], [0, 0, 0, 0]])
    valid = label != 9
    expected = np.zeros_like(valid)
    for y in range(4):
        for x in range(4):
            for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= v < 4 and 0 <= u < 4 and valid[y, x] and valid[v, u] and label[v, u] != label[y, x]:
                    expected[y, x] = True
    assert (measuring._edges(label, valid) == expected).all()


def test_sizes_are_exact_where_small_and_near_where_large() -> None:
    one, two = Sizes(), Sizes()
    one.add(np.array([3, 3, 20]))
    two.add(np.array([1000, 70000]))
    one.add(np.array([], np.int64))
    one.join(two)
    assert (one.count, one.small, one.smallest, one.largest) == (5, 3, 3, 70000)
    assert one.quantile(0.5) == 20
    assert one.quantile(0.8) == pytest.approx(1000, rel=0.04)
    assert Sizes().quantile(0.5) == 0


# ------------------------------------------------------------------------------------------------------- whole folders


def test_labelled_pixels(folder: Path, audit: Audit) -> None:
    facts = audit(folder)
    masks = {path.stem: pixels(path) for path in (folder / "masks").iterdir()}
    held = [masks["disc0"], masks["disc1"]]
    trained = [mask for stem, mask in masks.items() if stem not in ("disc0", "disc1")]
    one = facts["classes"][1]
    assert (facts["kind"], facts["complete"], facts["measured"]) == ("segmentation", True, 8)
    assert facts["images"] == {"train": 6, "validation": 2, "unused": 0}
    assert one["share"] == pytest.approx(np.mean(list(masks.values())))
    assert one["share_train"] == pytest.approx(np.mean(trained))
    assert one["ratio"] == pytest.approx(np.mean(held) / np.mean(trained))
    assert (one["images"], one["empty_images"], one["objects"]["number"]) == (8, 0, 8)
    assert one["objects"]["smallest"] == min(int(mask.sum()) for mask in masks.values())
    assert one["threshold"]["dice"] == pytest.approx(1)  # bright discs
    assert one["threshold"]["above"] is True
    assert one["threshold"]["judged_on"] == "validation"
    assert facts["foreground"]["pixels"] == one["pixels"]
    assert facts["grey"][0]["least"] == min(pixels(path).min() for path in (folder / "images").iterdir())
    assert facts["faults"] == []


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_best_threshold_on_grey(sign: int, discs: Path, audit: Audit) -> None:
    random = np.random.default_rng(0)
    images, masks = {}, {path.stem: pixels(path) for path in (discs / "masks").iterdir()}
    for path in (discs / "images").iterdir():
        images[path.stem] = (float(sign) * masks[path.stem] + random.normal(0, 0.5, (32, 32))).astype(np.float32)
        save(path.with_suffix(".npy"), images[path.stem])
    found = audit(discs)["classes"][1]["threshold"]
    assert (found["above"], found["judged_on"]) == (sign > 0, "validation")
    grey = np.stack([(images[s] - images[s].mean()) / images[s].std() for s in ("disc0", "disc1")])
    truth = np.stack([masks[s] for s in ("disc0", "disc1")]) > 0
    called = grey >= found["at"] if sign > 0 else grey < found["at"]
    assert found["dice"] == pytest.approx(2 * (called & truth).sum() / (called.sum() + truth.sum()), abs=1e-6)
    assert 0.5 < found["dice"] < 0.95


def test_crops_and_boundaries_of_all_images(folder: Path) -> None:
    found = survey(kind_of(folder), folder, Asked(data="", crop=16))
    tally = PixelTally()
    for one in stream.measured(found.jobs, found.measure, 1):
        tally.add(one)
    one = fingerprint(found, tally)["classes"][1]
    masks = {path.stem: pixels(path) > 0 for path in (folder / "masks").iterdir()}
    trained = [mask for stem, mask in masks.items() if stem not in ("disc0", "disc1")]
    expected = np.mean([measuring.crops_without(mask, 16) for mask in trained])
    assert 0 < expected < 1
    assert one["crops_without"] == pytest.approx(expected)
    edges = sum(int((mask & ~ndimage.binary_erosion(mask)).sum()) for mask in masks.values())
    assert one["boundary_share"] == pytest.approx(edges / sum(mask.sum() for mask in masks.values()))


def test_several_classes_ignored_pixels_and_empty_images(discs: Path, audit: Audit) -> None:
    stems = sorted(path.stem for path in (discs / "masks").iterdir())
    for i, stem in enumerate(stems):
        mask = np.zeros((32, 32), np.uint8)
        mask[:4] = 255
        if i > 1:
            mask[8:12, 8:12] = 1
            mask[20:30, 8:12] = 2 if i == 3 else 1
        save(discs / "masks" / f"{stem}.png", mask)
    (discs / "split.csv").write_text(
        "stem,split\n" + "".join(f"{s},{'train' if s != stems[2] else 'validation'}\n" for s in stems)
    )
    facts = audit(discs, "--ignore-index", 255)
    assert facts["ignored_share"] == pytest.approx(4 / 32)
    one, two = facts["classes"][1:]
    assert one["share"] == pytest.approx((16 + 40 + 16) / (4 * 28 * 32))
    assert (one["images"], one["empty_images"], two["images"], two["share_validation"]) == (2, 2, 1, 0)
    assert (facts["foreground"]["empty_share"], two["empty_share"]) == (0.5, 0.75)
    assert facts["foreground"]["objects"]["number"] == 4
    assert facts["one_sided"] == {"class 2": "train"}
    assert facts["crop"] == 128
    assert two["crops_without"] == pytest.approx(2 / 3)  # all of an image is one crop
    binary = audit(discs, "--ignore-index", 255, "--task", "binary")
    assert [c["label"] for c in binary["classes"]] == [0, 1]
    assert binary["classes"][1]["pixels"] == one["pixels"] + two["pixels"]
    assert "--ignore-index 255 --out" in binary["suggestions"][0]["command"]
    assert "--task binary" in binary["suggestions"][0]["command"]


def test_volumes_with_their_spacing(volumes: Path, audit: Audit) -> None:
    for part in ("images", "masks"):
        for path in (volumes / part).iterdir():
            volume = np.asarray(nibabel.load(path).dataobj)
            nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.7, 0.7, 3, 1])), path)
    facts = audit(volumes)
    assert (facts["dimensions"], facts["crop"]) == (3, 32)
    assert facts["spacings"] == [{"value": [0.7, 0.7, 3.0], "images": 2}]
    assert [c["objects"]["number"] for c in facts["classes"][1:]] == [2, 2]
    assert facts["classes"][2]["boundary_share"] == 1  # a stick


def test_whole_images(labelled: Path, audit: Audit) -> None:
    facts = audit(labelled)
    assert facts["kind"] == "classification"
    assert [c["images"] for c in facts["classes"]] == [4, 3, 1]
    assert facts["classes"][2]["share"] == 1 / 8
    assert {s["losses"][0] for s in facts["suggestions"]} == {"ce"}


def test_boxes(boxes: Path, audit: Audit) -> None:
    facts = audit(boxes)
    rows = np.loadtxt(boxes / "boxes.csv", delimiter=",", skiprows=1, usecols=(1, 2, 3, 4))
    side = np.sqrt((rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1]))
    assert facts["kind"] == "detection"
    assert sum(facts["boxes"]["number"].values()) == len(rows)
    assert facts["boxes"]["side"]["p50"] == pytest.approx(np.median(side), rel=1e-5)
    assert facts["boxes"]["small"] == pytest.approx((side < 32).mean())
    assert facts["boxes"]["cells"] == 24 * 24 + 24 * 40
    assert 0 < facts["boxes"]["positive_share"] < 0.2


def test_objects_that_are_numbered_are_one_class(discs: Path, audit: Audit) -> None:
    for path in (discs / "masks").iterdir():
        save(path, np.arange(1024, dtype=np.uint16).reshape(32, 32) // 8)
    facts = audit(discs)
    assert facts["numbered"]
    assert [c["label"] for c in facts["classes"]] == [0, 1]
    assert "Object numbers? Then use --task binary" in texts(facts)[0]


# ------------------------------------------------------------------------------------------------------ what is wrong


def test_every_fault_at_once_and_the_rest_measured(discs: Path, audit: Audit) -> None:
    images, masks = discs / "images", discs / "masks"
    for i in range(3):
        shutil.copy(images / f"disc{i}.png", images / f"more{i}.png")
        shutil.copy(masks / f"disc{i}.png", masks / f"more{i}.png")
    (images / "more0.png").write_bytes(b"nothing")
    (masks / "more1.png").unlink()
    save(masks / "more2.png", np.zeros((16, 16), np.uint8))
    (images / "table.xlsx").write_text("")
    facts = audit(discs)
    asked = Asked(data=str(discs))
    expected = [str(fault) for fault in kind_of(discs).faults(discs, asked)]
    assert len(expected) >= 7  # split.csv lists none of the three
    assert set(expected) == set(texts(facts, fatal=True))
    assert facts["classes"][1]["images"] == 4
    assert facts["suggestions"]


ODD: dict[str, tuple[str, str, str]] = {  # a table, what it holds, what is said
    "no row is held back": ("split.csv", "stem,split\n" + "".join(f"disc{i},train\n" for i in range(4)), "validation"),
    "no row trains": ("split.csv", "stem,split\n" + "".join(f"disc{i},validation\n" for i in range(4)), "train"),
    "none is used": ("split.csv", "stem,split\n" + "".join(f"disc{i},unused\n" for i in range(4)), "train"),
    "a part that is none": ("split.csv", "stem,split\ndisc0,test\n", "'test' is not one of"),
    "another table": ("split.csv", "a,b\n", "the first line must be stem,split"),
    "no box": ("boxes.csv", "stem,x1,y1,x2,y2\n", "no box in the images"),
    "another table of boxes": ("boxes.csv", "a,b\n", "the first line must be stem,x1,y1,x2,y2"),
    "no label": ("labels.csv", "stem,label\n", "is not listed"),
}


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("odd", ODD)
def test_odd_tables_are_faults_and_no_end(odd: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    table, text, said = ODD[odd]
    kind = {"split.csv": "discs", "boxes.csv": "boxes", "labels.csv": "labelled"}[table]
    folder: Path = request.getfixturevalue(kind)
    (folder / table).write_text(text)
    assert main(["audit", str(folder), "--out", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out/fingerprint.json").read_text())
    assert any(said in line for line in texts(facts, fatal=True))


def test_one_image_and_nothing_but_ignored(discs: Path, audit: Audit, tmp_path: Path) -> None:
    assert (
        "every pixel is ignored, nothing to learn"
        in texts(audit(_with_masks(discs, np.full((32, 32), 255, np.uint8)), "--ignore-index", 255))[0]
    )
    for part in ("images", "masks"):
        for i in range(1, 4):
            (discs / part / f"disc{i}.png").unlink()
    (discs / "split.csv").unlink()
    assert main(["audit", str(discs), "--out", str(tmp_path / "out")]) == 0
    assert "one image only" in (tmp_path / "out/audit.html").read_text()


def _with_masks(folder: Path, mask: Array) -> Path:
    for path in (folder / "masks").iterdir():
        save(path, mask)
    return folder


def test_a_folder_of_nothing(tmp_path: Path, audit: Audit) -> None:
    (tmp_path / "empty").mkdir()
    facts = audit(tmp_path / "empty")
    assert "there is no folder images/ in it" in texts(facts)[0]
    assert facts["suggestions"] == []


@follows("mark one of them unused in split.csv", "remove one of them, or it counts twice")
def test_the_same_image_twice(discs: Path, audit: Audit) -> None:
    shutil.copy(discs / "images/disc2.png", discs / "images/disc3.png")
    (line,) = texts(audit(discs), fatal=False)
    assert line.endswith("holds the same pixels as 'disc3'; remove one of them, or it counts twice")
    rewrite(discs / "split.csv", "disc3,train", "disc3,unused")
    assert texts(audit(discs)) == []
    save(discs / "images/disc3.png", pixels(discs / "images/disc0.png").astype(np.uint16))  # the same values
    rewrite(discs / "split.csv", "disc3,unused", "disc3,train")
    (line,) = texts(audit(discs), fatal=False)
    assert "holds the same pixels as 'disc3', and they stand in train and in validation" in line
    rewrite(discs / "split.csv", "disc3,train", "disc3,unused")
    assert texts(audit(discs)) == []


def test_duplicates_on_both_sides_come_first() -> None:
    tally = Tally()
    tally.digests = {"one": ["a"], "two": ["b", "c"], "three": ["d", "e", "f"]}
    tally.parts = {**dict.fromkeys("abcd", "train"), "e": "validation", "f": "validation"}
    assert [each["images"] for each in sides.duplicates(tally)] == [["d", "e", "f"], ["b", "c"]]


def test_points_in_ignored_boxes_do_not_count(boxes: Path) -> None:
    box, image = np.array([[32.0, 32.0, 64.0, 64.0]]), boxes / "images/left.png"
    taken, ignored = (
        measure_scene(SceneJob("left", "train", image, box, np.array([ignore]))) for ignore in (False, True)
    )
    assert (taken.points, ignored.points) == (24 * 24, 24 * 24 - 16)
    assert (ignored.positive, len(ignored.sides), ignored.ignored) == (0, 0, 1)
    assert taken.positive > 0


@follows("replace it, or mark it unused in split.csv")
def test_an_image_without_contrast(discs: Path, audit: Audit) -> None:
    save(discs / "images/disc3.png", np.full((32, 32), 9, np.uint8))
    (line,) = texts(audit(discs), fatal=False)
    assert line.endswith("every pixel has the same value; replace it, or mark it unused in split.csv")
    rewrite(discs / "split.csv", "disc3,train", "disc3,unused")
    facts = audit(discs)
    assert facts["images"]["unused"] == 1
    assert facts["classes"][1]["images"] == 3


def test_patients_on_both_sides(discs: Path, audit: Audit, said: Said) -> None:
    (discs / "split.csv").unlink()
    for i in range(4):
        for part in ("images", "masks"):
            (discs / part / f"disc{i}.png").rename(discs / part / f"p{i // 2}_slice{i}.png")
    guessed = audit(discs)
    assert guessed["groups"]["how"] == "guessed"
    assert (guessed["groups"]["number"], len(guessed["groups"]["both_sides"])) == (2, 1)
    pattern = guessed["groups"]["pattern"]
    assert f"--group-by '{pattern}'" in texts(guessed, fatal=False)[0]
    assert f"--group-by '{pattern}'" in guessed["suggestions"][0]["command"]
    asked = audit(discs, "--group-by", pattern)  # whole groups are held back
    assert asked["groups"] == {**guessed["groups"], "how": "said", "pattern": "", "both_sides": []}
    assert asked["groups"]["holding"] == {"0": 2, "1": 2}
    assert texts(asked) == []
    stems = sorted(path.stem for path in (discs / "images").iterdir())
    (discs / "split.csv").write_text(
        "stem,split\n" + "".join(f"{s},{'validation' if s == stems[0] else 'train'}\n" for s in stems)
    )
    both = audit(discs, "--group-by", pattern)
    assert both["groups"]["both_sides"] == ["p0"]
    assert "the group 'p0' is on both sides" in texts(both, fatal=False)[0]
    assert "neither a column of split.csv nor a regular expression" in said("audit", discs, "--group-by", "(p")


@follows("drop it, and say in split.csv who is held back")
def test_boxes_have_no_groups(boxes: Path, audit: Audit, said: Said) -> None:
    before = audit(boxes)
    assert said("audit", boxes, "--group-by", "l").endswith("drop it, and say in split.csv who is held back")
    (boxes / "split.csv").write_text("stem,split\nleft,validation\nright,train\n")
    assert audit(boxes)["drift"][0]["train"] == before["drift"][0]["validation"]


def test_names_that_only_count_are_no_guess(folder: Path, audit: Audit) -> None:
    assert audit(folder)["groups"]["how"] == ""


def test_drift_of_grey_and_of_a_class(discs: Path, audit: Audit) -> None:
    facts = audit(discs)
    assert facts["drift"][0]["differs"] is False
    names = [path.name for path in (discs / "images").iterdir()]
    for i in range(2):  # four images on each side
        for name in names:
            for part in ("images", "masks"):
                array = pixels(discs / part / name)
                held = name in ("disc0.png", "disc1.png")
                save(discs / part / f"{i}{name}", np.roll(array, i + 1, 0) // (2 if held and part == "images" else 1))
    split = "".join(
        f"{path.stem},{'validation' if path.stem[-1] in '01' else 'train'}\n" for path in (discs / "images").iterdir()
    )
    (discs / "split.csv").write_text("stem,split\n" + split)
    shift = audit(discs)["drift"][0]
    assert shift["differs"] is True
    assert shift["shift"] < -1


# ------------------------------------------------------------------------------------------------ streams and samples


def test_a_sample_says_so(folder: Path, audit: Audit, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    facts = audit(folder, "--sample", 4)
    assert not facts["complete"]
    assert (facts["measured"], facts["found"]) == (4, 8)
    assert facts["images"] == {"train": 3, "validation": 1, "unused": 0}
    assert facts == audit(folder, "--sample", 4)
    assert main(["audit", str(folder), "--sample", "4", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "a seeded sample: 4 of 8 images measured; --all measures every one" in printed
    assert "a seeded sample: 4 of 8 images" in (tmp_path / "out/audit.html").read_text()


def test_beyond_a_number_of_pixels_a_sample_is_usual(
    folder: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lossmith.lab.audit.survey.MOST_PIXELS", 48 * 48 * 4)
    assert audit(folder)["measured"] == 4
    assert audit(folder, "--all")["measured"] == 8


@follows("give one of them")
def test_a_sample_or_all(folder: Path, audit: Audit, said: Said) -> None:
    assert said("audit", folder, "--all", "--sample", 4).endswith("give one of them")
    assert audit(folder, "--all")["complete"]
    assert not audit(folder, "--sample", 4)["complete"]


def test_several_processes_find_the_same(folder: Path, audit: Audit) -> None:
    assert audit(folder, "--processes", 2) == audit(folder, "--processes", 1)


@follows("use --processes 1")
def test_a_process_that_is_killed(folder: Path, audit: Audit) -> None:
    with pytest.raises(UserError, match="perhaps for memory; use --processes 1"):
        list(stream.measured([1], os._exit, 2))
    assert audit(folder, "--processes", 1)["complete"]


def test_memory_is_flat_in_the_number_of_images(tmp_path: Path) -> None:
    def peak(images: int) -> int:
        place = tmp_path / str(images)
        for part in ("images", "masks"):
            (place / part).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(np.random.default_rng(i).integers(0, 99, (96, 96), np.uint8)).save(
                place / f"images/{i}.png"
            )
            Image.fromarray(np.eye(96, dtype=np.uint8)).save(place / f"masks/{i}.png")
        found = survey(kind_of(place), place, Asked(data=""))
        tracemalloc.start()
        tally = PixelTally()
        for one in stream.measured(found.jobs, found.measure, 1):
            tally.add(one)
        assert fingerprint(found, tally)["measured"] == images
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(8), peak(72)
    assert many - few < 64 * 4096  # one image of float32 has nine times that


def test_ctrl_c_stops_quietly(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(job: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lossmith.lab.audit.survey.measure_pixels", interrupted)
    assert main(["audit", str(folder)]) == 130
    assert capsys.readouterr().err == "lossmith: stopped; nothing was written\n"


@pytest.mark.usefixtures("untimed")
def test_lines_where_nobody_watches_a_bar(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_BETWEEN_LINES", 0)
    assert main(["audit", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "measuring images: 4 of 8" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["discs", "labelled", "boxes", "volumes"])
def test_the_commands_reach_the_training(
    kind: str, audit: Audit, said: Said, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "estimate_seconds", lambda *_: 1.0)
    suggestions = audit(request.getfixturevalue(kind))["suggestions"]
    assert suggestions
    for suggestion in suggestions:
        assert said(*shlex.split(suggestion["command"])[1:-2]) == ""  # into a folder of the test's


# --------------------------------------------------------------------------------------------------- page and summary


def test_the_page_and_the_summary(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (discs / "classes.txt").write_text("background\n<script>alert(1)</script>\n")
    (discs / "images/disc2.png").write_bytes(b"")
    out = tmp_path / "out"
    assert main(["audit", str(discs), "--out", str(out)]) == 0
    page, facts = (out / "audit.html").read_text(), json.loads((out / "fingerprint.json").read_text())
    assert "<script>alert" not in page
    assert "src=" not in page
    assert "href=" not in page
    assert len(page) < 50_000
    first = page[page.index("<header>") : page.index("<h2>")]
    for said in ("of the pixels", "1 fault stops a comparison", "Try dice, dice + ce", "lossmith compare"):
        assert said in first
    assert "cannot be read" in page
    printed = capsys.readouterr().out
    for said in (
        "1 fault stops a comparison",
        "cannot be read",
        facts["suggestions"][0]["command"],
        "A trial of 200 steps",
    ):
        assert said in printed
    assert facts["cost"]["seconds_per_trial"] > 0
    assert all(s["threshold"] and s["reason"] and s["source"] for s in facts["suggestions"])


@pytest.mark.parametrize("kind", ["labelled", "boxes", "volumes"])
def test_the_page_of_each_kind(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    out = tmp_path / "out"
    assert main(["audit", str(request.getfixturevalue(kind)), "--out", str(out)]) == 0
    page = (out / "audit.html").read_text()
    assert ("Boxes</h2>" in page) == (kind == "boxes")
    assert ("Dice of one threshold" in page) == (kind == "volumes")
    assert "A trial of" in page


@pytest.mark.usefixtures("untimed")
def test_a_place_that_cannot_be_written(folder: Path, tmp_path: Path, said: Said) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in said("audit", folder, "--out", tmp_path / "file")


def test_pages_of_a_tiff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for i in range(3):
        image, mask = random.integers(0, 99, (6, 40, 40)).astype(np.uint8), np.zeros((6, 40, 40), np.uint8)
        mask[2:4, 5:20, 5:20] = 1
        tifffile.imwrite(tmp_path / "data" / "images" / f"{i}.tif", image, photometric="minisblack", metadata=None)
        tifffile.imwrite(tmp_path / "data" / "masks" / f"{i}.tif", mask, photometric="minisblack", metadata=None)
    assert main(["audit", str(tmp_path / "data"), "--json"]) == 0
    assert any("--pages" in fault["fix"] for fault in json.loads(capsys.readouterr().out)["faults"])
    assert main(["audit", str(tmp_path / "data"), "--pages", "volume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == []
    assert all("--pages volume" in suggestion["command"] for suggestion in found["suggestions"])


@pytest.mark.parametrize(
    ("labels", "option", "classes"), [((0, 255), "--task binary", 2), ((0, 1, 2, 255), "--ignore-index 255", 3)]
)
def test_255_is_no_class_of_what_is_suggested(
    discs: Path,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    labels: tuple[int, ...],
    option: str,
    classes: int,
) -> None:
    built: list[int] = []

    def timed(kind: Any, outline: cost.Outline, asked: Asked) -> tuple[float, float, int]:
        built.append(len(outline.classes))
        return 1.0, 1e-6, 200

    mask = np.zeros_like(pixels(discs / "masks" / "disc0.png"))
    for k, label in enumerate(labels):
        mask[4 * k : 4 * k + 4, :8] = label
    _with_masks(discs, mask)
    monkeypatch.setattr(cost, "_timed", timed)
    assert main(["audit", str(discs), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert built == [classes]
    assert any("255" in text for text in texts(facts))
    for each in facts["suggestions"]:
        assert option in each["command"]
        assert said(*shlex.split(each["command"])[1:-2]) == ""


def test_ctrl_c_before_images_are_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("lossmith.lab.commands.audit.notes", interrupted)
    assert main(["audit", "anything"]) == 130
    assert capsys.readouterr().err.split() == ["lossmith:", "stopped"]
