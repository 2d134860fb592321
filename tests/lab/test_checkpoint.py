"""A long trial that is interrupted goes on from its checkpoint, and ends as if nothing had happened, bit for bit."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lossmith.lab.data.labelled import Data
from lossmith.lab.kinds.pixels import KIND as PIXELS
from lossmith.lab.run import checkpoint, comparison, records, work
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned, RunSettings

RAMP = "(1 - ramp(start=0, step=0.01, stop=1, name='a'))*dice + ramp(start=0, step=0.01, stop=1, name='a')*ce"
Left = tuple[dict[str, Any], dict[str, list[int]]]
TIMES = {"ms_per_step", "ms_in_loss", "seconds"}


class Interrupting(Watcher):
    """Presses Ctrl-C after some steps; remembers what it was told."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.steps: list[int] = []
        self.lines: list[str] = []

    def said(self, line: str) -> None:
        self.lines.append(line)

    def step(self, trial: Planned, step: int, value: float) -> None:
        self.steps.append(step)
        if step == self.after:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(work, "estimate_seconds", lambda *given: 1.0)


def run(data: Data, settings: RunSettings, out: Path, after: int | None = None, loss: str = RAMP) -> Interrupting:
    watcher = Interrupting(after)
    _, stopped = comparison.Comparison(PIXELS, data, settings).run([loss], out, 1, watcher=watcher)
    assert stopped == (after is not None)
    return watcher


def left(out: Path) -> Left:
    """The one trial of a folder without its times, and its predictions."""
    (trial,) = records.read_trials(out)
    predicted = records.read_predictions(out, trial)
    kept = {key: value for key, value in trial.items() if key not in TIMES | {"predictions_checksum"}}
    return kept, {stem: labels.tolist() for stem, labels in predicted.items()}


@pytest.fixture
def longer(settings: RunSettings) -> RunSettings:
    return replace(settings, steps=8)


@pytest.fixture(scope="module")
def whole(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """What is left of a run that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole")
    settings = RunSettings("discs", data.fingerprint, "multiclass", 8, 32, 2, 1e-2, -100, "cpu", (4, 4, 4, 4, 4, 4))
    run(data, settings, out)
    return left(out)


@pytest.mark.parametrize("moments", [[5], [8], [1, 2, 6]])
def test_interrupted_or_not_is_the_same(
    data: Data, longer: RunSettings, tmp_path: Path, moments: list[int], whole: Left
) -> None:
    """Weights that are averaged, a decay, ramps in the loss, batch statistics, courses: all of it goes on."""
    before = 0
    for moment in moments:
        assert run(data, longer, tmp_path / "parts", moment).steps == list(range(before + 1, moment + 1))
        assert records.read_trials(tmp_path / "parts") == []
        before = moment
    assert run(data, longer, tmp_path / "parts").steps == list(range(before + 1, 9))
    assert left(tmp_path / "parts") == whole
    assert left(tmp_path / "parts")[0]["training"]["step"] == list(range(1, 9))
    assert list((tmp_path / "parts" / "running").iterdir()) == []


def test_the_random_state_goes_on(
    data: Data, longer: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PIXELS.network
    monkeypatch.setattr(PIXELS, "network", lambda *given: torch.nn.Sequential(real(*given), torch.nn.Dropout(0.5)))
    run(data, longer, tmp_path / "whole")
    run(data, longer, tmp_path / "parts", 5)
    torch.rand(5)
    run(data, longer, tmp_path / "parts")
    assert left(tmp_path / "parts") == left(tmp_path / "whole")


def test_the_time_before_counts(data: Data, longer: RunSettings, tmp_path: Path) -> None:
    run(data, longer, tmp_path, 5)
    (path,) = (tmp_path / "running").iterdir()
    stored = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
    stored["history"][-1] += 1000.0
    packed = io.BytesIO()
    torch.save(stored, packed)
    path.write_bytes(hashlib.sha256(packed.getvalue()).digest() + packed.getvalue())
    run(data, longer, tmp_path)
    (trial,) = records.read_trials(tmp_path)
    assert 1000 < trial["seconds"] < 1100


class Hostile:
    """What pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the checkpoint was executed",))


def sealed(content: Any) -> bytes:
    packed = io.BytesIO()
    torch.save(content, packed)
    return hashlib.sha256(packed.getvalue()).digest() + packed.getvalue()


DAMAGE = {
    "cut short": lambda raw: raw[:-100],
    "a bit turned": lambda raw: raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:],
    "hostile": lambda raw: sealed(Hostile()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_set_aside(
    data: Data, longer: RunSettings, tmp_path: Path, damage: str, whole: Left
) -> None:
    run(data, longer, tmp_path / "parts", 5)
    (path,) = (tmp_path / "parts" / "running").iterdir()
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    watcher = run(data, longer, tmp_path / "parts")
    (line,) = watcher.lines
    assert line.startswith(f"{path}: damaged (")
    assert line.endswith(f"set aside in {tmp_path / 'parts' / 'aside'}, its trial starts anew")
    assert "\n" not in line
    assert [p.name for p in (tmp_path / "parts" / "aside").iterdir()] == [f"{path.stem}-1.pt"]
    assert watcher.steps[0] == 1
    assert left(tmp_path / "parts") == whole


@pytest.mark.parametrize("part", ["weights", "torch"])
def test_a_checkpoint_of_other_code_is_not_continued(
    data: Data, longer: RunSettings, tmp_path: Path, part: str
) -> None:
    run(data, longer, tmp_path, 5)
    (path,) = (tmp_path / "running").iterdir()
    stored = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
    stored["same"][part] = "other"
    path.write_bytes(sealed(stored))
    assert run(data, longer, tmp_path).steps[0] == 1


def test_other_settings_have_another_checkpoint(data: Data, longer: RunSettings, tmp_path: Path) -> None:
    run(data, longer, tmp_path, 5)
    assert run(data, replace(longer, lr=1e-3), tmp_path, 3).steps[0] == 1
    assert run(data, longer, tmp_path, 4, loss="ce").steps[0] == 1
    assert len(list((tmp_path / "running").iterdir())) == 3


def test_a_checkpoint_whose_trial_is_finished_goes(data: Data, longer: RunSettings, tmp_path: Path) -> None:
    """Killed after the trial was stored and before its checkpoint went."""
    run(data, longer, tmp_path, 5)
    (path,) = (tmp_path / "running").iterdir()
    kept = path.read_bytes()
    run(data, longer, tmp_path)
    path.write_bytes(kept)
    assert run(data, longer, tmp_path).steps == []
    assert not path.exists()


def test_a_short_trial_leaves_none(
    data: Data, longer: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 60.0)
    run(data, longer, tmp_path, 5)
    assert list((tmp_path / "running").iterdir()) == []
    assert np.isfinite(run(data, longer, tmp_path).steps).all()
