"""Pixels as their files have them, in memory or on disk: the same crops and numbers, in memory that does not grow."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from advice import Said, follows, pixels, save
from balls import make_labelled, make_volumes
from discs import make_folder

from lossmith.cli import main
from lossmith.lab.commands import terminal
from lossmith.lab.data import stored
from lossmith.lab.data.files import read_image
from lossmith.lab.data.labelled import Data, add_unlabelled, read_labels, read_pixels
from lossmith.lab.data.stored import OnDisk, Store, free_memory, in_threads
from lossmith.lab.run.crops import LabelledCrops
from lossmith.lab.settings import RunSettings

MEMORY = """
import re, sys
from pathlib import Path
from lossmith.lab.data import stored
from lossmith.lab.data.labelled import read_pixels
from lossmith.lab.run.crops import Crops
from lossmith.lab.settings import RunSettings

stored.SHARE_HELD = float(sys.argv[1])
peaks = []
for folder in sys.argv[2:]:
    data = read_pixels(Path(folder), "made", "multiclass", -100)
    crops = Crops(data.train, RunSettings("made", data.fingerprint, "multiclass", 60, 64, 8, 0.01, -100, "cpu"), 0)
    for step in range(60):
        crops.batch(step)
    peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())  # ru_maxrss knows the parent's
    peaks.append(int(peak[1]) / 1024)
