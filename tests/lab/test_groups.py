"""Images that belong together stay together: groups of split.csv or of names, the quarter held back, folds."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from advice import Said, follows, pixels, rewrite, save
from discs import make_folder

from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.folds import deal, hold_back
from lossmith.lab.data.groups import guess_groups, read_groups
from lossmith.lab.data.labelled import Data, faults_of_pixels, index_pixels, read_labels, read_pixels
from lossmith.lab.kinds.pixels import KIND
from lossmith.lab.settings import Asked

PATIENTS = {"p1": 5, "p2": 3, "p3": 2, "p4": 2}
NAMES = [f"{patient}_s{i}" for patient, slices in PATIENTS.items() for i in range(slices)]


def read(folder: Path, **more: Any) -> Data:
    return read_pixels(folder, "made", "multiclass", -100, **more)


def faults(folder: Path, group_by: str | None = None) -> list[str]:
    found = faults_of_pixels(folder, "multiclass", -100, group_by)
    assert not any(fault.fatal for fault in found)
    return [str(fault).removeprefix(f"{folder}/") for fault in found]


def table(folder: Path, first: str, *rows: str) -> None:
    (folder / "split.csv").write_text("\n".join([first, *rows]) + "\n")


def sides(data: Data) -> tuple[set[str], set[str]]:
    return {data.groups[s.stem] for s in data.train}, {data.groups[s.stem] for s in data.validation}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve slices of four patients, without split.csv. Read only."""
    folder = make_folder(tmp_path_factory.mktemp("data") / "made", images=len(NAMES), size=32)
    for part in ("images", "masks"):
        for i, name in enumerate(NAMES):
            (folder / part / f"disc{i}.png").rename(folder / part / f"{name}.png")
    (folder / "split.csv").unlink()
    return folder


@pytest.fixture
def slices(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "slices"))


# ---------------------------------------------------------------------------------------------------- who says them


@pytest.mark.parametrize("column", ["group", "patient", "case", "ward"])
@pytest.mark.parametrize("suffix", ["", ".png"])
def test_a_column_of_split_csv(column: str, suffix: str, slices: Path) -> None:
    rows = [f"{name}{suffix},{'validation' if name[:2] == 'p2' else 'train'},{name[:2]}" for name in NAMES]
    table(slices, f"stem,split,{column}", *rows)
    data = read(slices, group_by="ward" if column == "ward" else None)
    assert data.groups == {name: name[:2] for name in NAMES}
    assert sides(data) == ({"p1", "p3", "p4"}, {"p2"})
    assert data.notices == []
    if column == "ward":
        assert read(slices).groups == {}


def test_an_image_without_a_group_is_one(slices: Path) -> None:
    table(slices, "stem,patient", *(f"{name},{name[:2] if name[:2] == 'p1' else ''}" for name in NAMES))
    groups = read(slices).groups
    assert Counter(groups.values())["p1"] == 5
    assert groups["p2_s0"] == "p2_s0"


@pytest.mark.parametrize("pattern", ["^(.+)_", "^p[0-9]", "^(?:p(1)|p[0-9])_s"])
def test_a_pattern(pattern: str, slices: Path) -> None:
    """Its first group, or all of it where it has none or that has matched nothing."""
    data = read(slices, group_by=pattern)
    assert len(set(data.groups.values())) == 4
    assert Counter(data.groups.values()).most_common(1)[0][1] == 5
    train, held_back = sides(data)
    assert not train & held_back
    assert data.notices == []


def test_groups_are_part_of_the_fingerprint(slices: Path) -> None:
    table(slices, "stem,split,a,b", *(f"{n},{'train' if n[1] < '3' else 'validation'},{n[:2]},{n}" for n in NAMES))
    assert len({read(slices, group_by=by).fingerprint for by in (None, "a", "b", "a", "^p[0-9]")}) == 3


def test_rows_may_name_files(slices: Path, labelled: Path, tmp_path: Path) -> None:
    text = (labelled / "labels.csv").read_text()
    before = read_labels(labelled, "made", "multiclass", -100).fingerprint
    (labelled / "labels.csv").write_text(re.sub(r"^(i\d+),", r"\1.png,", text, flags=re.MULTILINE))
    assert read_labels(labelled, "made", "multiclass", -100).fingerprint == before
    table(slices, "stem,split", *(f"{name}.PNG,{'train' if i else 'validation'}" for i, name in enumerate(NAMES)))
    assert [s.stem for s in read(slices).validation] == [NAMES[0]]
    with (slices / "split.csv").open("a") as file:
        file.write(f"{NAMES[3]},train\n")
    with pytest.raises(UserError, match=r"line 14: 'p1_s3' is listed twice"):
        read(slices)


# ------------------------------------------------------------------------------------------------- names that say so


