"""The commands of docs/articles.md run: one test each, named by the loss or the first words."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

import lossmith as ls
from lossmith.cli import main
from lossmith.names import ALIASES

sys.path.insert(0, str(Path(__file__).parent / "lab"))
from discs import make_folder

PAGE = (Path(__file__).parent.parent / "docs/articles.md").read_text()
SYSTEMS = PAGE.split("## What ours add")[0]
ROWS = [line for line in SYSTEMS.splitlines() if line.startswith("| ") and not line.startswith("| system")]
COMMANDS = list(dict.fromkeys(re.findall(r"`((?:lossmith|python) [^`]+)`", "\n".join(ROWS))))
SMALL = ["--crop", "32", "--batch", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("articles") / "discs")


def of(kind: str) -> list[str]:
    return [command for command in COMMANDS if command.startswith(kind)]


def test_every_row_has_a_command():
    assert len(ROWS) > 50
    for row in ROWS:
        assert re.search(r"\| `(lossmith (show|plot|compare)|python -c) [^`]+` \|$", row), row


def test_losses_that_are_named_exist():
    """Classes by their name in the second column; `ls.` names too."""
    names = {name for row in ROWS for name in re.findall(r"\w+Loss\b", row.split(" | ")[1])}
    names |= {name for row in ROWS for name in re.findall(r"\bls\.(\w+)", row)}
    assert sorted(name for name in names if not hasattr(ls, name)) == []


@pytest.mark.parametrize("command", of("lossmith show"))
def test_show(command, capsys):
    _, _, name = shlex.split(command)
    assert ALIASES.get(name, name) in {row.name for row in ls.catalogue()}, f"{name} is not in the catalogue"
    assert main(["show", name]) == 0
    assert "range" in capsys.readouterr().out


@pytest.mark.parametrize("command", of("python -c"))
def test_python(command, capsys):
    _, _, code = shlex.split(command)
    exec(compile(code, command, "exec"), {})
    printed = capsys.readouterr().out
    assert printed.strip()
    assert "nan" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("command", of("lossmith plot"))
def test_plot(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    assert (tmp_path / command.split()[-1]).stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("command", of("lossmith compare"))
def test_compare(command, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    assert words[1] == "bacteria"
    assert main(["compare", str(folder), *words[2:], *SMALL]) == 0
    assert "report" in capsys.readouterr().out
    assert (tmp_path / words[words.index("--out") + 1] / "report.html").exists()
