"""The same trials here and on a Ray cluster of two workers, of which some die; Ctrl-C there."""

import importlib
import os
import pickle
import signal
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from advice import Said, follows

from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data
from lossmith.lab.data.stored import OnDisk, Store
from lossmith.lab.kinds.pixels import KIND, PixelKind
from lossmith.lab.run.comparison import Comparison
from lossmith.lab.run.crops import LabelledCrops
from lossmith.lab.run.local import LocalEngine
from lossmith.lab.run.records import read_predictions
from lossmith.lab.run.relay import Relay, tell
from lossmith.lab.run.watch import Watcher
from lossmith.lab.settings import Planned, RunSettings

LOSSES = ["dice(per_image=false) + ce", "focal"]
TIMES = {"seconds", "ms_per_step", "ms_in_loss", "checksum"}  # the last is over the others
NO_RAY = "the extra `ray` is not installed: no cluster to run on"
ROOT = Path(__file__).parents[2]
DEADLY_STEP = 3
SLOW = 10_000


class Mortal(PixelKind):
    """Ends its process, as a machine that fails does, in as many trials of seed 1 as `lives` has files."""

    def __init__(self, lives: Path) -> None:
        self.lives = lives

    def crops(self, data: Data, settings: RunSettings, seed: int) -> Any:
        return Deadly(data, settings, seed, self.lives)


class Deadly(LabelledCrops):
    def __init__(self, data: Data, settings: RunSettings, seed: int, lives: Path) -> None:
        super().__init__(data, settings, seed)
        self.lives = lives if seed == 1 else None

    def batch(self, step: int) -> Any:
        if self.lives and step == DEADLY_STEP:
            for life in list(self.lives.iterdir())[:1]:
                life.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(step)


class Lines(Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: dict[Planned, list[int]] = {}

    def said(self, line: str) -> None:
        self.lines.append(line)

    def step(self, trial: Planned, step: int, value: float) -> None:
        self.steps.setdefault(trial, []).append(step)


def on_ray() -> Any:
    pytest.importorskip("ray", reason=NO_RAY)
    return importlib.import_module("lossmith.lab.run.on_ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason=NO_RAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # Ray's 15 lets its workers starve beside the other tests
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not look for modules among tests
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


def test_what_a_trial_tells_arrives() -> None:
    there, here = [], Lines()
    relay, trial = Relay(there.append), Planned("ce", 0, 0.01)
    relay.step(trial, 1, 0.5)
    relay.said("a line")
    relay.step(trial, 2, 0.4)
    tell(there, here)
    assert here.lines == ["a line"]
    assert here.steps == {trial: [1, 2]}


def test_a_cpu_has_a_core_for_each_trial_and_others_one_trial() -> None:
    assert LocalEngine("cpu").at_once >= 1
    assert LocalEngine("cpu", 2).at_once == 1


def test_data_that_stream_travel_whole() -> None:
    array = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    stored = Store(bound=0).keep(array)
    assert isinstance(stored, OnDisk)
    arrived = pickle.loads(pickle.dumps(stored))
    assert arrived.dtype == array.dtype
    assert (arrived == array).all()


class Cluster(LocalEngine):
    """A double of `RayEngine`, which needs a cluster."""

    def __init__(self, address: str | None, device: str, devices: int) -> None:
        super().__init__("cpu", devices)
        self.device = "cpu"


@follows("give --engine ray too")
def test_an_address_without_ray(discs: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    line = said("compare", discs, "--address", "here:6379")
    assert line == "--address here:6379: is that of a Ray cluster; give --engine ray too"
    monkeypatch.setattr(on_ray(), "RayEngine", Cluster)
    assert said("compare", discs, "--address", "here:6379", "--engine", "ray") == ""


@follows('install "lossmith[lab,ray]"')
def test_ray_is_missing(discs: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "lossmith.lab.run.on_ray", raising=False)
    line = said("compare", discs, "--engine", "ray")
    assert line == '--engine ray: the package ray is missing; install "lossmith[lab,ray]"'
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name.partition(">")[0] for name in extras["ray"]] == ["ray"]


@follows("choose another --device or fewer --devices")
def test_a_cluster_that_no_trial_fits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ray = on_ray().RayEngine, on_ray().ray
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "memory": 1e9})
    for device, devices in (("cpu", 3), ("cuda", 1)):
        with pytest.raises(UserError, match="cluster of 2 cores and 0 GPUs; choose another --device or fewer"):
            engine(None, device, devices)
    assert engine(None, "cpu", 2).at_once == 1
    assert engine(None, "auto", 1).device == "cpu"
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    assert (engine(None, "auto", 2).device, engine(None, "auto", 2).at_once) == ("cuda", 4)


