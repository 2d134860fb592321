"""Kills a comparison again and again with signal 9, starts it again, and looks at what is left each time.

    python tests/lab/killing.py [times] [seed]

Half of the kills come at a random moment, the others at a random call that puts something on the disk, just before it
or just after. Each time every finished trial is still there, byte for byte, and whole; when a run is left in peace it
completes, and its trials are those of a run that was never killed, bit for bit. test_killing.py does this a few times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # by hand as in pytest
import torch
from discs import make_folder

import lossmith as ls
from lossmith.cli import main
from lossmith.lab.kinds import kind_of
from lossmith.lab.page import report
from lossmith.lab.run import checkpoint, records, work
from lossmith.lab.settings import Asked

LOSSES = ("ce", "(1 - ramp(start=0, step=0.01, stop=1, name='a'))*dice + ramp(start=0, step=0.01, stop=1, name='a')*ce")
SEEDS = 2
TIMES = {"ms_per_step", "ms_in_loss", "seconds", "checksum", "predictions_checksum", "machine"}


def start(data: Path, out: Path, log: Path, die_at: int | None = None) -> int:
    """A comparison in a process of its own, which kills itself at a call that writes; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        for number in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        torch.set_num_threads(2)  # so many trials at once
        checkpoint.SECONDS = 0.02
        report._page = lambda *given: "x" * 1_000_000 + "</html>"  # what matters is its way to the disk
        work.estimate_seconds = lambda *given: 1.0
        count_writes(die_at, log)
        words = ["compare", data, "--out", out, "--seeds", SEEDS, "--steps", 12, "--batch", 2, "--crop", 32]
        code = main(
            [str(word) for word in [*words, "--device", "cpu", *(x for loss in LOSSES for x in ("--loss", loss))]]
        )
    finally:
        os._exit(code)


def warm_up(data: Path) -> None:
    """Loads here what every child would load; one thread and no gradient, so that it is safe to fork."""
    torch.set_num_threads(1)
    kind = kind_of(data)
    read = kind.read(data, Asked(str(data)))
    settings = kind.settings(read, Asked(str(data), crop=32, batch=2))
    image, label = kind.crops(read, settings, 0).batch(0)
    with torch.no_grad():
        for loss in LOSSES:
            ls.parse(loss)(kind.network(read, settings)(image), label)


def count_writes(die_at: int | None, log: Path) -> None:
    """Makes this process kill itself before or after so many of the calls that put something on the disk."""
    seen = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any, **more: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*given, **more)
            seen += 1
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counting

    for name in ("fsync", "replace", "rename", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def finished(out: Path) -> dict[str, tuple[bytes, bytes, int]]:
    """What each finished trial is, to the byte, and when it was written. Fails for one that is not whole."""
    if not (out / "trials").is_dir():
        return {}
    for name, end in (("results.json", "}"), ("report.html", "</html>")):
        if (out / name).exists():
            assert (out / name).read_text().rstrip().endswith(end), f"{name} is cut short"
    found = {}
    for trial in records.read_trials(out):  # raises for one that is damaged
        path = out / "trials" / f"{trial['hash']}.json"
        stored = (out / "predictions" / f"{trial['hash']}.npz").read_bytes()
        assert records.read_predictions(out, trial)
        found[trial["hash"]] = (path.read_bytes(), stored, path.stat().st_mtime_ns)
    return found


def bare(out: Path) -> dict[str, Any]:
    """All trials without their times."""
    whole = {(t["loss"], t["seed"]): {k: v for k, v in t.items() if k not in TIMES} for t in records.read_trials(out)}
    assert len(whole) == len(records.read_trials(out)) == SEEDS * len(LOSSES), "a trial is missing, or there twice"
    return whole


def kill(times: int, seed: int, folder: Path) -> None:
    """Raises AssertionError, or `UserError`, for the first thing that is not as it should be."""
    chance = random.Random(seed)
    data, log = make_folder(folder / "data", images=4, size=32), folder / "log"
    warm_up(data)
    began = time.monotonic()
    assert os.waitpid(start(data, folder / "whole", log), 0)[1] == 0, log.read_text()
    seconds = time.monotonic() - began
    expected = bare(folder / "whole")
    killed, rounds, kept_by_kill = 0, 0, []
    while killed < times:
        out, before = folder / f"out{rounds}", {}
        while True:
            last = killed >= times
            by_call = not last and chance.random() < 0.5
            child = start(data, out, log, chance.randrange(1, 250) if by_call else None)
            if not by_call and not last:
                time.sleep(chance.uniform(0, seconds))
                os.kill(child, signal.SIGKILL)  # it may have ended by itself: then this does nothing
            status = os.waitpid(child, 0)[1]
            after = finished(out)
            assert before.items() <= after.items(), "a finished trial was lost, or made again"
            before = after
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, log.read_text()
                break
            killed += 1
            kept_by_kill.append(len(after))
        rounds += 1
        assert bare(out) == expected, "other numbers than without a kill"
        assert not list(out.rglob(".lossmith-*")), "something unfinished was left"
        assert not list((out / "running").iterdir()), "a checkpoint was left"
        assert not (out / "aside").exists(), "something was damaged"
        assert json.loads((out / "results.json").read_text())["finished"] == SEEDS * len(LOSSES)
    assert "damaged" not in log.read_text()
    print(f"killed {killed} times (seed {seed}), completed {rounds} comparisons; finished trials found: {kept_by_kill}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        kill(int(sys.argv[1]) if len(sys.argv) > 1 else 50, int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(scratch))
