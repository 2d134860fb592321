"""Compiled kernels on disk. Numba's internals are imported here and in `compiler.py`.

Numba's own cache (`cache=True`) raises at import where no folder can be written, raises in the user's call if a file is
broken, and keeps an index that two processes can write at once: an entry may then lead to the other's machine code.
Here there is no index: a file per kernel and signature, whose name says all that the machine code depends on and whose
checksum covers that name. It is moved into place when it is complete. A file with anything wrong counts as absent, and
a kernel that cannot be kept runs all the same. NUMBA_DEBUG_CACHE=1 prints what becomes of each file.

The digest of the source covers the file a kernel stands in and all files of this folder, not what else is imported: a
function that is compiled into a kernel has to stand in one of these.
"""

# mypy: disable-error-code="attr-defined, no-untyped-call"

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import pickle
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite  # type: ignore[import-untyped]
import numba
import numpy as np
from numba.core import config
from numba.core.caching import _Cache, _cache_log
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

from .compiler import KernelCompiler

_USER_CACHES = {"darwin": "Library/Caches", "win32": "AppData/Local"}  # elsewhere .cache
_CHECKSUM = 32  # bytes


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`njit(**options)`, with the machine code kept on disk. The options stand in the source: its digest has them."""

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options, pipeline_class=KernelCompiler)(function)
        dispatcher._cache = KernelCache(function)
        return dispatcher

    return compiled


class Folder(NamedTuple):
    path: Path
    private: bool = False  # made for this user alone, and used only if it is

    def make(self) -> None:
        self.path.mkdir(mode=0o700 if self.private else 0o777, parents=True, exist_ok=True)

    def check(self) -> None:
        """Loading a kernel means unpickling, which can run anything. In a temporary folder that all users share,
        somebody else could have put a folder of this name, or a link, with files of their own.
        """
        if self.private and sys.platform != "win32":  # there the temporary folder is the user's own
            found = self.path.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if not ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{self.path} is not a folder that only this user can write to")


def folders(source: Path) -> list[Folder]:
    """Where the kernels of a source file are looked for. The first that can be written to gets the new ones."""
    found = [Folder(Path(config.CACHE_DIR, "lossmith"))] if config.CACHE_DIR else []  # NUMBA_CACHE_DIR
    found.append(Folder(source.parent / "__pycache__"))
    home = Path("~", _USER_CACHES.get(sys.platform, ".cache"))
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(home))
    if user.is_absolute():  # "~" stays as it is for a user without a home
        found.append(Folder(user / "lossmith" / "kernels"))
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none can be written to
        return found
    owner = "user" if sys.platform == "win32" else os.geteuid()
    return [*found, Folder(temporary / f"lossmith-{owner}", private=True)]


def folder_digest(folder: Path) -> str:
    files = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def source_digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes() + _FOLDER.encode()).hexdigest()[:16]


try:
    # Now, before any other file of the folder is imported: what is compiled from one that was edited meanwhile is then
    # kept under a digest that the folder no longer has, not under one that belongs to other code.
    _FOLDER = folder_digest(Path(__file__).parent)
except OSError:
    _FOLDER = ""


class KernelCache(_Cache):
    """What a dispatcher asks of its `_cache`. Numba calls it under its compiler lock: one thread at a time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._source = Path(inspect.getfile(function))
        self._stem = f"{self._source.stem}.{function.__name__}"
        try:
            self._digest = source_digest(self._source)  # now: the file may be edited before the first call
        except OSError:  # the source is in an archive, or frozen: nothing is kept
            self._digest = ""
        self._enabled = bool(self._digest)

    @property
    def cache_path(self) -> str:
        return str(folders(self._source)[0].path)

    def enable(self) -> None:
        self._enabled = bool(self._digest)

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        for folder in folders(self._source):
            self._remove(folder.path, current=True)

    def file_name(self, signature: Any, codegen: Any) -> str:
        versions = sys.version, numba.__version__, llvmlite.__version__, np.__version__
        key = repr((str(signature), versions, codegen.magic_tuple(), config.USING_SVML))
        return f"{self._stem}.{self._digest}.{hashlib.sha256(key.encode()).hexdigest()[:32]}.kernel"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel for a signature; None if there is none, or none that is sound."""
        target_context.refresh()
        if not self._enabled:
            return None
        name = self.file_name(sig, target_context.codegen())
        for folder in folders(self._source):
            try:
                folder.check()
                arguments, reduced = unsealed(name, (folder.path / name).read_bytes())
                if arguments != tuple(normalize_signature(sig)[0]):
                    raise ValueError(f"it was compiled for {arguments}")
                result = CompileResult._rebuild(target_context, *reduced)
            except Exception as error:  # whatever it is: compiling anew is always right
                _cache_log("[cache] %s in %s not loaded: %r", name, folder.path, error)
            else:
                _cache_log("[cache] %s loaded from %s", name, folder.path)
                return result
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or data.library.has_dynamic_globals:  # these are addresses in this process
            return
        name = self.file_name(sig, data.codegen)
        for folder in folders(self._source):
            try:
                folder.make()
                folder.check()
                replace(folder.path / name, sealed(name, (data.signature.args, data._reduce())))
            except Exception as error:  # the kernel is compiled, and runs
                _cache_log("[cache] %s not saved in %s: %r", name, folder.path, error)
            else:
                _cache_log("[cache] %s saved in %s", name, folder.path)
                if folder.path == self._source.parent / "__pycache__":  # other folders may serve other versions too
                    self._remove(folder.path, current=False)
                return

    def _remove(self, folder: Path, current: bool) -> None:
        """Removes this kernel's files: those of the current source, or those of others."""
        with contextlib.suppress(OSError):
            for file in folder.glob(f"{self._stem}.*.kernel"):
                if file.name.startswith(f"{self._stem}.{self._digest}.") is current:
                    file.unlink(missing_ok=True)


def sealed(name: str, content: Any) -> bytes:
    """A file's bytes. The checksum covers its name too: under another name it is as good as broken."""
    payload: bytes = dumps(content)
    return hashlib.sha256(name.encode() + payload).digest() + payload


def unsealed(name: str, data: bytes) -> Any:
    checksum, payload = data[:_CHECKSUM], data[_CHECKSUM:]
    if hashlib.sha256(name.encode() + payload).digest() != checksum:
        raise ValueError("its checksum is wrong")
    return pickle.loads(payload)


def replace(path: Path, data: bytes) -> None:
    """Writes a file so that nobody ever sees a part of it. It can be read by whoever the folder is for."""
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with fresh.open("xb") as file:
            file.write(data)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
