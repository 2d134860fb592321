"""Watchers that pass progress on to where people look at it: TensorBoard, Weights & Biases, MLflow.

Each trial is a run of its own, named after loss and seed. It shows the value of the loss (units differ from loss to
loss), the score on the watched images, and at the end every metric of the held-back images. The packages are imported
when a watcher is made, and only that of the watcher.
"""

from __future__ import annotations

import hashlib
import re
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from lossmith.lab import UserError
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned

_LONGEST = 60


class Tracker(Watcher):
    """What the three share: a run for each trial, begun with its first number and ended with its record.

    Another place to look is a subclass with `begin`, `log` and `end`; a run is whatever `begin` gives.
    """

    def __init__(self) -> None:
        self._runs: dict[Planned, Any] = {}
        self._lock = threading.Lock()  # trials run at once, and these packages do not all take that well

    def begin(self, name: str, trial: Planned) -> Any:
        """A new run."""
        raise NotImplementedError

    def log(self, run: Any, values: dict[str, float], step: int) -> None:
        """Numbers of a run after a step."""
        raise NotImplementedError

    def end(self, run: Any) -> None:
        """Nothing more will come."""
        raise NotImplementedError

    def step(self, trial: Planned, step: int, value: float) -> None:
        self._log(trial, {"training/loss": value}, step)

    def scored(self, trial: Planned, step: int, score: float) -> None:
        self._log(trial, {"validation/score": score}, step)

    def finished(self, trial: Planned, record: dict[str, Any]) -> None:
        metrics = {f"final/{name}": v for name, v in (record["metrics"] or {}).items() if v is not None}
        self._log(trial, metrics, record["settings"]["steps"])
        with self._lock:
            self.end(self._runs.pop(trial))

    def _log(self, trial: Planned, values: dict[str, float], step: int) -> None:
        with self._lock:
            if trial not in self._runs:
                self._runs[trial] = self.begin(run_name(trial), trial)
            self.log(self._runs[trial], values, step)


class TensorBoard(Tracker):
    """Event files, a folder for each trial."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._writer = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._folder = Path(folder)

    def begin(self, name: str, trial: Planned) -> Any:
        return self._writer(str(self._folder / name))

    def log(self, run: Any, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            run.add_scalar(name, value, step)

    def end(self, run: Any) -> None:
        run.close()


class WeightsAndBiases(Tracker):
    """Runs of a project on wandb, in the group of the loss."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self._wandb = _package("wandb", "wandb")
        self._project = project

    def begin(self, name: str, trial: Planned) -> Any:
        return self._wandb.init(
            project=self._project, name=name, group=trial.loss, config=trial._asdict(), reinit="create_new"
        )

    def log(self, run: Any, values: dict[str, float], step: int) -> None:
        run.log(values, step=step)

    def end(self, run: Any) -> None:
        run.finish()


class MLflow(Tracker):
    """Runs of an experiment on the MLflow server that MLFLOW_TRACKING_URI names."""

    def __init__(self, experiment: str) -> None:
        super().__init__()
        self._client = _package("mlflow", "mlflow").MlflowClient()
        known = self._client.get_experiment_by_name(experiment)
        self._experiment = known.experiment_id if known else self._client.create_experiment(experiment)

    def begin(self, name: str, trial: Planned) -> Any:
        run = self._client.create_run(self._experiment, run_name=name).info.run_id
        for key, value in trial._asdict().items():
            self._client.log_param(run, key, value)
        return run

    def log(self, run: Any, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(run, name, value, step=step)

    def end(self, run: Any) -> None:
        self._client.set_terminated(run)


def run_name(trial: Planned) -> str:
    """A name for files and lists, another for each loss, seed and rate."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", trial.loss).strip("-.")[:_LONGEST]
    known = hashlib.sha256(f"{trial.loss} {trial.lr}".encode()).hexdigest()[:6]
    return f"{plain}-{known}-seed{trial.seed}"


def _package(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"--{package}: needs a package that is not there; pip install {package}") from error