@follows("install the same packages on every machine of the cluster")
def test_a_worker_without_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = on_ray()
    monkeypatch.setattr(module.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(module.ray, "cluster_resources", lambda: {"CPU": 2.0})
    engine = module.RayEngine(None, "cpu")
    failed = module.RayTaskError("task", "traceback", ModuleNotFoundError("No module named 'lossmith'"))

    def result(*_: Any) -> Any:
        raise failed

    monkeypatch.setattr(engine, "_result", result)
    with pytest.raises(UserError, match=r"cannot begin \(No module named 'lossmith'\); install the same packages"):
        engine.run("ce, seed 0", None, Watcher())
    failed.cause = ValueError("a fault of the work itself")
    with pytest.raises(ValueError, match="a fault of the work itself"):
        engine.run("ce, seed 0", None, Watcher())


@pytest.mark.slow
def test_a_cluster_gives_the_same_records_though_workers_die(
    cluster: None, data: Data, settings: RunSettings, tmp_path: Path
) -> None:
    from lossmith.lab.run.on_ray import RayEngine

    settings = replace(settings, steps=6)
    lives = tmp_path / "lives"
    lives.mkdir()
    for life in "ab":
        (lives / life).touch()
    here, _ = Comparison(KIND, data, settings).run(LOSSES, tmp_path / "here", 2)
    kind, seen = Mortal(lives), Lines()
    with (
        RayEngine(None, "cpu", retries=0) as engine,
        pytest.raises(UserError, match=r"seed 1: the worker died .*, 1 times; what is finished is kept"),
    ):
        Comparison(kind, data, settings).run(LOSSES, tmp_path / "there", 2, watcher=seen, engine=engine)
    finished = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "there/trials").iterdir()}
    assert finished
    with RayEngine(None, "auto") as engine:
        assert engine.device == "cpu"
        assert engine.at_once == 2
        there, stopped = Comparison(kind, data, settings).run(
            LOSSES, tmp_path / "there", 2, watcher=seen, engine=engine
        )
    assert not stopped
    (line,) = seen.lines
    assert "seed 1: the worker died (WorkerCrashedError); it begins again" in line
    assert all(steps[-6:] == [1, 2, 3, 4, 5, 6] for steps in seen.steps.values())
    assert finished.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "there/trials").iterdir()}.items()

    assert len(here) == len(there) == 4
    for one, other in zip(*(sorted(trials, key=lambda t: t["hash"]) for trials in (here, there)), strict=True):
        assert {name for name in one if one[name] != other.get(name)} <= TIMES | {"machine"}
        assert one.keys() == other.keys()
        assert one["machine"]["threads_per_trial"] == other["machine"]["threads_per_trial"] == 1
        mine, theirs = read_predictions(tmp_path / "here", one), read_predictions(tmp_path / "there", other)
        assert all((mine[stem] == theirs[stem]).all() for stem in mine.keys() | theirs.keys())


@pytest.mark.slow
def test_ctrl_c_ends_what_the_cluster_does(cluster: None, data: Data, settings: RunSettings, tmp_path: Path) -> None:
    from lossmith.lab.run.on_ray import RayEngine

    class Impatient(Lines):
        def step(self, trial: Planned, step: int, value: float) -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with RayEngine(None, "cpu") as engine:
        trials, stopped = Comparison(KIND, data, replace(settings, steps=SLOW)).run(
            ["ce"], tmp_path, 3, watcher=Impatient(), engine=engine
        )
    assert stopped
    assert trials == []
