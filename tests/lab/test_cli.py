"""The command line: output for people, JSON for machines, and one line and exit code 2 for what the user can mend."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lossmith as ls
from lossmith.cli import main
from lossmith.lab.data.sets import BUILT_IN
from lossmith.lab.run import work

SMALL = ["--steps", "2", "--crop", "32", "--batch", "2", "--device", "cpu"]


def test_compare(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", str(folder), "--loss", "ce", "--loss", "dice", "--seeds", "1", *SMALL, "--out", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "scored highest" in printed
    assert "report.html" in printed
    assert (tmp_path / "report.html").stat().st_size > 1_000_000
    assert main([*command, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["finished"] == 2
    assert main([*command, "--crop", "48"]) == 2
    assert "holds trials with crop = 32, this run has 48" in capsys.readouterr().err


def test_the_help_names_the_built_in_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in BUILT_IN)


def test_the_command_in_the_report_is_the_same_comparison(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", str(folder), "--loss", "dice  +  ce", "--seeds", "1", *SMALL, "--out", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    again = shlex.split(json.loads(capsys.readouterr().out)["command"])
    assert again[:4] == ["lossmith", "compare", str(folder), "--loss"]
    assert main([*again[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 1


def test_ctrl_c(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = work.run_trial

    def interrupted(kind: Any, loss: Any, trial: Any, *rest: Any) -> Any:
        if trial.seed == 1:
            while not any((tmp_path / "trials").glob("*.json")):
                time.sleep(0.01)
            raise KeyboardInterrupt
        return real(kind, loss, trial, *rest)

    monkeypatch.setattr(work, "run_trial", interrupted)
    command = ["compare", str(folder), "--loss", "ce", "--seeds", "2", *SMALL, "--out", str(tmp_path)]
    assert main(command) == 130
    assert "stopped after 1 of 2 trials; the same command resumes" in capsys.readouterr().err
    assert "Unfinished: 1 of 2 trials" in (tmp_path / "report.html").read_text()
    monkeypatch.undo()
    assert main(command) == 0
    assert "Unfinished" not in (tmp_path / "report.html").read_text()


def test_ctrl_c_while_the_lab_is_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(ModuleType):
        @property
        def app(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "lossmith.lab.commands", Slow("commands"))
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "lossmith: stopped\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"DATA": "nowhere"}, "nowhere: neither a folder nor a built-in data set; built in: bacteria"),
        ({"--loss": "nice"}, "no loss is called 'nice'"),
        ({"--crop": "40"}, "--crop 40: must be a multiple of 16"),
        ({"--lr": "-1"}, "--lr -1: must be a positive number, or auto"),
        ({"--lr": "fast"}, "--lr fast: must be a positive number, or auto"),
        ({"--budget": "soon"}, "--budget soon: write a number and s, m or h, for example 20m"),
        ({"--budget": "0m"}, "--budget 0m: write a number"),
        ({"--device": "abacus"}, "--device abacus: not on this machine, which has cpu"),
        ({"--seeds": "0"}, "--seeds"),
        ({"--task": "regression"}, "--task"),
        ({"--out": "/dev/null/out"}, "cannot be written to"),
        ({"--unknown": "1"}, "--unknown"),
        ({"--out": None}, "--out"),
    ],
)
def test_errors_are_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str | None], message: str
) -> None:
    options: dict[str, str | None] = {"--loss": "ce", "--device": "cpu", "--out": str(tmp_path), **change}
    source = options.pop("DATA", str(folder))
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    assert main(["compare", str(source), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lossmith: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_a_loss_given_twice(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(folder), "--loss", "ce", "--loss", " ce", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == 'lossmith: --loss "ce" is given twice; give it once, --seeds repeats it\n'


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(row.name in printed for row in ls.catalogue())
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [row.name for row in ls.catalogue()]


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "focal"]) == 0
    printed = capsys.readouterr().out
    assert "gamma" in printed
    assert "[0, ∞)" in printed
    assert main(["show", "focal", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["fields"]["gamma"] == 2.0
    assert row["range"] == [0.0, None]
    assert row["as_in_paper"]["settings"] == {"gamma": 2.0, "alpha": 0.25}
    assert re.search(r"alpha +None +0\.25", printed)
    assert "@paper    Lin et al. 2017, section 5.1 and table 1b; of one channel" in printed
    assert main(["show", "huber"]) == 0
    assert "@paper    Huber 1964 leaves δ open" in capsys.readouterr().out


def test_show_knows_aliases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "bce", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "ce"


@pytest.mark.parametrize(("name", "message"), [("vocal", "did you mean 'focal'"), ("dice + ce", "a sum of losses")])
def test_show_refuses(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "curves.html"
    assert main(["plot", "focal", "dice + ce", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "Plotly.newPlot(" in out.read_text()
    assert main(["plot", "focal", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["focal"]) >= {"q", "value", "gradient"}
    assert main(["plot", "focal", "--out", str(tmp_path / "no" / "where.html")]) == 2
    assert main(["plot", "vocal"]) == 2


def test_without_the_lab_one_line_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['typer'] = None; from lossmith.cli import main; sys.exit(main(['list']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'lossmith: the command line needs the lab: pip install "lossmith[lab]"\n'


def test_a_budget_that_is_too_small_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lossmith.lab.run.comparison.estimate", lambda *_, **__: 60.0)
    command = ["compare", str(folder), "--loss", "ce", "--loss", "dice", *SMALL, "--out", str(tmp_path)]
    assert main([*command, "--budget", "1s"]) == 0
    said = capsys.readouterr()
    assert "--budget does not reach what comes before any answer: 2 seeds of 2 losses: 4 trials" in said.err
    assert "(everything)" in said.out
    assert "The run is not finished. lossmith compare" in said.out