print(peaks[1] - peaks[0])
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def make_colours(folder: Path) -> Path:
    """Discs in three channels, some of 16 bit: the file's axes are not ours."""
    make_folder(folder)
    for i, path in enumerate(sorted((folder / "images").iterdir())):
        grey = pixels(path)
        colour = np.stack([grey, grey // 2, 255 - grey], 2)
        path.unlink()
        tifffile.imwrite(path.with_suffix(".tif"), colour.astype(np.uint16) * 200 if i % 2 else colour)
    return folder


def read(make: Any, folder: Path) -> Data:
    made = folder if folder.is_dir() else make(folder)
    return (read_labels if make is make_labelled else read_pixels)(made, "made", "multiclass", -100)


def settings_of(data: Data, crop: int) -> RunSettings:
    return RunSettings("made", data.fingerprint, "multiclass", 6, crop, 3, 1e-2, -100, "cpu")


@pytest.mark.parametrize(
    ("make", "crop"), [(make_folder, 32), (make_folder, 64), (make_colours, 32), (make_volumes, 32), (make_labelled, 0)]
)
def test_crops_are_the_same_wherever_pixels_are(
    make: Any, crop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = read(make, tmp_path / "made")
    monkeypatch.setattr(stored, "SHARE_HELD", 0.0)
    streamed = read(make, tmp_path / "made")
    assert all(isinstance(s.stored, np.ndarray) for s in held.train)
    assert all(isinstance(s.stored, OnDisk) for s in streamed.train + streamed.validation)
    assert streamed.fingerprint == held.fingerprint
    assert streamed.shares() == held.shares()
    settings = settings_of(held, crop)
    plans = [LabelledCrops(data, settings, 5) for data in (held, streamed)]
    assert plans[0].checksum == plans[1].checksum
    for step in range(settings.steps):
        for one, other in zip(*(plan.batch(step) for plan in plans), strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
    for one, other in zip(held.validation, streamed.validation, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.label, other.label)


@pytest.mark.parametrize("crop", [32, 64])
def test_a_crop_is_a_part_of_the_standardised_image(crop: int, tmp_path: Path) -> None:
    """To the bit: what is measured once and used on a part is what the whole image would give."""
    data = read(make_colours, tmp_path / "made")
    settings = settings_of(data, crop)
    plan = LabelledCrops(data, settings, 0)
    for step in range(settings.steps):
        images, _ = plan.batch(step)
        for image, (which, y, x, *flips) in zip(images.numpy(), plan.sources[0].plan[step], strict=True):
            sample = data.train[which]
            whole = read_image(tmp_path / "made" / "images" / f"{sample.stem}.tif")
            assert np.array_equal(whole, sample.image)
            padded = np.pad(whole, [(0, 0), (0, max(0, crop - 48)), (0, max(0, crop - 48))])
            expected = padded[:, y : y + crop, x : x + crop]
            for axis, flip in enumerate(flips, 1):
                expected = np.flip(expected, axis) if flip else expected
            assert np.array_equal(image, expected)


def test_pixels_take_as_few_bytes_as_in_their_file(tmp_path: Path) -> None:
    data = read(make_colours, tmp_path / "made")
    assert {s.stored.dtype for s in data.train} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    assert {s.stored_label.dtype.itemsize for s in data.train} == {1}
    assert {s.image.dtype for s in data.train} == {np.dtype(np.float32)}
    path = tmp_path / "made" / "masks" / "disc2.png"
    label = pixels(path).astype(np.int16)
    label[:4], label[4] = 200, -100
    save(path.with_suffix(".npy"), label)
    (tmp_path / "made" / "classes.txt").write_text("".join(f"class {k}\n" for k in range(201)))
    (sample,) = (s for s in read(make_colours, tmp_path / "made").train if s.stem == "disc2")
    assert sample.stored_label.dtype == np.int16  # the 200 and what is ignored are both to be seen
    assert np.array_equal(sample.label, label)


def test_labels_are_counted_while_they_are_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made")
    label = pixels(folder / "masks" / "disc2.png").copy()
    label[:3] = 255
    save(folder / "masks" / "disc2.png", label)
    data = read_pixels(folder, "made", "multiclass", 255)
    assert {s.stored_label.dtype for s in data.train} == {np.dtype(np.uint8)}
    expected = [[int((s.label == k).sum()) for k in (0, 1)] for s in data.train]
    assert data.counts(data.train).tolist() == expected
    assert sum(expected[0]) == 48 * 48 - 3 * 48


def test_the_fingerprint_is_of_pixels_not_of_formats(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made")
    seen = [read(make_folder, folder).fingerprint for _ in range(2)]
    for path in list((folder / "images").iterdir()):
        save(path.with_suffix(".npy"), pixels(path).astype(np.float64))
    assert {read(make_folder, folder).fingerprint, *seen} == {seen[0]}


def test_unlabelled_images_stream_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "made")
    extra = make_folder(tmp_path / "extra" / "more", images=3, size=50) / "images"
    held = add_unlabelled(read(make_folder, folder), extra)
    monkeypatch.setattr(stored, "SHARE_HELD", 0.0)
    streamed = add_unlabelled(read(make_folder, folder), extra)
    assert streamed.fingerprint == held.fingerprint
    assert all(isinstance(s.stored, OnDisk) for s in streamed.unlabelled)
    settings = replace(settings_of(held, 32), unlabelled_batch=2)
    for one, other in zip(*(LabelledCrops(d, settings, 0).batch(1) for d in (held, streamed)), strict=True):
        assert one.shape[0] == 5
        assert np.array_equal(one, other)


# ------------------------------------------------------------------------------------------------------- the store


def test_a_store_holds_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arrays = [np.random.default_rng(i).integers(0, 1000, (3, 50, 7)).astype(kind) for i, kind in enumerate("HBfH")]
    arrays[3] = arrays[3].astype(">u2")
    store = Store(bound=arrays[0].nbytes + arrays[1].nbytes)
    kept = [store.keep(a) for a in arrays]
    assert [isinstance(k, OnDisk) for k in kept] == [False, False, True, True]
    assert list((tmp_path / "lossmith").iterdir()) == []  # the file has no name: nobody need delete it
    for array, there in zip(arrays, kept, strict=True):
        assert (there.shape, there.ndim, there.dtype) == (array.shape, 3, array.dtype.newbyteorder("="))
        for window in (..., np.s_[:, 4:9, 2:5], np.s_[1]):
            assert np.array_equal(there[window], array[window])
    assert len(store.notices) == 1
    assert Store().notices == []


def test_a_store_for_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(stored, "_READERS", 8)
    store = Store(bound=20_000)

    def keep(i: int) -> Any:
        return store.keep(np.full((20, 30 + i % 7), i, np.uint16))

    def right(pair: tuple[int, Any]) -> bool:
        return bool((pair[1][...] == pair[0]).all())

    for _ in range(3):
        kept = list(in_threads(keep, range(200), 1))
        assert [there.shape for there in kept] == [(20, 30 + i % 7) for i in range(200)]
        assert all(in_threads(right, list(enumerate(kept)), 1))
    assert isinstance(kept[-1], OnDisk)


def test_what_stops_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_READERS", 2)
    begun, go_on = [], threading.Event()

    def work(i: int) -> int:
        begun.append(i)
        if i == 0:
            raise KeyError
        go_on.wait(5)
        time.sleep(0.02)  # or all would be done before a busy machine has seen the error
        return i

    reading = in_threads(work, range(1000), 1)
    threading.Timer(0.2, go_on.set).start()
    with pytest.raises(KeyError):
        list(reading)
    assert len(begun) < 100

    def wait(i: int) -> int:
        begun.append(i)
        threading.Event().wait(0.01)
        return i

    begun.clear()
    reading = in_threads(wait, range(200), 1)
    assert next(reading) == 0
    reading.close()  # as when whoever reads is interrupted
    assert len(begun) < 100


def test_fewer_threads_where_images_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_READERS", 8)
    monkeypatch.setattr(stored, "free_memory", lambda: 10**6)
    together, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        threading.Event().wait(0.01)
        with lock:
            together -= 1

    list(in_threads(work, range(20), 10**5))
    assert most == 1
    list(in_threads(work, range(20), 1))
    assert most > 1


def test_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory() > 2**20
    monkeypatch.setattr(stored, "_CONTAINER", tmp_path)
    for name, text in (("memory.max", "5000\n"), ("memory.current", "3000\n"), ("memory.stat", "a 1\ninactive_file 7")):
        (tmp_path / name).write_text(text)
    assert free_memory() == 2007
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 2**20


@follows("set XDG_CACHE_HOME to a folder with more room")
def test_a_disk_without_room(discs: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SHARE_HELD", 0.0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    line = said("compare", discs)
    assert "cannot hold the pixels that memory has no room for (Not a directory after 0.0 GB)" in line
    assert line.endswith("; set XDG_CACHE_HOME to a folder with more room")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "roomy"))
    assert said("compare", discs) == ""


# -------------------------------------------------------------------------------------------------- what it takes


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody else says what a process took at most")
@pytest.mark.parametrize(("held", "grows"), [("0", False), ("1", True)])
def test_memory_does_not_grow_with_the_number_of_images(held: str, grows: bool, tmp_path: Path) -> None:
    """From 50 images to 500 of 64 KB, each with labels of as much; with room for all it must be seen to grow."""
    first = make_folder(tmp_path / "first", images=4, size=256)
    few, many = tmp_path / "few", tmp_path / "many"
    for folder, images in ((few, 50), (many, 500)):
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True)
            for i in range(images):
                (folder / part / f"a{i}.png").hardlink_to(first / part / f"disc{i % 4}.png")
    done = subprocess.run([sys.executable, "-c", MEMORY, held, few, many], capture_output=True, text=True, check=True)
    assert (float(done.stdout) > 40) == grows, done.stdout
    assert grows or float(done.stdout) < 12


def test_reading_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "made", images=6, size=32)
    heard: list[tuple[int, int]] = []
    read_pixels(folder, "made", "multiclass", -100, watch=lambda *far: heard.append(far))
    assert heard == [(i, 6) for i in range(1, 7)]
    monkeypatch.setattr(terminal, "_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(stored, "SHARE_HELD", 0.0)
    command = ["compare", str(folder), "--loss", "ce", "--steps", "1", "--seeds", "1", "--crop", "32", "--batch", "2"]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [f"reading images: {i} of 6" for i in range(1, 7)] == lines[:6]
    assert lines[6].startswith("0.0 GB of pixels are beyond 0% of the free memory; they stream from a file in ")


def test_files_that_no_type_of_ours_holds(tmp_path: Path) -> None:
    """Big-endian TIFF, bool NPY, NIfTI with a slope: kept in a type of the machine, with the values of the file."""
    folder = make_folder(tmp_path / "made", images=3, size=32)
    grey = pixels(folder / "images" / "disc1.png").astype(np.uint16) * 200
    (folder / "images" / "disc1.png").unlink()
    tifffile.imwrite(folder / "images" / "disc1.tif", grey, byteorder=">")
    save(folder / "images" / "disc2.npy", grey > 20_000)
    data = read_pixels(folder, "made", "multiclass", -100)
    kept = {s.stem: s.stored for s in data.train + data.validation}
    assert kept["disc1"].dtype == np.uint16
    assert kept["disc1"].dtype.isnative
    assert np.array_equal(kept["disc1"][0], grey)
    assert np.array_equal(kept["disc2"][0], grey > 20_000)
    volumes = make_volumes(tmp_path / "volumes")
    path = volumes / "images" / "a.nii.gz"
    values = np.asarray(nibabel.load(path).dataobj)
    stored_as = nibabel.Nifti1Image(np.rint(values / 0.25).astype(np.int16), np.eye(4))
    stored_as.header.set_slope_inter(0.25, 0)
    nibabel.save(stored_as, path)
    (sample,) = read_pixels(volumes, "made", "multiclass", -100).train
    assert sample.stored.dtype == np.float32
    assert sample.image.std() == pytest.approx(1, abs=1e-4)
