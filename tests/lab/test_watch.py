"""What watches a comparison: event files that TensorBoard reads back, and doubles that stand for wandb and mlflow."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from advice import Said, follows
from discs import make_folder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab.run.records import read_trials
from lossmith.lab.run.trackers import MLflow, TensorBoard, Tracker, WeightsAndBiases, run_name
from lossmith.lab.run.watch import Watchers
from lossmith.lab.settings import Planned

FIRST, SECOND = Planned("dice + 0.5*ce", 0, 1e-3), Planned("dice + 0.5*ce", 1, 1e-3)
RECORD = {"settings": {"steps": 2}, "metrics": {"dice": 0.75, "hd95": None}}


def told(watcher: Any) -> None:
    """What a comparison tells of two trials that run side by side."""
    watcher.said("a line")
    watcher.planned([FIRST, SECOND], "two")
    for step in (1, 2):
        for trial in (FIRST, SECOND):
            watcher.step(trial, step, 1 / step + trial.seed)
    watcher.scored(FIRST, 2, 0.5)
    for trial in (SECOND, FIRST):
        watcher.finished(trial, RECORD)


def test_tensorboard_reads_a_comparison(tmp_path: Path) -> None:
    discs = make_folder(tmp_path / "mine", images=4, size=32)
    out, events = tmp_path / "out", tmp_path / "events"
    words = ["compare", discs, "--loss", "ce", "--loss", "dice + ce", "--seeds", 1, "--steps", 5, "--crop", 32]
    words += ["--batch", 2, "--device", "cpu", "--out", out, "--tensorboard", events]
    assert main([str(word) for word in words]) == 0
    trials = read_trials(out)
    assert len(trials) == len(list(events.iterdir())) == 2
    for trial in trials:
        run = EventAccumulator(str(events / run_name(Planned(trial["loss"], trial["seed"], trial["lr"]))))
        run.Reload()
        losses = run.Scalars("training/loss")
        assert [e.step for e in losses] == [1, 2, 3, 4, 5]
        assert [e.value for e in losses] == pytest.approx(trial["training"]["loss"])
        assert [e.value for e in run.Scalars("validation/score")] == pytest.approx(trial["validation"]["score"])
        assert [e.step for e in run.Scalars("validation/score")] == trial["validation"]["step"]
        (dice,) = run.Scalars("final/dice")
        assert (dice.step, dice.value) == (5, pytest.approx(trial["metrics"]["dice"]))


def test_weights_and_biases_gets_a_run_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A double stands for the package: what it is called with is what its documentation says."""
    logged: list[Any] = []

    class Run:
        def __init__(self, **given: Any) -> None:
            self.given = given
            logged.append(("init", given))

        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((self.given["name"], values, step))

        def finish(self) -> None:
            logged.append((self.given["name"], "finished"))

    double = ModuleType("wandb")
    double.init = Run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", double)
    told(WeightsAndBiases("losses"))
    first, second = run_name(FIRST), run_name(SECOND)
    assert first != second
    begun = [entry[1] for entry in logged if entry[0] == "init"]
    assert [b["name"] for b in begun] == [first, second]
    assert begun[0]["project"] == "losses"
    assert begun[0]["config"] == {"loss": "dice + 0.5*ce", "seed": 0, "lr": 1e-3}
    assert (first, {"training/loss": 0.5}, 2) in logged
    assert (first, {"validation/score": 0.5}, 2) in logged
    assert logged[-2:] == [(first, {"final/dice": 0.75}, 2), (first, "finished")]


def test_mlflow_gets_a_run_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    class Client:
        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return f"id of {name}"

        def create_run(self, experiment: str, run_name: str) -> Any:
            return SimpleNamespace(info=SimpleNamespace(run_id=f"{experiment}/{run_name}"))

        def __getattr__(self, method: str) -> Any:
            return lambda *given, **more: calls.append((method, *given, *more.values()))

    double = ModuleType("mlflow")
    double.MlflowClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", double)
    told(MLflow("losses"))
    run = f"id of losses/{run_name(SECOND)}"
    assert [call for call in calls if call[1] == run] == [
        *(("log_param", run, key, value) for key, value in SECOND._asdict().items()),
        ("log_metric", run, "training/loss", 2.0, 1),
        ("log_metric", run, "training/loss", 1.5, 2),
        ("log_metric", run, "final/dice", 0.75, 2),
        ("set_terminated", run),
    ]


def test_a_tracker_is_three_methods() -> None:
    class Lines(Tracker):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def begin(self, name: str, trial: Planned) -> str:
            self.lines.append(f"{name} begins")
            return name

        def log(self, run: str, values: dict[str, float], step: int) -> None:
            self.lines.append(f"{run} {step} {values}")

        def end(self, run: str) -> None:
            self.lines.append(f"{run} ends")

    one, other = Lines(), Lines()
    told(Watchers([one, other]))
    assert one.lines == other.lines
    assert sum(line.endswith("ends") for line in one.lines) == sum(line.endswith("begins") for line in one.lines) == 2


@follows("needs a package that is not there", "pip install {}")
@pytest.mark.parametrize("package", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_not_there(
    package: str, discs: Path, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["compare", discs, f"--{package}", str(tmp_path / "place")]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch.utils.tensorboard" if package == "tensorboard" else package, None)
        assert said(*words) == f"--{package}: needs a package that is not there; pip install {package}"
        with pytest.raises(UserError):
            {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}[package]("x")
    if package == "tensorboard":
        assert said(*words) == ""
