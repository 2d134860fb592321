"""Compiled kernels on disk: what is kept is loaded, what is broken or foreign is not, and nothing of it fails a call.

Most tests import a small module of kernels anew instead of starting a process: its dispatchers know nothing then but
what is on disk.
"""

from __future__ import annotations

import ast
import gc
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
import torch
from numba import typeof
from numba.core import config, registry

import lossmith as ls
from lossmith.engine.numba import cache, compiler
from lossmith.engine.numba.cache import sealed, unsealed

PACKAGE = Path(ls.__file__).parent
TINY = """
from lossmith.engine.numba.cache import kernel

@kernel(error_model="numpy", _nrt=False, nogil=True)
def total(x):
    result = x[0]
    for i in range(1, len(x)):
        result += x[i]
    return result

@kernel(error_model="numpy", _nrt=False, nogil=True)
def peak(x):
    result = x[0]
    for i in range(1, len(x)):
        result = max(result, x[i])
    return result
"""
INTEGERS, REALS = np.array([3, 4, 5]), np.array([0.5, 0.25, 2.0])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of kernels and no other folder than its own __pycache__: the rest lies below a file."""
    file = tmp_path / "package" / "tiny.py"
    file.parent.mkdir()
    file.write_text(TINY)
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(blocked / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked / "user"))
    return file


def imported(source: Path) -> ModuleType:
    sys.modules.pop(source.stem, None)
    importlib.invalidate_caches()
    return importlib.import_module(source.stem)


def found(kernel) -> tuple[int, int]:
    """How many signatures were loaded, and how many compiled."""
    return sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())


def kept(folder: Path, name: str = "") -> list[Path]:
    return sorted(folder.glob(f"tiny.{name}*"))


def test_a_kernel_is_compiled_once_per_signature(source):
    first, second = imported(source), imported(source)
    for module, seen in (first, (0, 2)), (second, (2, 0)):
        assert module.total(INTEGERS) == 12
        assert module.total(REALS) == 2.75
        assert found(module.total) == seen
    assert second.peak(REALS) == 2.0
    assert found(second.peak) == (0, 1)
    assert len(kept(source.parent / "__pycache__")) == 3


BROKEN = {
    "emptied": lambda mine, other, foreign: b"",
    "truncated": lambda mine, other, foreign: mine.read_bytes()[:-1000],
    "only a checksum": lambda mine, other, foreign: mine.read_bytes()[:32],
    "one letter": lambda mine, other, foreign: mine.read_bytes().replace(b"tiny.py", b"tiny.px"),
    "garbage": lambda mine, other, foreign: b"garbage" * 1000,
    "the file of another signature": lambda mine, other, foreign: other.read_bytes(),
    "another signature": lambda mine, other, foreign: sealed(mine.name, unsealed(other.name, other.read_bytes())),
    "the file of another kernel": lambda mine, other, foreign: foreign.read_bytes(),
    "machine code that is none": lambda mine, other, foreign: sealed(mine.name, ((typeof(INTEGERS),), ("none",))),
    "something else": lambda mine, other, foreign: sealed(mine.name, None),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_or_foreign_file_is_replaced(source, what):
    folder = source.parent / "__pycache__"
    first = imported(source)
    first.total(INTEGERS)
    (mine,) = kept(folder)
    first.total(REALS)
    (other,) = set(kept(folder)) - {mine}
    first.peak(INTEGERS)
    (foreign,) = kept(folder, "peak")
    sound = mine.read_bytes()
    mine.write_bytes(BROKEN[what](mine, other, foreign))
    assert mine.read_bytes() != sound

    second = imported(source)
    assert second.total(INTEGERS) == 12
    assert found(second.total) == (0, 1)
    third = imported(source)
    assert third.total(INTEGERS) == 12
    assert third.total(REALS) == 2.75
    assert found(third.total) == (2, 0)


def test_the_garbage_collector_stops_for_a_compilation_only(source, monkeypatch):
    """What is switched off and on in every call, by several threads, may end up in either state."""
    seen = []
    monkeypatch.setattr(gc, "disable", lambda: seen.append("disable"))
    monkeypatch.setattr(gc, "enable", lambda: seen.append("enable"))
    module = imported(source)
    module.total(INTEGERS)
    assert seen == ["disable", "enable"]
    logits, labels = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long)
    ls.CrossEntropyLoss()(logits, labels)
    seen.clear()
    ls.CrossEntropyLoss()(logits, labels)
    assert seen == []


def test_the_widest_vectors_for_kernels_alone(source):
    """LLVM would rather not use the 512 bits of an Intel processor; other code of Numba is left as it is."""
    wide = "+avx512f" in registry.cpu_target.target_context.codegen().magic_tuple()[2]
    module = imported(source)
    module.total(INTEGERS)
    (ours,) = module.total.inspect_llvm().values()
    assert (compiler.WIDE in ours) == wide
    other = numba.njit(module.total.py_func)
    other(INTEGERS)
    (theirs,) = other.inspect_llvm().values()
    assert compiler.WIDE not in theirs


def test_a_garbage_collector_that_is_off_stays_off(source):
    gc.disable()
    try:
        imported(source).total(INTEGERS)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_edit_is_noticed_and_leaves_no_old_files(source):
    folder = source.parent / "__pycache__"
    assert imported(source).total(INTEGERS) == 12
    (old,) = kept(folder)
    source.write_text(TINY.replace("+=", "*="))
    assert cache.source_digest(source) not in old.name
    edited = imported(source)
    assert edited.total(INTEGERS) == 60
    assert found(edited.total) == (0, 1)
    (new,) = kept(folder)
    assert new.name.split(".")[2:3] == [cache.source_digest(source)]
    assert new.name.split(".")[3] == old.name.split(".")[3]


def test_a_shared_folder_keeps_the_files_of_other_versions(source, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "shared"))
    imported(source).total(INTEGERS)
    source.write_text(TINY + "# another version")
    imported(source).total(INTEGERS)
    assert len(kept(tmp_path / "shared" / "lossmith")) == 2


def test_the_file_name_says_what_machine_code_depends_on(source, monkeypatch):
    class Codegen:
        def magic_tuple(self):
            return "triple", "cpu", "+avx2"

    class OtherCodegen:
        def magic_tuple(self):
            return "triple", "cpu", ""

    kept = imported(source).total._cache
    names = [
        kept.file_name((typeof(INTEGERS),), Codegen()),
        kept.file_name((typeof(REALS),), Codegen()),
        kept.file_name((typeof(INTEGERS),), OtherCodegen()),
    ]
    for module in (cache.numba, cache.llvmlite, cache.np):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "0")
            names.append(kept.file_name((typeof(INTEGERS),), Codegen()))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", "3.0")
        names.append(kept.file_name((typeof(INTEGERS),), Codegen()))
    with monkeypatch.context() as patch:
        patch.setattr(config, "USING_SVML", not config.USING_SVML)
        names.append(kept.file_name((typeof(INTEGERS),), Codegen()))
    assert len(set(names)) == len(names) == 8
    assert kept.file_name((typeof(INTEGERS),), Codegen()) == names[0]


def test_recompiling_does_not_load(source):
    imported(source).total(INTEGERS)
    module = imported(source)
    module.total(INTEGERS)
    module.total.recompile()
    assert found(module.total) == (1, 1)
    assert module.total(INTEGERS) == 12


def test_the_folders_in_order(source, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    owner = os.geteuid() if hasattr(os, "geteuid") else "user"
    expected = [
        tmp_path / "numba" / "lossmith",
        source.parent / "__pycache__",
        tmp_path / "user" / "lossmith" / "kernels",
        tmp_path / "temporary" / f"lossmith-{owner}",
    ]
    assert [folder.path for folder in cache.folders(source)] == expected
    assert [folder.private for folder in cache.folders(source)] == [False, False, False, True]

    for folder in expected:  # each is taken once those before it cannot be
        module = imported(source)
        module.total(INTEGERS)
        assert [len(kept(each)) for each in expected] == [int(each == folder) for each in expected]
        assert module.total._cache.cache_path == str(expected[0])
        again = imported(source)
        again.total(INTEGERS)
        assert found(again.total) == (1, 0)
        block(folder)


def block(folder: Path) -> None:
    """A file where the folder was: unlike permissions, it stops root as well."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.touch()


