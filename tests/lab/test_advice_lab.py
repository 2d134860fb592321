"""Every advice in an error of the lab, followed: the error comes, it says so, and what it says works.

What is said of files is in test_advice_folders.py, and of masks in test_masks.py. The last test reads the source: an
advice that is new or was changed has no test, and a test whose advice stands nowhere is out of date.
"""

import gzip
import hashlib
import itertools
import os
import re
import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_advice_folders
import test_advice_formats
import test_audit
import test_devices
import test_engines
import test_first_mistakes
import test_groups
import test_masks
import test_merging
import test_model
import test_python
import test_streaming
import test_watch
import torch
from advice import ADVICE, Said, advice_in, follows, pixels, rewrite, save

import lossmith as ls
import lossmith.lab
from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.commands import catalogue
from lossmith.lab.data import builtin
from lossmith.lab.data.sets import BuiltIn, Debian, Read
from lossmith.lab.experiments.boxes import walk as box_regression
from lossmith.lab.run import comparison
from lossmith.lab.run.records import opened
from lossmith.lab.run.snapshot import Snapshot
from lossmith.lab.settings import RunSettings

WEIGHTED = [row for row in ls.catalogue() if "class_weight" in row.fields and row.name != "kl"]  # which reads no labels


# ------------------------------------------------------------------------------------------------ the command line


@follows("must be a multiple of 16, for example {}")
def test_a_crop_that_is_no_multiple(discs: Path, said: Said) -> None:
    for crop in (33, 40, 47, 49, 56, 1000):
        found = re.search(r"for example (\d+)$", said("compare", discs, "--crop", crop))
        assert found is not None
        assert abs(int(found[1]) - crop) <= 8
        assert said("compare", discs, "--crop", found[1]) == ""


@follows("write {}")
def test_a_spacing_that_plot_cannot_draw(tmp_path: Path, said: Said) -> None:
    page = str(tmp_path / "page.html")
    found = re.search(r"; write (spacing=.*)$", said("plot", "boundary(spacing=[1, 2, 3])", "--out", page))
    assert found is not None
    assert main(["plot", f"boundary({found[1]})", "--out", page]) == 0


@follows("give --device auto")
def test_a_device_that_is_not_here(discs: Path, said: Said) -> None:
    assert said("compare", discs, "--device", "tpu").endswith("; give --device auto")
    assert said("compare", discs, "--device", "auto") == ""


@follows("choose one of them")
def test_a_file_that_plot_does_not_write(tmp_path: Path, said: Said) -> None:
    found = re.search(r"ends in none of (.*) and (.*); choose one of them$", said("plot", "l1", "--out", "l1.pdf"))
    assert found is not None
    for suffix in (*found[1].split(", "), found[2]):
        assert main(["plot", "l1", "--out", str(tmp_path / f"l1{suffix}")]) == 0


@follows('give for example plot("dice", "ce")')
def test_a_plot_of_nothing() -> None:
    with pytest.raises(ValueError, match=r'give for example plot\("dice", "ce"\)$'):
        ls.plot()
    assert ls.plot("dice", "ce", against="size").losses == ["dice", "ce"]


@follows('lossmith.plot needs the lab: pip install "lossmith[lab]"')
def test_a_plot_without_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossmith.lab.plot.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "lossmith[lab]"')):
        ls.plot("l1")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("matplotlib") for line in project["optional-dependencies"]["lab"])


@follows("give it once, --seeds repeats it")
def test_a_loss_twice(discs: Path, said: Said) -> None:
    assert said("compare", discs, "--loss", "dice", "--loss", "dice").endswith("; give it once, --seeds repeats it")
    assert said("compare", discs, "--loss", "dice", "--seeds", 2) == ""


@follows("must be a positive number, or auto")
def test_a_learning_rate(discs: Path, said: Said) -> None:
    for rate in ("0", "-1", "nan", "inf", "fast"):
        assert said("compare", discs, "--lr", rate).endswith("must be a positive number, or auto")
    assert said("compare", discs, "--lr", 1e-9) == ""
    assert said("compare", discs, "--lr", "auto") == ""