@pytest.mark.parametrize(
    ("stems", "group"),
    [
        (["p03_slice012", "p03_slice013", "p04_slice001", "p04_slice002"], "p03"),
        (["case_0007_s3", "case_0007_s4", "case_0008_s1", "case_0008_s2"], "case_0007"),
        (["12-1", "12-2", "13-1", "13-2"], "12"),
        (["anna/1", "anna/2", "bert/1", "bert/2"], "anna"),
    ],
)
def test_names_that_look_like_patients(stems: list[str], group: str) -> None:
    guess = guess_groups(stems)
    assert guess is not None
    pattern, stem, named = guess
    assert (stem, named) == (stems[0], group)
    found: list[Fault] = []
    groups = read_groups(Path("none"), stems, found, group_by=pattern)
    assert found == []
    assert groups[stems[0]] == groups[stems[1]] == group
    assert len(set(groups.values())) == 2


@pytest.mark.parametrize(
    "stems",
    [
        ["disc0", "disc1", "disc2", "disc3"],
        ["frame_00", "frame_01", "frame_02", "frame_03"],
        ["a1_1", "a2_1", "a3_1", "a4_1"],
        ["cat_1", "cat_2", "dog_1", "dog_2"],
        ["p1_left", "p1_right", "p2_left", "p2_right"],
    ],
)
def test_names_that_do_not(stems: list[str]) -> None:
    assert guess_groups(stems) is None


