"""`lossmith report`: the report of finished trials again, and several runs as one; nothing is trained for it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from advice import follows
from discs import make_folder

from lossmith.cli import main
from lossmith.lab.run import work

SMALL = ["--crop", "32", "--batch", "2", "--device", "cpu"]


def compare(folder: Path, out: Path, *losses: str, steps: int = 4, seeds: int = 2) -> None:
    words = [str(folder), *SMALL, "--steps", str(steps), "--seeds", str(seeds), "--keep", "best", "--out", str(out)]
    for loss in losses:
        words += ["--loss", loss]
    assert main(["compare", *words]) == 0


def results(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "results.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data, and two runs of it with a loss each. Read only."""
    home = tmp_path_factory.mktemp("merging")
    folder = make_folder(home / "data", images=4, size=32)
    compare(folder, home / "one", "ce")
    compare(folder, home / "two", "dice", seeds=1)
    return home


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Copies of the runs; whoever trains from here on is found out."""

    def train(*_: Any) -> None:
        raise AssertionError("this trains")

    monkeypatch.setattr(work, "run_trial", train)
    return shutil.copytree(made / "one", tmp_path / "one"), shutil.copytree(made / "two", tmp_path / "two")


def test_a_report_is_written_again(runs: tuple[Path, Path]) -> None:
    before = results(runs[0])
    (runs[0] / "report.html").unlink()
    assert main(["report", str(runs[0]), "--figures", "svg"]) == 0
    again = results(runs[0])
    assert {key for key in before if again[key] != before[key]} == {"command"}  # which says where it now is
    assert (runs[0] / "report.html").stat().st_size > 100_000
    assert {"seeds.svg", "gradient_by_class.svg"} <= {path.name for path in (runs[0] / "figures").iterdir()}


def test_two_runs_become_one(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "both"
    assert main(["report", *map(str, runs), "--out", str(out), "--json"]) == 0
    merged = json.loads(capsys.readouterr().out)
    assert merged == results(out)
    assert {(t["loss"], t["seed"]) for t in merged["trials"]} == {("ce", 0), ("ce", 1), ("dice", 0)}
    assert merged["asked"] == {"losses": ["ce", "dice"], "seeds": 2, "budget": None, "keep": "best"}
    assert "--keep best" in merged["command"]
    assert sorted(path.name.split("-")[0] for path in (out / "weights").iterdir()) == ["ce", "dice"]
    assert (merged["finished"], merged["planned"]) == (3, 4)
    assert len(list((out / "predictions").iterdir())) == 3
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0  # again: nothing is there twice
    assert results(out)["finished"] == 3


def test_data_may_lie_elsewhere(runs: tuple[Path, Path], made: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(made / "data", tmp_path / "moved")
    assert main(["report", str(runs[0]), "--data", str(moved)]) == 0
    assert str(moved) in results(runs[0])["settings"]["data"]


def test_a_run_without_results_json(runs: tuple[Path, Path]) -> None:
    """It was killed."""
    (runs[0] / "results.json").unlink()
    assert main(["report", str(runs[0])]) == 0
    assert results(runs[0])["asked"]["seeds"] == 2


def test_the_one_setting_that_differs_is_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(made / "data", tmp_path / "longer", "dice", steps=5, seeds=1)
    capsys.readouterr()
    assert main(["report", str(made / "one"), str(tmp_path / "longer"), "--out", str(tmp_path / "both")]) == 2
    said = capsys.readouterr().err
    assert "steps is 4 in the first, 5 in the second" in said
    assert not (tmp_path / "both").exists()


def test_a_loss_that_means_something_else(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from lossmith.lab import UserError
    from lossmith.lab.commands.report import check_mergeable
    from lossmith.lab.run.records import read_trials

    found = {run: read_trials(run) for run in runs}
    found[runs[1]][0] |= {"loss": "ce", "meaning": "Other()"}
    with pytest.raises(UserError, match=r'"ce" is CrossEntropyLoss.*in the first, Other\(\) in the second'):
        check_mergeable(found)


@follows("give a folder for it", "give the --out of a compare")
def test_advice(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *map(str, runs)]) == 2
    assert "--out: several runs become one; give a folder for it" in capsys.readouterr().err
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "both")]) == 0
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "holds no trials; give the --out of a compare" in capsys.readouterr().err
    assert main(["report", str(runs[0])]) == 0
