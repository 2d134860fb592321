"""The folder of a comparison after a crash: nothing half written is read, nothing finished is lost or run again."""

import errno
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lossmith.lab import UserError
from lossmith.lab.run import records
from lossmith.lab.settings import RunSettings

SETTINGS = asdict(RunSettings("discs", "print", "multiclass", 4, 32, 2, 1e-2, -100, "cpu"))
PREDICTED = {"disc0": np.arange(6).reshape(2, 3)}


def trial_of(loss: str) -> dict[str, Any]:
    return {"settings": SETTINGS, "loss": loss, "meaning": f"Loss({loss})", "seed": 0, "lr": 1e-2, "score": 0.1 + 0.2}


def save(out: Path, loss: str = "ce", **more: Any) -> Path:
    """A finished trial; returns its JSON."""
    before = set((out / "trials").glob("*.json")) if out.exists() else set()
    records.make_folders(out)
    records.save({**trial_of(loss), **more}, PREDICTED, out)
    (new,) = set((out / "trials").glob("*.json")) - before
    return new


def losses(out: Path) -> set[str]:
    return {trial["loss"] for trial in records.read_trials(out)}


def reopened(out: Path) -> list[str]:
    """What is said when the folder is opened again."""
    said: list[str] = []
    with records.opened(out, said.append):
        pass
    return said


def test_a_trial_comes_back_as_it_was(tmp_path: Path) -> None:
    path = save(tmp_path, classes=["<b>", "größer"], nothing=None)
    assert reopened(tmp_path) == []
    (trial,) = records.read_trials(tmp_path)
    assert trial["hash"] == path.stem
    assert (trial["score"], trial["classes"], trial["nothing"]) == (0.1 + 0.2, ["<b>", "größer"], None)
    assert records.read_predictions(tmp_path, trial)["disc0"].tolist() == [[0, 1, 2], [3, 4, 5]]