@follows("if they belong together: --group-by '{}'")
def test_patients_are_never_split_in_silence(slices: Path, said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = faults(slices)
    assert line.startswith("images: 'p1_s0' looks like a part of 'p1', and images of one group may be on both sides")
    found = re.search(r"if they belong together: --group-by '(.*)'$", line)
    assert found is not None
    assert read(slices).notices == [f"{slices}/{line}"]
    assert read(slices).groups == {}
    assert said("compare", slices) == ""
    assert line in capsys.readouterr().err
    assert said("compare", slices, "--group-by", found[1]) == ""
    assert faults(slices, found[1]) == []
    assert set(read(slices, group_by=found[1]).groups.values()) == set(PATIENTS)


@follows("mark all of a group alike, or its scores will be too good")
def test_a_group_on_both_sides(slices: Path, said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {name: "validation" if name in ("p1_s0", "p2_s1") else "train" for name in NAMES}
    table(slices, "stem,split,patient", *(f"{name},{part},{name[:2]}" for name, part in rows.items()))
    (line,) = faults(slices)
    both = "the group 'p1' is on both sides ('p1_s4' trains, 'p1_s0' is held back), and 1 more groups are"
    assert line == f"split.csv: {both}; mark all of a group alike, or its scores will be too good"
    assert said("compare", slices) == ""
    assert line in capsys.readouterr().err
    for name in NAMES:
        rewrite(slices / "split.csv", f"{name},{rows[name]}", f"{name},{'validation' if name[1] in '12' else 'train'}")
    assert faults(slices) == []
    rewrite(slices / "split.csv", "p3_s0,train", "p3_s0,unused")  # what is left out is on no side
    assert faults(slices) == []


@follows(
    "give one of them, for example '^[^_]+' for what stands before the first _",
    "it must match every name without its suffix",
)
def test_patterns_that_find_nothing(slices: Path, said: Said) -> None:
    found = re.search(r"for example '(.*)' for what stands", said("compare", slices, "--group-by", "(p"))
    assert found is not None
    assert set(read(slices, group_by=found[1]).groups.values()) == set(PATIENTS)
    assert said("compare", slices, "--group-by", found[1]) == ""
    line = said("compare", slices, "--group-by", "^p1")
    assert "finds nothing in 'p2_s0' and 6 more; it must match every name without its suffix" in line
    assert said("compare", slices, "--group-by", r"^p\d") == ""
    table(slices, "stem,ward", *(f"{name},{name[:2]}" for name in NAMES))
    assert said("compare", slices, "--group-by", "ward") == ""


def test_one_group_cannot_be_divided(slices: Path, said: Said) -> None:
    line = said("compare", slices, "--group-by", "^p")
    assert line.endswith("all images are of one group, 'p'; at least two are needed, one to train on and one held back")
    assert said("compare", slices, "--group-by", "^p.") == ""


# ------------------------------------------------------------------------------------------------- who is held back


def test_without_groups_the_quarter_is_as_ever() -> None:
    stems = [f"a{i:02d}" for i in range(30)]
    shuffled = np.random.default_rng(0).permutation(stems).tolist()
    assert {s for s, part in hold_back(stems, {}).items() if part == "validation"} == set(shuffled[:8])


@pytest.mark.parametrize("sizes", [(5, 3, 2, 2), (22, 13, 15, 20), (1, 1), (40, 1), (3,) * 50, (90, 10), (4, 4)])
def test_about_a_quarter_in_whole_groups(sizes: tuple[int, ...]) -> None:
    groups = {f"{g}_{i}": f"g{g}" for g, size in enumerate(sizes) for i in range(size)}
    parts = hold_back(list(groups), groups)
    assert set(parts) == set(groups)
    held = {groups[s] for s, part in parts.items() if part == "validation"}
    assert held
    assert not held & {groups[s] for s, part in parts.items() if part == "train"}
    share = sum(part == "validation" for part in parts.values()) / len(groups)
    assert share <= max(0.25 + 1 / len(groups), min(sizes) / len(groups))


@pytest.mark.parametrize("of", [2, 3, 4])
def test_folds_hold_each_image_back_once(of: int, slices: Path) -> None:
    table(slices, "stem,patient,split", *(f"{n},{n[:2]},{'validation' if n[1] == '4' else 'train'}" for n in NAMES))
    rewrite(slices / "split.csv", "p3_s1,p3,train", "p3_s1,p3,unused")
    data = read(slices)
    held: list[str] = []
    for k in range(of):
        fold = data.fold(k, of)
        assert fold.fingerprint == data.fingerprint
        train, validation = sides(fold)
        assert train
        assert validation
        assert not train & validation
        assert sorted(s.stem for s in fold.train + fold.validation) == sorted(set(NAMES) - {"p3_s1"})
        held += [s.stem for s in fold.validation]
        assert [s.stem for s in data.fold(k, of).validation] == [s.stem for s in fold.validation]
    assert sorted(held) == sorted(set(NAMES) - {"p3_s1"})


def test_the_rarest_class_is_in_every_fold_that_it_can_be_in(slices: Path) -> None:
    for name in ("p1_s0", "p1_s1", "p2_s2", "p4_s0"):
        label = pixels(slices / "masks" / f"{name}.png").copy()
        label[:2] = 2
        save(slices / "masks" / f"{name}.png", label)
    data = read(slices, group_by="^p.")
    for k in range(3):
        assert data.counts(data.fold(k, 3).validation)[:, 2].any()
    alone = read(slices)
    holding = [int((alone.counts(alone.fold(k, 4).validation)[:, 2] > 0).sum()) for k in range(4)]
    assert holding == [1, 1, 1, 1]


def test_folds_are_even_and_do_not_depend_on_an_order() -> None:
    groups = {f"{g}_{i}": f"g{g}" for g in range(30) for i in range(1 + g % 4)}
    rare = {stem: stem.endswith("_2") for stem in groups}
    fold = deal(rare, groups, 5)
    sizes = Counter(fold.values())
    assert max(sizes.values()) - min(sizes.values()) <= 2
    assert deal(dict(reversed(rare.items())), groups, 5) == fold
    assert len({fold[stem] for stem in groups if groups[stem] == "g3"}) == 1
    single = deal(dict.fromkeys("abcdefg", False), {}, 7)
    assert sorted(single.values()) == list(range(7))


@follows("give {} at most")
def test_more_folds_than_groups(slices: Path, said: Said) -> None:
    line = said("compare", slices, "--group-by", "^p.", "--folds", 5)
    found = re.search(r"^--folds 5: there are only 4 groups of images .*; give (\d) at most$", line)
    assert found is not None
    assert said("compare", slices, "--group-by", "^p.", "--folds", found[1]) == ""
    assert said("compare", slices, "--folds", 13).endswith("only 12 images to train on and hold back; give 12 at most")
    assert said("compare", slices, "--folds", 12) == ""


def test_folds_of_whole_images(labelled: Path) -> None:
    data = read_labels(labelled, "made", "multiclass", -100)
    held = [s.stem for k in range(4) for s in data.fold(k, 4).validation]
    assert sorted(held) == [f"i{i:02d}" for i in range(8)]


@follows("drop them, and say in split.csv who is held back")
def test_boxes_have_no_folds(boxes: Path, said: Said) -> None:
    for words in (["--folds", 2], ["--group-by", "^l"]):
        assert said("compare", boxes, *words).endswith("has boxes; drop them, and say in split.csv who is held back")
    assert said("compare", boxes) == ""


def test_what_is_asked_reaches_the_data(slices: Path) -> None:
    asked = Asked(str(slices), group_by="^p.", folds=4)
    data = KIND.read(slices, asked)
    assert set(data.groups.values()) == set(PATIENTS)
    assert KIND.faults(slices, asked) == []
    assert index_pixels(slices, "^p.").groups == data.groups
    with pytest.raises(UserError, match="--folds 5: there are only 4 groups"):
        KIND.settings(data, Asked(str(slices), group_by="^p.", folds=5))
    assert main(["compare", str(slices), "--loss", "ce", "--folds", "1", "--out", str(slices / "out")]) == 2


@follows("drop --folds")
def test_folds_that_hold_nothing(discs: Path, said: Said) -> None:
    for path in sorted((discs / "masks").iterdir())[:2]:
        save(path, np.zeros_like(pixels(path)))
    assert said("compare", discs, "--folds", 4).endswith("; give 2 at most")
    assert said("compare", discs, "--folds", 2) == ""
    third = sorted((discs / "masks").iterdir())[2]
    save(third, np.zeros_like(pixels(third)))
    assert said("compare", discs, "--folds", 2).endswith("; drop --folds")
