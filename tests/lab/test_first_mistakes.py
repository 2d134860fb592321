"""What people met who had never seen the lab: classes nobody can judge, odd names, wrong places, early mistakes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from advice import Said, follows, pixels, save
from discs import make_folder

from lossmith.cli import main
from lossmith.lab.data.groups import guess_groups
from lossmith.lab.data.labelled import Data, read_pixels
from lossmith.lab.say.metrics import pooled_dice, trivial_dice

SHORT = ["--steps", "2", "--crop", "32", "--batch", "2", "--device", "cpu", "--seeds", "1"]


def read(folder: Path, task: str = "multiclass", ignore_index: int = -100) -> Data:
    return read_pixels(folder, "discs", task, ignore_index)


def test_a_class_that_is_not_held_back_does_not_count():
    """One invented pixel of it is no score of 0, and none is no way to leave it out."""
    counts = np.array([[[8, 1, 1], [0, 1, 0]], [[8, 0, 2], [0, 0, 0]]])  # hits, alarms, misses of two classes
    for cases in (["a", "a"], ["a", "b"]):
        first, second = pooled_dice(counts, cases)
        assert 0.8 < first < 1
        assert np.isnan(second)
    counts[1, 1] = [0, 0, 3]  # another case holds it: then the first has invented it
    assert pooled_dice(counts, ["a", "b"])[1] == 0
    assert trivial_dice([np.array([0, 1])], [""], 3, -100)["everything"] == pytest.approx(2 / 3)


@follows("choose both sides in split.csv so that each holds it")
def test_a_class_on_one_side_is_said_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    discs = make_folder(tmp_path / "discs", images=4, size=32)
    train = discs / "masks" / "disc3.png"
    kept = pixels(train)
    save(train, kept * 2)
    assert main(["compare", str(discs), "--loss", "ce", *SHORT, "--out", str(tmp_path / "out")]) == 0
    line = f"{discs}: 'class 2' stands in no image that is held back: nothing can be said of it; "
    assert line + "choose both sides in split.csv so that each holds it" in capsys.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "class 2 stands in no image that is held back: nothing can be said of it." in page
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["one_sided"] == {"class 2": "stands in no image that is held back: nothing can be said of it"}
    assert all(trial["per_class"]["dice"][1] is None for trial in results["trials"])
    table = (discs / "split.csv").read_text().replace("disc3,train", "disc3,validation")
    (discs / "split.csv").write_text(table)
    assert list(read(discs).one_sided().values()) == ["stands in no image to train on: nothing can learn it"]
    save(train, kept)
    assert read(discs).one_sided() == {}


def test_a_loss_that_cannot_be_read_leaves_nothing(discs: Path, tmp_path: Path, said: Said):
    for text in ("dcie", "dice(gama=2)", "dice + ", "giou", 'ce(class_weight="invers")'):
        assert said("compare", discs, "--loss", "ce", "--loss", text, "--out", tmp_path / "new")
        assert not (tmp_path / "new").exists()


@follows("choose another folder")
@pytest.mark.parametrize("place", ["images", "images/results", "masks/a/b"])
def test_results_do_not_lie_among_the_images(discs: Path, said: Said, place: str):
    part = discs / place.partition("/")[0]
    line = said("compare", discs, "--out", discs / place)
    assert line == f"--out {discs / place}: lies in {part}, whose files are data; choose another folder"
    assert not (part / "results").exists()
    assert said("compare", discs, "--out", discs / "results") == ""


def test_what_is_marked_unused_may_have_faults(discs: Path, said: Said):
    (discs / "masks" / "disc2.png").unlink()
    save(discs / "masks" / "disc3.png", np.zeros((8, 8), np.uint8))
    shutil.copy(discs / "images" / "disc0.png", discs / "images" / "other.png")
    shutil.copy(discs / "masks" / "disc0.png", discs / "masks" / "other.png")
    split = (discs / "split.csv").read_text() + "other,train\n"
    (discs / "split.csv").write_text(split)
    assert "no mask for it" in said("compare", discs)
    (discs / "split.csv").write_text(split.replace("disc2,train", "disc2,unused"))
    assert "the mask is 8 x 8" in said("compare", discs)
    (discs / "split.csv").write_text(
        split.replace("disc2,train", "disc2,unused").replace("disc3,train", "disc3,unused")
    )
    assert said("compare", discs) == ""


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (["TCGA-00_x0_y512", "TCGA-00_x0_y0", "TCGA-01_x0_y0", "TCGA-01_x512_y0"], "TCGA-00"),
        (["pat04_t1", "pat04_t2", "pat05_t1", "pat05_t2"], "pat04"),
        (["p03_slice012", "p03_slice013", "p04_slice1", "p04_slice2"], "p03"),
        (["frame_01", "frame_02", "frame_03", "frame_04"], None),
    ],
)
def test_patients_in_names(names: list[str], group: str | None):
    guess = guess_groups(names)
    assert (guess and guess[2]) == group


def test_numbers_of_objects_that_count_up(discs: Path, said: Said, capsys: pytest.CaptureFixture[str]):
    for i, top in enumerate((2, 5, 3, 5)):
        mask = np.zeros((32, 32), np.uint8)
        for k in range(top):
            mask[5 * k : 5 * k + 4, 8:20] = k + 1
        save(discs / "masks" / f"disc{i}.png", mask)
    (notice,) = [line for line in read(discs).notices if "class numbers" in line]
    assert notice.endswith(
        "holds the labels 1 to 5, others fewer, none with a gap; they are read as class numbers. "
        "Object numbers? Then use --task binary"
    )
    assert not any("class numbers" in line for line in read(discs, "binary").notices)
    save(discs / "masks" / "disc0.png", np.full((32, 32), 3, np.uint8))  # a gap: classes, of which some are absent
    assert not any("Object numbers" in line for line in read(discs).notices)


@follows("if it is a class, drop --ignore-index {}", " but for the label {}, which --ignore-index ignores")
def test_a_class_that_is_ignored(discs: Path, said: Said):
    save(discs / "masks" / "disc0.png", pixels(discs / "masks" / "disc0.png") * 2)
    save(discs / "masks" / "disc1.png", pixels(discs / "masks" / "disc1.png") * 3)
    notices = read(discs, ignore_index=2).notices
    (notice,) = [line for line in notices if "is ignored" in line]
    assert notice.startswith(f"{discs}/masks: the label 2, 'class 2', is ignored: its pixels count nowhere; ")
    assert notice.endswith("; if it is a class, drop --ignore-index 2")
    assert not any("without 2" in line for line in notices)
    assert not any("is ignored" in line for line in read(discs).notices)
    for i in range(4):
        save(discs / "masks" / f"disc{i}.png", (pixels(discs / "masks" / f"disc{i}.png") > 0).astype(np.uint8))
    line = said("compare", discs, "--ignore-index", "1")
    assert "every mask is background only but for the label 1, which --ignore-index ignores, nothing" in line
    assert said("compare", discs) == ""


def test_folders_of_other_names_are_named(discs: Path, said: Said):
    (discs / "images").rename(discs / "Patches v2")
    assert f"{discs}: there is no folder images/ in it, only Patches v2/, masks/; expected" in said("compare", discs)


def test_options_that_do_not_exist_point_to_the_help_of_their_command(capsys: pytest.CaptureFixture[str]):
    assert main(["compare", "discs", "--stesp", "2"]) == 2
    assert capsys.readouterr().err.endswith("; lossmith compare --help lists what there is\n")
    assert main(["comapre"]) == 2
    assert capsys.readouterr().err.endswith("; lossmith --help lists what there is\n")


def test_a_wrong_value_in_a_file_of_settings_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run.yaml").write_text("steps: twenty\n")
    assert main(["compare", "discs", "--loss", "ce", "--out", "o", "--settings", str(tmp_path / "run.yaml")]) == 2
    assert "'--steps'" in (said := capsys.readouterr().err)
    assert "(--settings has steps: twenty)" in said


def test_runs_of_other_data_are_told_by_their_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folders = [make_folder(tmp_path / f"discs{n}", images=n, size=32) for n in (4, 5)]
    runs = [tmp_path / folder.name / "out" for folder in folders]
    for folder, out in zip(folders, runs, strict=True):
        assert main(["compare", str(folder), "--loss", "ce", *SHORT, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "both")]) == 2
    said = capsys.readouterr().err
    assert f"their images or labels differ ({folders[0]}, {folders[1]}); report each by itself" in said


def test_ctrl_c_while_torch_is_imported():
    code = """
import sys, lossmith_command
class Interrupt:
    def find_spec(self, name, *_):
        if name == "torch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
sys.exit(lossmith_command.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "lossmith: stopped\n")