def test_a_user_without_a_home_has_no_folder_called_tilde(source, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", str)
    assert all(folder.path.is_absolute() for folder in cache.folders(source))


def no_temporary_folder() -> str:
    raise FileNotFoundError("No usable temporary directory found")


def test_where_nothing_can_be_written_kernels_run(source, tmp_path, monkeypatch):
    block(source.parent / "__pycache__")
    for _ in range(2):
        module = imported(source)
        assert module.total(INTEGERS) == 12
        assert found(module.total) == (0, 1)
    monkeypatch.setattr(tempfile, "gettempdir", no_temporary_folder)
    assert imported(source).total(REALS) == 2.75
    assert not list(tmp_path.rglob("*.kernel*"))


def test_a_write_that_fails_leaves_nothing_and_goes_elsewhere(source, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    replace = Path.replace

    def full(self, target):
        if self.parent.name == "__pycache__":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    assert imported(source).total(INTEGERS) == 12
    assert kept(source.parent / "__pycache__") == []
    assert len(kept(tmp_path / "user" / "lossmith" / "kernels")) == 1


def test_what_cannot_be_pickled_runs(source, monkeypatch):
    def refuses(content):
        raise TypeError("cannot pickle")

    monkeypatch.setattr(cache, "dumps", refuses)
    assert imported(source).total(INTEGERS) == 12


def test_a_kernel_without_a_source_file_runs():
    space: dict = {}
    exec(compile(TINY, "<archive>", "exec"), space | {"__name__": "tiny"}, space)
    assert space["total"](INTEGERS) == 12
    assert space["total"](REALS) == 2.75


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no temporary folder that all users share")
@pytest.mark.parametrize("what", ["ours", "writable by the group", "writable by all", "somebody else's", "a link"])
def test_a_temporary_folder_is_used_only_if_it_is_ours_alone(source, tmp_path, monkeypatch, what):
    block(source.parent / "__pycache__")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    imported(source).total(INTEGERS)
    folder = temporary / f"lossmith-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(kept(folder)) == 1

    if what == "writable by the group":
        folder.chmod(0o770)
    elif what == "writable by all":
        folder.chmod(0o707)
    elif what == "somebody else's":
        monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
        folder = folder.rename(temporary / f"lossmith-{os.geteuid()}")
    elif what == "a link":
        elsewhere = folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(elsewhere)
    module = imported(source)
    assert module.total(INTEGERS) == 12
    assert module.total(REALS) == 2.75
    assert found(module.total) == ((1, 1) if what == "ours" else (0, 2))
    assert len(kept(folder)) == (2 if what == "ours" else 1)


FOLDER = PACKAGE / "engine" / "numba"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_an_edit_of_any_file_of_the_folder_is_noticed(file, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "numba")
    assert cache.folder_digest(tmp_path / "numba") == cache.folder_digest(FOLDER)
    with (tmp_path / "numba" / file.name).open("a") as copy:
        copy.write("#")
    assert cache.folder_digest(tmp_path / "numba") != cache.folder_digest(FOLDER)


def test_the_folder_is_in_every_digest(source, monkeypatch):
    before = cache.source_digest(source)
    monkeypatch.setattr(cache, "_FOLDER", "edited")
    assert cache.source_digest(source) != before
    assert imported(source).total._cache._digest == cache.source_digest(source)


def test_what_is_compiled_into_a_kernel_stands_in_its_file_or_the_folder():
    """The digest in a file's name does not cover what else the kernel's file imports."""
    users = [file for file in PACKAGE.rglob("*.py") if "@kernel(" in file.read_text()]
    assert {file.name for file in users} >= {
        "softmax.py",
        "sigmoid.py",
        "soft.py",
        "ordered.py",
        "mapped.py",
        "boxes.py",
    }
    assert {file.parent.name for file in users} == {"numba", "boxes"}
    pasted = {FOLDER / f"{name}.py" for name in ("arithmetic", "compiler", "curves", "pixels")}
    for file in {*users} | pasted:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                here = node.level == 1 and file.parent == FOLDER
                ours = node.level > 0 or (node.module or "").startswith("lossmith")
                assert here or not ours or node.module == "lossmith.engine.numba.cache", file.name
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("lossmith") for alias in node.names), file.name


# ------------------------------------------------------------------------------------------------ whole processes

LOSSES = """
import torch, lossmith as ls
from lossmith.engine.numba import boxes as b, softmax as s
torch.set_num_threads(1)
logits = torch.linspace(-2, 2, 96).reshape(1, 3, 4, 8).requires_grad_()
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], requires_grad=True)
value = ls.DiceCELoss()(logits, torch.ones(1, 4, 8, dtype=torch.long)) + ls.GIoULoss()(boxes, boxes.detach() + 1)
value.backward()
used = [s.sums, s.gradient, b.fields, b.gradient]
count = lambda counters: sum(sum(counter.values()) for counter in counters)
print(count(k.stats.cache_hits for k in used), count(k.stats.cache_misses for k in used))
print(value.item(), logits.grad.sum(), boxes.grad.tolist())
"""

BOXES = """
import torch, lossmith as ls
from lossmith.engine.numba import boxes as b
torch.set_num_threads(1)
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], requires_grad=True)
value = ls.GIoULoss()(boxes, boxes.detach() + 1)
value.backward()
used = [b.fields, b.gradient]
count = lambda counters: sum(sum(counter.values()) for counter in counters)
print(count(k.stats.cache_hits for k in used), count(k.stats.cache_misses for k in used))
print(value.item(), boxes.grad.tolist())
"""


def environment(**more: str) -> dict[str, str]:
    mine = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return mine | {"PYTHONPATH": str(PACKAGE.parent)} | more


def outcome(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines()


def python(program: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.Popen(command, env=environment(**more), stdout=-1, stderr=-1, text=True)


@pytest.mark.thorough  # the next test says the same of smaller kernels, in a third of the time
def test_the_second_process_compiles_nothing(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "site" / "lossmith", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "temporary").mkdir()
    where = {"PYTHONPATH": str(tmp_path / "site"), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    where |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "temporary")}  # not what this machine keeps there
    cold, value, *_ = outcome(python(LOSSES, **where))
    assert cold == "0 4"
    assert len(list(tmp_path.glob("cache/lossmith/*.kernel"))) == 4
    assert outcome(python(LOSSES, **where)) == ["4 0", value]


@pytest.mark.slow
def test_an_installation_that_is_not_the_users_own(tmp_path):
    """A container that runs as a user without a home: the temporary folder is left."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "lossmith", ignore=shutil.ignore_patterns("__pycache__"))
    block(tmp_path / "site" / "lossmith" / "engine" / "numba" / "__pycache__")
    (tmp_path / "temporary").mkdir()
    where = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path / "site" / "lossmith" / "cli.py")}
    where["TMPDIR"] = str(tmp_path / "temporary")
    cold, value, *_ = outcome(python(BOXES, **where))
    assert cold == "0 2"
    assert len(list(tmp_path.glob("temporary/lossmith-*/*.kernel"))) == 2
    assert outcome(python(BOXES, **where)) == ["2 0", value]


MANY = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np, tiny
number, folder = int(sys.argv[2]), Path(sys.argv[1])
dtypes = [np.int16, np.int64, np.float32]
(folder / f"ready{number}").touch()
for _ in range(2000):
    if len(list(folder.glob("ready*"))) >= 4:
        break
    time.sleep(0.01)  # so that they begin at once
for i in range(len(dtypes)):
    x = np.array([3, 4, 5], dtypes[(i + number) % len(dtypes)])
    assert tiny.total(x) == 12 and tiny.peak(x) == 5, x.dtype
count = lambda counters: sum(sum(counter.values()) for counter in counters)
print(count(k.stats.cache_hits for k in (tiny.total, tiny.peak)), end=" ")
print(count(k.stats.cache_misses for k in (tiny.total, tiny.peak)))
"""


@pytest.mark.slow
def test_processes_that_begin_at_once_do_not_spoil_each_others_files(source):
    together = [python(MANY, str(source.parent), str(number)) for number in range(4)]
    for process in together:
        outcome(process)
    assert outcome(python(MANY, str(source.parent), "4")) == ["6 0"]
    assert len(list((source.parent / "__pycache__").glob("*.kernel*"))) == 6
