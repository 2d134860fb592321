"""Data that change while a comparison runs."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.run import comparison, records, work
from lossmith.lab.run.snapshot import Snapshot


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("images/a.png", "images/deep/b.png", "masks/a.png", "split.csv", ".hidden"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    return tmp_path / "data"


def touched(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def same_time(path: Path) -> None:
    stat = path.stat()
    path.write_text("longer than before")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", ["images/a.png", "images/deep/b.png", "split.csv"])
@pytest.mark.parametrize(("change", "what"), [(touched, "changed"), (same_time, "changed"), (Path.unlink, "is gone")])
def test_a_change_is_seen(name: str, change: object, what: str, files: Path, tmp_path: Path) -> None:
    before = Snapshot([files], tmp_path / "out")
    before.check()
    assert callable(change)
    change(files / name)
    with pytest.raises(UserError, match=f"{name}: {what} since the comparison began") as caught:
        before.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("out", ["data/out", "data", "data/images/../out"])
def test_what_does_not_count(out: str, files: Path, tmp_path: Path) -> None:
    """New files were never read; hidden ones and links to nothing are no data; the results may lie beside the data."""
    records.make_folders(tmp_path / out)
    for path in records.results_in(tmp_path / out):
        if path.suffix:
            path.touch()
    (tmp_path / out / "running" / "a.pt").touch()
    (files / "images" / "dangling").symlink_to("nowhere")
    (files / "images" / "round").symlink_to(files / "images")
    before = Snapshot([files], tmp_path / out)
    (files / "images" / "new.png").touch()
    (files / ".hidden").write_text("changed")
    (tmp_path / out / "running" / "a.pt").unlink()
    records.write(tmp_path / out / "results.json", "{}")
    before.check()


def test_compare_looks_before_it_keeps_a_trial(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = work.run_trial

    def changing(*given: Any) -> Any:
        touched(discs / "masks" / "disc3.png")
        return real(*given)

    monkeypatch.setattr(work, "run_trial", changing)
    monkeypatch.setattr(comparison, "ThreadPoolExecutor", ThreadPoolExecutor)
    words = ["compare", discs, "--loss", "ce", "--steps", 1, "--crop", 32, "--device", "cpu", "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lossmith: {discs}/masks/disc3.png: changed since the comparison began")
    assert list((tmp_path / "out" / "trials").iterdir()) == []
