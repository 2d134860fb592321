"""Modules of peers that are not installed here, read from their wheels: the wheel comes by pip into a cache, and only
the modules that are asked for run, without their packages' own imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossmith-peers"


def unpacked(requirement: str) -> Path:
    """The folder of a wheel's Python files. Where there is no index the test is skipped."""
    folder = CACHE / requirement
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", requirement]
        try:
            subprocess.run(command, cwd=name, check=True, capture_output=True, timeout=120)
            (wheel,) = Path(name).glob("*.whl")
            CACHE.mkdir(parents=True, exist_ok=True)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            pytest.skip(f"{requirement} cannot be had here: {type(error).__name__}", allow_module_level=True)
        made = Path(tempfile.mkdtemp(dir=CACHE))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made, [x for x in archive.namelist() if x.endswith(".py")])
    try:
        made.replace(folder)
    except OSError:  # another test was faster
        shutil.rmtree(made)
    return folder


def modules(requirement: str, *names: str, **stubs: Any) -> list[ModuleType]:
    """Modules of a wheel by name, with the packages above them left empty; `stubs`: a module (with __ for a dot) and
    what it holds instead of its own."""
    folder, top = unpacked(requirement), names[0].split(".")[0]
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == top}
    for name in before:
        del sys.modules[name]
    try:
        for name in (*names, *(stub.replace("__", ".") for stub in stubs)):
            parts = name.split(".")
            for end in range(1, len(parts)):
                package = ModuleType(".".join(parts[:end]))
                package.__path__ = [str(folder.joinpath(*parts[:end]))]
                sys.modules.setdefault(package.__name__, package)
        for stub, held in stubs.items():
            module = ModuleType(stub.replace("__", "."))
            vars(module).update(held)
            sys.modules[module.__name__] = module
        return [import_module(name) for name in names]
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == top]:
            del sys.modules[name]
        sys.modules.update(before)