@follows("write a number and s, m or h, for example 20m")
def test_a_budget(discs: Path, said: Said) -> None:
    for budget in ("20", "m", "-3m", "0h", "20 minutes"):
        assert said("compare", discs, "--budget", budget).endswith("write a number and s, m or h, for example 20m")
    for budget in ("20m", "90s", "1.5h"):
        assert said("compare", discs, "--budget", budget) == ""


@follows("drop them")
def test_options_for_pixels_with_boxes(boxes: Path, discs: Path, said: Said) -> None:
    for words in (
        ["--task", "binary"],
        ["--ignore-index", "255"],
        ["--unlabelled", discs / "images"],
        ["--unlabelled-batch", 2],
    ):
        line = said("compare", boxes, *words)
        assert line.endswith("has boxes, not labelled pixels; drop them")
        assert str(words[0]) in line.replace("--unlabelled[-batch]", "--unlabelled --unlabelled-batch").split(":")[0]


@follows("drop --quality")
def test_quality_without_boxes(discs: Path, said: Said) -> None:
    assert said("compare", discs, "--quality", "iou").endswith("; drop --quality")


@follows("drop --crop")
def test_crops_of_whole_images(labelled: Path, said: Said) -> None:
    assert said("compare", labelled, "--crop", 32).endswith("; drop --crop")


@follows("give the folder too: --unlabelled FOLDER", "drop it")
def test_unlabelled_images(discs: Path, labelled: Path, tmp_path: Path, said: Said) -> None:
    (tmp_path / "extra").mkdir()
    np.save(tmp_path / "extra" / "a.npy", np.arange(1024.0).reshape(32, 32))
    assert said("compare", discs, "--unlabelled-batch", 2).endswith("give the folder too: --unlabelled FOLDER")
    more = ["--unlabelled", tmp_path / "extra"]
    assert said("compare", discs, "--unlabelled-batch", 2, *more) == ""
    assert said("compare", labelled, *more).startswith("--unlabelled ")
    assert said("compare", labelled, *more).endswith("no masks; drop it")


