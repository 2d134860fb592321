"""Work on a Ray cluster: each trial is a task, on one core or on as many GPUs as it trains on.

The data go into the cluster's object store once. A trial whose worker dies is begun again elsewhere, as it would be
here: its seed decides everything. Nothing is written on the cluster; records are stored where the comparison runs.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from lossmith.lab import UserError
from lossmith.lab.kind import Kind
from lossmith.lab.run.engine import Engine, T, Work
from lossmith.lab.run.relay import SECONDS, Relay, Told, tell, waiting
from lossmith.lab.run.watch import Watcher

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what will be usual, and spares a warning
RETRIES = 3


class RayEngine(Engine):
    """Joins a cluster, unless this process already has; then the address means nothing.

    Args:
        address: of the cluster's head, "host:6379"; "auto" for the one that this machine belongs to; None for what
            RAY_ADDRESS says, else for a cluster of this machine alone.
        device: what trials train on; "auto" for GPUs if the cluster has some.
        devices: on how many each trains.
        retries: how often a trial is begun again whose worker died.

    Raises `UserError` if there is no such cluster, or if nothing in it could run a trial.
    """

    def __init__(self, address: str | None, device: str, devices: int = 1, retries: int = RETRIES) -> None:
        self._joined = not ray.is_initialized()
        if self._joined:
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **_quiet(address))
            except Exception as error:  # each way not to reach a cluster has its own
                raise UserError(f"--engine ray --address {address}: {str(error).splitlines()[0]}") from error
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.device = ("cuda" if there.get("GPU") else "cpu") if device == "auto" else device
        self.at_once = int(there.get("CPU" if self.device == "cpu" else "GPU", 0)) // devices
        if not self.at_once:
            self.close()
            have = {name: int(there.get(name, 0)) for name in ("CPU", "GPU")}
            raise UserError(
                f"--engine ray: no trial fits on a cluster of {have['CPU']} cores and {have['GPU']} GPUs; "
                "choose another --device or fewer --devices"
            )
        needs: dict[str, Any] = {"num_cpus": devices} if self.device == "cpu" else {"num_gpus": devices}
        self._task: Any = ray.remote(max_retries=0, num_returns="streaming", **needs)(_task)
        self._retries = retries
        self._running: set[Any] = set()

    def share(self, kind: Kind, data: Any) -> None:
        self._stopped = False
        self._shared = ray.put((kind, data))

    def run(self, what: str, work: Work[T], watcher: Watcher) -> T:
        for again in range(self._retries, -1, -1):
            try:
                return self._result(work, watcher)
            except RayTaskError as error:
                if isinstance(error.cause, RayError | ImportError):
                    raise UserError(
                        f"--engine ray: a worker cannot begin ({str(error.cause).splitlines()[0]}); install the same "
                        "packages on every machine of the cluster"
                    ) from error
                raise error.cause from error
            except RayError as error:
                if self._stopped:
                    raise CancelledError from error
                died = f"the worker died ({type(error).__name__})"
                if not again:
                    raise UserError(
                        f"{what}: {died}, {self._retries + 1} times; what is finished is kept, the same command resumes"
                    ) from error
                watcher.said(f"{what}: {died}; it begins again on another")
        raise AssertionError

    def _result(self, work: Work[T], watcher: Watcher) -> T:
        answers = self._task.remote(work, self.device, self._shared)
        results: list[T] = []
        self._running.add(answers)
        try:
            if self._stopped:
                raise CancelledError
            for answer in answers:
                told, results = ray.get(answer)
                tell(told, watcher)
        except RayError:
            raise
        except BaseException:  # the watcher's: the work is stopped
            ray.cancel(answers, force=True)
            raise
        finally:
            self._running.discard(answers)
        return results[0]

    def stop(self) -> None:
        self._stopped = True
        for answers in list(self._running):
            ray.cancel(answers, force=True)

    def close(self) -> None:
        if self._joined:
            ray.shutdown()


def _quiet(address: str | None) -> dict[str, Any]:
    """A cluster of one's own needs no page that shows it; another has its own mind."""
    return {} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}


def _task(work: Work[T], device: str, shared: tuple[Kind, Any]) -> Iterator[tuple[list[Told], list[T]]]:
    """In the cluster: what the work tells, every now and then, and at last what comes out."""
    import torch

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # the store's are not
    told: SimpleQueue[Told] = SimpleQueue()

    def whole() -> T:
        if device == "cpu":
            torch.set_num_threads(1)
        return work(*shared, Relay(told.put))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(whole)
        while not wait([running], timeout=SECONDS).done:
            yield waiting(told), []
        result = running.result()
        yield waiting(told), [result]
