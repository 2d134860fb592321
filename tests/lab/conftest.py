"""Shared by the lab's tests: a small folder of discs, and settings small enough for seconds."""

from pathlib import Path

import pytest
from advice import Reached, Said, reached
from balls import make_labelled, make_volumes
from crowns import make_folder as make_boxes
from discs import make_folder

from lossmith.cli import main
from lossmith.lab.data.labelled import Data, read_pixels
from lossmith.lab.experiments.boxes import walk as box_regression
from lossmith.lab.run import comparison
from lossmith.lab.settings import RunSettings


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight discs with split.csv. Read only: a test that changes files makes its own."""
    return make_folder(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="session")
def data(folder: Path) -> Data:
    return read_pixels(folder, "discs", "multiclass", -100)


@pytest.fixture
def settings(data: Data) -> RunSettings:
    return RunSettings("discs", data.fingerprint, "multiclass", 4, 32, 2, 1e-2, -100, "cpu", (4, 4, 4, 4, 4, 4))


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """What `lossmith` says of a command up to where it would train: its line, or "" if there is nothing to say."""
    monkeypatch.setattr(comparison, "ThreadPoolExecutor", reached)
    monkeypatch.setattr(box_regression, "simulate", reached)

    def run(*words: object) -> str:
        command = [str(word) for word in words]
        if command[0] == "compare":
            command += [] if "--loss" in command else ["--loss", "focal + giou" if "crowns" in command[1] else "ce"]
            command += [] if "--out" in command else ["--out", str(tmp_path / "out")]
            command += [] if "--device" in command else ["--device", "cpu"]
        try:
            code = main(command)
        except Reached:
            return ""
        captured = capsys.readouterr()
        assert code == 2
        assert captured.out == ""
        *notes, line = captured.err.splitlines()  # a note on a loss may come first
        assert not any(note.startswith("lossmith: ") for note in notes)
        return line.removeprefix("lossmith: ")

    return run


@pytest.fixture
def discs(tmp_path: Path, said: Said) -> Path:
    folder = make_folder(tmp_path / "discs", images=4, size=32)
    assert said("compare", folder) == ""
    return folder


@pytest.fixture
def labelled(tmp_path: Path, said: Said) -> Path:
    folder = make_labelled(tmp_path / "labelled", images=8, size=16)
    assert said("compare", folder) == ""
    return folder


@pytest.fixture
def volumes(tmp_path: Path, said: Said) -> Path:
    folder = make_volumes(tmp_path / "volumes", (20, 32, 20))
    assert said("compare", folder) == ""
    return folder


@pytest.fixture
def boxes(tmp_path: Path, said: Said) -> Path:
    folder = make_boxes(tmp_path / "crowns")
    assert said("compare", folder) == ""
    return folder