@follows("show takes one name out of lossmith list")
def test_show_takes_every_name_in_the_list(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    assert said("show", "dice + ce").endswith("show takes one name out of lossmith list")
    assert main(["list", "--json"]) == 0
    listed = re.findall(r'"name": "(\w+)"', capsys.readouterr().out)
    assert len(listed) == len(ls.catalogue())
    for name in listed:
        assert catalogue.find_loss(name).name == name


@follows("give a file, for example {}", "choose another file")
def test_the_page_of_box_regression(tmp_path: Path, said: Said) -> None:
    found = re.search(r"give a file, for example (.+)$", said("lab", "box-regression", "--out", tmp_path))
    assert found is not None
    assert said("lab", "box-regression", "--out", found[1]) == ""
    (tmp_path / "file").touch()
    assert said("lab", "box-regression", "--out", tmp_path / "file" / "a.html").endswith("; choose another file")
    assert said("lab", "box-regression", "--out", tmp_path / "a.html") == ""


# --------------------------------------------------------------------------------------------------- --out


@follows("choose another folder")
def test_out_that_cannot_be_written(discs: Path, tmp_path: Path, said: Said) -> None:
    (tmp_path / "file").touch()
    assert said("compare", discs, "--out", tmp_path / "file" / "out").endswith("; choose another folder")
    assert said("compare", discs, "--out", tmp_path / "another") == ""


@follows("choose another --out")
def test_out_that_holds_something_else(
    discs: Path, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["compare", discs, "--steps", 1, "--crop", 32, "--batch", 2]
    with monkeypatch.context() as for_real:
        for_real.setattr(comparison, "ThreadPoolExecutor", ThreadPoolExecutor)
        words = [*small, "--loss", "ce", "--seeds", 1, "--device", "cpu", "--out", tmp_path / "out", "--json"]
        assert main([str(word) for word in words]) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "out" / "trials").iterdir()
    assert said(*small, "--lr", 1).endswith("; choose another --out")
    assert said(*small, "--lr", 1, "--out", tmp_path / "another") == ""
    save(discs / "images" / "disc0.png", 255 - pixels(discs / "images" / "disc0.png"))
    line = said(*small)
    assert "the data have changed since its trials were made" in line
    assert line.endswith("; choose another --out")
    assert said(*small, "--out", tmp_path / "another") == ""
    rewrite(path, f'"record": {RunSettings.record}', '"record": 1')
    line = said(*small)
    assert "trials of another version" in line
    assert line.endswith("; choose another --out")
    assert said(*small, "--out", tmp_path / "another") == ""


@follows("wait for it, or choose another --out")
def test_out_that_another_process_writes_to(discs: Path, tmp_path: Path, said: Said) -> None:
    with ThreadPoolExecutor(1) as elsewhere:  # a lock is of a thread
        held = opened(tmp_path / "out")
        elsewhere.submit(held.__enter__).result()
        line = said("compare", discs)
        assert f"process {os.getpid()} on " in line
        assert line.endswith(" is writing there; wait for it, or choose another --out")
        assert said("compare", discs, "--out", tmp_path / "another") == ""
        elsewhere.submit(held.__exit__, None, None, None).result()
    assert said("compare", discs) == ""


@follows("what was finished by then is kept, choose another --out for the data as it is now")
def test_data_that_change_after_they_were_read(discs: Path, tmp_path: Path, said: Said) -> None:
    snapshot = Snapshot([discs], tmp_path / "out")
    save(discs / "images" / "disc0.png", 255 - pixels(discs / "images" / "disc0.png"))
    with pytest.raises(UserError, match="choose another --out for the data as it is now"):
        snapshot.check()
    assert said("compare", discs, "--out", tmp_path / "another") == ""


# --------------------------------------------------------------------------------------------------- built-in sets


@pytest.fixture
def copied(tmp_path: Path, discs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built-in set "copy" out of a Debian package with one file, which is returned."""
    sound = tmp_path / "package.gz"
    sound.write_bytes(gzip.compress(b"right"))

    def make(read: Read, folder: Path) -> None:
        assert read(str(sound)) == b"right"
        shutil.copytree(discs, folder, dirs_exist_ok=True)

    source = Debian("some-data", {str(sound): hashlib.sha256(b"right").hexdigest()})
    monkeypatch.setattr(builtin, "BUILT_IN", {"copy": BuiltIn(source, make)})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return sound


@follows("did you mean {}?", "set XDG_CACHE_HOME to a writable place", "install its Debian package: apt-get install {}")
def test_built_in_sets(copied: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said("compare", "kopy").endswith("did you mean 'copy'?")
    assert said("compare", "nothing like it").endswith("built in: copy")
    copied.rename(tmp_path / "elsewhere")
    assert said("compare", "copy").endswith("; install its Debian package: apt-get install some-data")
    (tmp_path / "elsewhere").rename(copied)  # as apt-get would
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert said("compare", "copy").endswith("; set XDG_CACHE_HOME to a writable place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "writable"))
    assert said("compare", "copy") == ""


@follows("give the folder that holds images/")
def test_a_file_is_no_folder(discs: Path, said: Said) -> None:
    assert said("compare", discs / "split.csv").endswith("; give the folder that holds images/")
    assert said("compare", discs / "images" / "disc0.png").endswith("; give the folder that holds images/")
    assert said("compare", discs) == ""


# --------------------------------------------------------------------------------------------------- losses


@follows("drop reduction=", 'boxes need a term on scores and one on boxes, as in "focal + giou"')
def test_losses_for_boxes(discs: Path, boxes: Path, said: Said) -> None:
    for text in ("focal", "giou", "focal + dfl"):
        found = re.search(r'as in "(.*)"$', said("compare", boxes, "--loss", text))
        assert found is not None
    assert said("compare", boxes, "--loss", found[1]) == ""
    assert "has reduction='none' and cannot" in said("compare", boxes, "--loss", 'focal(reduction="none") + giou')
    assert said("compare", discs, "--loss", 'dice(reduction="none")').endswith("; drop reduction=")
    assert said("compare", discs, "--loss", "dice") == ""


@follows(
    "add it to another: ce + 0.1*{}",
    "its {} terms have different windows: give each its forbidden=[[...], ...]",
)
def test_losses_that_read_no_labels(discs: Path, said: Said) -> None:
    for text in ("entropy", "nonadjacency", "nonadjacency + entropy"):
        found = re.search(r"add it to another: (.*)$", said("compare", discs, "--loss", text))
        assert found is not None
        assert said("compare", discs, "--loss", found[1]) == ""
    two = "ce + nonadjacency(window=3{0}) + nonadjacency(window=5{0})"
    assert said("compare", discs, "--loss", two.format("")).endswith("give each its forbidden=[[...], ...]")
    assert said("compare", discs, "--loss", two.format(", forbidden=[[0, 1], [1, 0]]")) == ""


@follows(
    "{} takes a yes or no at each pixel: use --task binary",
    "{} needs a target of probabilities",
    "{} needs {}",
    "drop that, --task says it for all losses",
)
def test_losses_for_other_targets(discs: Path, said: Said) -> None:
    for name in ("dice2", "lovasz_hinge"):
        assert said("compare", discs, "--loss", name).endswith("use --task binary")
        assert said("compare", discs, "--loss", name, "--task", "binary") == ""
    assert said("compare", discs, "--loss", "kl").endswith("; with labels it is ce")
    assert said("compare", discs, "--loss", "ce") == ""
    assert "(lossmith lab box-regression compares such losses)" in said("compare", discs, "--loss", "giou")
    assert said("lab", "box-regression", "--out", discs / "page.html") == ""
    assert "giou" in box_regression.LOSSES
    for task, run in itertools.product(("multiclass", "binary", "multilabel"), ("multiclass", "binary")):
        line = said("compare", discs, "--loss", f'ce(task="{task}")', "--task", run)
        assert line.endswith("; drop that, --task says it for all losses") != (task == run)
        assert said("compare", discs, "--loss", "ce", "--task", run) == ""


@pytest.mark.parametrize("row", WEIGHTED, ids=lambda row: str(row.name))
def test_settings_that_one_channel_has_no_use_for(row: Any, discs: Path, said: Said) -> None:
    text = f'{row.name}(class_weight="inverse")'
    line = said("compare", discs, "--task", "binary", "--loss", text)
    assert said("compare", discs, "--task", "binary", "--loss", row.name) == ""
    try:
        ls.parse(f"{row.name}(class_weight=[1, 2])")(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    except ValueError:
        assert line
    else:
        assert line == ""
    if line:
        assert "class_weight has no effect" in line
        assert line.endswith("; drop it, or use two channels")
        assert said("compare", discs, "--loss", text) == "" or "multiclass" not in row.cls.tasks
    if "include_background" in row.fields:
        line = said("compare", discs, "--task", "binary", "--loss", f"{row.name}(include_background=False)")
        assert line.endswith("include_background has no effect with one channel, the foreground; drop it")


@pytest.mark.parametrize(
    "text", ['dice(smooth="a")', "focal(gamma=-1)", "ce(class_weight=[1, 2, 3])", "dice(classes=7)"]
)
def test_wrong_values_and_types_get_one_line(text: str, discs: Path, boxes: Path, said: Said) -> None:
    assert said("compare", discs, "--loss", text).startswith(f'--loss "{text}" (multiclass task): ')
    assert said("compare", boxes, "--loss", f"{text} + giou").startswith(f'--loss "{text} + giou" (boxes): ')


@follows("settings of the loss are name=value")
def test_settings_of_a_loss_that_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "torch.nn:CrossEntropyLoss", "--only", "repeatable"]
    assert main([*words, "0.1"]) == 2
    assert "0.1: settings of the loss are name=value" in capsys.readouterr().err
    assert main([*words, "label_smoothing=0.1"]) == 0


# --------------------------------------------------------------------------------------------------- the source


def test_every_advice_is_followed_by_a_test() -> None:
    alike = (
        test_advice_folders,
        test_advice_formats,
        test_audit,
        test_devices,
        test_engines,
        test_first_mistakes,
        test_groups,
    )
    parts = (*alike, test_masks, test_merging, test_model, test_python, test_streaming, test_watch)
    assert {module.__name__ for module in parts} < {test.__module__ for test in ADVICE.values()}
    folder = Path(lossmith.lab.__file__).parent
    found = {advice: path.name for path in folder.rglob("*.py") for advice in advice_in(path.read_text())}
    assert {advice: where for advice, where in found.items() if advice not in ADVICE} == {}
    assert ADVICE.keys() - found.keys() == set()