DAMAGE = {
    "empty": lambda raw: b"",
    "cut short": lambda raw: raw[: len(raw) // 2],
    "the last byte missing": lambda raw: raw[:-1],
    "a digit changed": lambda raw: raw.replace(b"0.3000", b"0.4000"),
    "no text": lambda raw: b"\xff\xfe" + raw,
    "a block of zeros": lambda raw: raw[:40] + bytes(40) + raw[80:],
    "nested without end": lambda raw: b"[" * 100_000,
    "no trial": lambda raw: b"{}",
    "a list": lambda raw: b"[]",
    "another trial's": lambda raw: raw.replace(b'"seed": 0', b'"seed": 1'),
    "no checksum": lambda raw: raw.replace(b'"checksum"', b'"no checksum"'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_trial_is_named_set_aside_and_missing(damage: str, tmp_path: Path) -> None:
    save(tmp_path, "dice")
    path = save(tmp_path, "ce")
    raw = DAMAGE[damage](path.read_bytes())
    assert raw != path.read_bytes()
    path.write_bytes(raw)
    with pytest.raises(UserError, match="damaged") as caught:
        records.read_trials(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    (line,) = reopened(tmp_path)
    assert line.startswith(f"{path}: damaged (")
    assert line.endswith(f"set aside in {tmp_path / 'aside'}, that trial runs again")
    assert "\n" not in line
    assert losses(tmp_path) == {"dice"}
    assert {p.suffix: p.read_bytes() for p in (tmp_path / "aside").iterdir()}[".json"] == raw
    assert len(list((tmp_path / "aside").iterdir())) == 2
    assert save(tmp_path, "ce") == path
    assert reopened(tmp_path) == []
    assert losses(tmp_path) == {"ce", "dice"}


def test_damaged_predictions_take_their_trial_with_them(tmp_path: Path) -> None:
    path = save(tmp_path)
    stored = tmp_path / "predictions" / f"{path.stem}.npz"
    for n in (1, 2):  # what is aside already stays
        stored.write_bytes(stored.read_bytes()[:-3])
        (line,) = reopened(tmp_path)
        assert f"{path}: damaged (the checksum of its predictions" in line
        assert losses(tmp_path) == set()
        assert len(list((tmp_path / "aside").iterdir())) == 2 * n
        save(tmp_path)


def test_a_copy_of_a_trial_does_not_count_twice(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "trials" / "copy.json").write_bytes(path.read_bytes())
    assert len(reopened(tmp_path)) == 1
    assert len(records.read_trials(tmp_path)) == 1


def test_another_layout_of_the_json_is_no_damage(tmp_path: Path) -> None:
    path = save(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert reopened(tmp_path) == []
    assert losses(tmp_path) == {"ce"}


def test_predictions_that_somebody_deleted_are_no_damage(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "predictions" / f"{path.stem}.npz").unlink()
    assert reopened(tmp_path) == []
    (trial,) = records.read_trials(tmp_path)
    assert records.read_predictions(tmp_path, trial) == {}


def test_a_trial_of_another_version_is_not_set_aside(tmp_path: Path) -> None:
    path = save(tmp_path)
    trial = json.loads(path.read_text())
    del trial["checksum"], trial["predictions_checksum"], trial["lr"]
    trial["settings"]["record"] = 1
    path.write_text(json.dumps(trial))
    for ask in (reopened, records.read_trials):
        with pytest.raises(
            UserError, match=r"trials of another version of lossmith .record 1, now .*choose another --out"
        ):
            ask(tmp_path)
    assert path.exists()


def test_what_a_killed_run_left_unfinished_goes_and_other_files_stay(tmp_path: Path) -> None:
    path = save(tmp_path)
    for folder in (tmp_path, tmp_path / "trials", tmp_path / "predictions"):
        (folder / ".lossmith-8d_x1").write_bytes(path.read_bytes()[:100])
        (folder / ".mine").touch()
    assert losses(tmp_path) == {"ce"}  # they are not read before either
    assert reopened(tmp_path) == []
    assert not list(tmp_path.rglob(".lossmith-*"))
    assert len(list(tmp_path.rglob(".mine"))) == 3


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, name, folder; the predictions before the JSON that makes their trial finished."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        done.append(f"sync {path.name if path.is_dir() else 'file'}")
        sync(handle)

    def named(old: str, new: Path) -> None:
        assert Path(old).parent == new.parent
        assert Path(old).name.startswith(".lossmith-")  # what the next run would clear away
        done.append(f"name {new.parent.name}")
        replace(old, new)

    records.make_folders(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", named)
    records.save(trial_of("ce"), PREDICTED, tmp_path)
    each = ["sync file", "name {}", "sync {}"]
    assert done == [step.format(part) for part in ("predictions", "trials") for step in each]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_takes_no_more(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "dice")
    records.write(tmp_path / "results.json", "old")

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=os.strerror(number)) as caught:
            records.save(trial_of("ce"), PREDICTED, tmp_path)
        assert "what was written before is kept" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match=f"results.json: cannot be written .{os.strerror(number)}"):
            records.write(tmp_path / "results.json", "new")
    assert (tmp_path / "results.json").read_text() == "old"
    assert losses(tmp_path) == {"dice"}
    assert not list(tmp_path.rglob(".lossmith-*"))


# ------------------------------------------------------------------------------------------------ the lock

HOLD = "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True)"
HOLD += "; time.sleep(60)"


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            (tmp_path / ".lock-owner").write_text(f"process {holder.pid} on somewhere")
            with pytest.raises(UserError) as caught, records.opened(tmp_path):
                pass
            assert f"process {holder.pid} on " in str(caught.value)
            assert str(caught.value).endswith("is writing there; wait for it, or choose another --out")
            assert losses(tmp_path) == set()  # who only reads may
        finally:
            holder.kill()
    assert reopened(tmp_path) == []  # nobody has to delete anything


def test_the_lock_is_given_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), records.opened(tmp_path):
        raise KeyboardInterrupt
    assert reopened(tmp_path) == reopened(tmp_path) == []


def test_threads_of_a_process_are_refused_too(tmp_path: Path) -> None:
    with records.opened(tmp_path), ThreadPoolExecutor(1) as pool:
        with pytest.raises(UserError, match=f"process {os.getpid()} on {platform.node()} is writing"):
            pool.submit(reopened, tmp_path).result()
        assert reopened(tmp_path) == []  # who holds it may take it again, and holds it still
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            pool.submit(reopened, tmp_path).result()
    assert not (tmp_path / ".lock-owner").exists()
