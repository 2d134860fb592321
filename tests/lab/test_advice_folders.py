"""What the lab says of files, masks and tables that it cannot take, and that what it says works."""

import itertools
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from advice import Said, follows, pixels, rewrite, save
from PIL import Image

from lossmith.cli import main

SPLIT = "stem,split\n"


# --------------------------------------------------------------------------------------------------- files of a folder


@follows("expected {}")
def test_formats_of_images(discs: Path, volumes: Path, said: Said) -> None:
    for folder in (discs, volumes):
        shutil.move(folder / "images", folder / "kept")
        (folder / "images").mkdir()
        assert said("compare", folder).endswith("; expected PNG, JPEG, BMP, TIFF, NPY, or NIfTI for a volume")
    for path in (discs / "kept").iterdir():
        save(discs / "images" / path.name, pixels(path))
    for suffix in (".png", ".bmp", ".tif", ".tiff", ".npy", ".nii", ".nii.gz"):
        folder, stem = (volumes, "a") if ".nii" in suffix else (discs, "disc1")
        kept = folder / "kept"
        if folder is volumes:
            for other in kept.iterdir():
                shutil.copy(other, folder / "images")
            array = np.asarray(nibabel.load(kept / "a.nii.gz").dataobj)
        else:
            array = pixels(kept / "disc1.png")
        save(folder / "images" / f"{stem}{suffix}", array)
        assert said("compare", folder) == ""
    (discs / "none").mkdir()
    assert said("compare", discs, "--unlabelled", discs / "none").endswith("or NIfTI for a volume")
    save(discs / "none" / "a.png", np.eye(32, dtype=np.uint8))
    assert said("compare", discs, "--unlabelled", discs / "none") == ""


@follows("expected images/ and masks/, paired by stem, or images/ and labels.csv, or images/ and boxes.csv")
def test_what_a_folder_holds(discs: Path, labelled: Path, boxes: Path, tmp_path: Path, said: Said) -> None:
    folder = tmp_path / "crowns of nothing"
    folder.mkdir()
    line = said("compare", folder)
    assert line.endswith("masks/, paired by stem, or images/ and labels.csv, or images/ and boxes.csv")
    for complete, parts in (
        (discs, ["images", "masks"]),
        (labelled, ["images", "labels.csv"]),
        (boxes, ["images", "boxes.csv"]),
    ):
        copy = tmp_path / f"copy of {complete.name}"
        copy.mkdir()
        for part in parts:
            (shutil.copytree if (complete / part).is_dir() else shutil.copy)(complete / part, copy / part)
        assert said("compare", copy, "--loss", "focal + giou" if complete is boxes else "ce") == ""


@follows("save it as {}, or move it")
def test_a_file_of_another_kind(discs: Path, said: Said) -> None:
    path = discs / "images" / "disc1.png"
    picture = Image.open(path)
    picture.save(path.with_suffix(".pgm"))
    path.unlink()
    assert said("compare", discs).endswith("; save it as PNG, JPEG, BMP, TIFF, NPY, or NIfTI for a volume, or move it")
    path.with_suffix(".pgm").rename(discs / "disc1.pgm")
    save(path, pixels(discs / "disc1.pgm"))
    assert said("compare", discs) == ""


@follows("keep one of the two")
def test_a_stem_twice(discs: Path, said: Said) -> None:
    other = discs / "images" / "disc1.npy"
    np.save(other, pixels(other.with_suffix(".png")))
    assert said("compare", discs).endswith("; keep one of the two")
    other.with_suffix(".png").unlink()
    assert said("compare", discs) == ""


@follows("expected {}/{} with {}")
@pytest.mark.parametrize("part", ["masks", "images"])
@pytest.mark.parametrize("kind", ["discs", "volumes"])
def test_a_partner_of_each_kind(part: str, kind: str, said: Said, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    path = sorted((folder / part).iterdir())[0]
    array = pixels(path) if path.suffix == ".png" else np.asarray(nibabel.load(path).dataobj)
    path.unlink()
    found = re.search(rf"; expected {part}/(\w+) with (.*)$", said("compare", folder))
    assert found is not None
    suffixes = re.split(", | or ", found[2])
    assert len(suffixes) == (2 if kind == "volumes" else 3)
    for suffix in suffixes:
        save(folder / part / f"{found[1]}{suffix}", array)
        assert said("compare", folder) == ""


@follows("they must have the same size", "all must be alike", "remove it")
def test_sizes_and_images_that_are_held_back(discs: Path, tmp_path: Path, said: Said) -> None:
    mask = pixels(discs / "masks" / "disc2.png")
    save(discs / "masks" / "disc2.png", mask[:30])
    assert said("compare", discs).endswith("; they must have the same size")
    save(discs / "masks" / "disc2.png", mask)
    extra = tmp_path / "extra"
    extra.mkdir()
    more = ["--unlabelled", extra]
    save(extra / "a.npy", np.random.default_rng(0).random((32, 32, 3)))
    assert said("compare", discs, *more).endswith("; all must be alike")
    save(extra / "a.npy", np.random.default_rng(0).random((32, 32)))
    shutil.copy(discs / "images" / "disc0.png", extra)
    assert said("compare", discs, *more).endswith("which is held back to judge by; remove it")
    (extra / "disc0.png").unlink()
    assert said("compare", discs, *more) == ""


@follows(
    "keep images and volumes in separate folders",
    "save all images with the same number of channels",
    "images with a label each must have one size",
)
def test_images_that_differ(discs: Path, volumes: Path, labelled: Path, said: Said) -> None:
    for part in ("images", "masks"):
        shutil.copy(discs / part / "disc1.png", volumes / part)
    with (volumes / "split.csv").open("a") as file:
        file.write("disc1,train\n")
    assert said("compare", volumes).endswith("; keep images and volumes in separate folders")
    for part in ("images", "masks"):
        (volumes / part / "disc1.png").unlink()
    rewrite(volumes / "split.csv", "disc1,train\n", "")
    assert said("compare", volumes) == said("compare", discs) == ""

    colour = {path: pixels(path)[..., None].repeat(3, 2) for path in (discs / "images").iterdir()}
    save(discs / "images" / "disc2.png", colour[discs / "images" / "disc2.png"])
    assert said("compare", discs).endswith("; save all images with the same number of channels")
    for path, array in colour.items():
        save(path, array)
    assert said("compare", discs) == ""

    path = labelled / "images" / "i03.png"
    grey = pixels(path)
    save(path, grey[:12])
    assert said("compare", labelled).endswith("; images with a label each must have one size")
    save(path, grey)
    assert said("compare", labelled) == ""


@follows("replace them", "save one a file, (H, W) or (H, W, 1 to 4), and a volume as NIfTI (.nii.gz)")
def test_images_that_are_none(discs: Path, volumes: Path, said: Said) -> None:
    path = discs / "images" / "disc2.npy"
    grey = pixels(path.with_suffix(".png")).astype(float)
    grey[3, 3] = np.nan
    save(path, grey)
    assert said("compare", discs).endswith("; replace them")
    grey[3, 3] = 0
    save(path, grey)
    assert said("compare", discs) == ""

    save(path, grey[..., None].repeat(5, 2))
    assert said("compare", discs).endswith(", and a volume as NIfTI (.nii.gz)")
    for channels in range(5):
        for image in list((discs / "images").iterdir()):
            save(image.with_suffix(".npy"), grey[..., None].repeat(channels, 2) if channels else grey)
        assert said("compare", discs) == ""
    assert ".nii.gz" in {"".join(image.suffixes) for image in (volumes / "images").iterdir()}


@follows("save one a file, (X, Y, Z) or (X, Y, Z, channels)")
def test_volumes_that_are_none(volumes: Path, said: Said) -> None:
    whole = {path: np.asarray(nibabel.load(path).dataobj) for path in sorted((volumes / "images").iterdir())}
    first = next(iter(whole))
    save(first, whole[first][..., None, None].repeat(2, 3).repeat(2, 4))
    assert said("compare", volumes).endswith("is no volume; save one a file, (X, Y, Z) or (X, Y, Z, channels)")
    for channels in (0, 1, 7):
        for path, array in whole.items():
            save(path, array[..., None].repeat(channels, 3) if channels else array)
        assert said("compare", volumes) == ""


# --------------------------------------------------------------------------------------------------- labels


@follows("save class numbers as one {}", "save class numbers as one grey (H, W) image")
def test_masks_that_are_none(discs: Path, volumes: Path, said: Said) -> None:
    for path, axis, expected in (
        (discs / "masks" / "disc2.png", 2, "grey (H, W) image"),
        (volumes / "masks" / "a.nii.gz", 3, "(X, Y, Z) volume"),
    ):
        folder = path.parent.parent
        mask = pixels(path) if axis == 2 else np.asarray(nibabel.load(path).dataobj)
        save(path, np.stack([mask, 2 * mask, mask], axis))
        assert said("compare", folder).endswith(f"; save class numbers as one {expected}")
        save(path, mask)
        assert said("compare", folder) == ""


@follows(
    "labels start at 0 ({})", "to ignore it: --ignore-index {}", "to ignore all below: numpy.where(mask < 0, {}, mask)"
)
@pytest.mark.parametrize("labels", [[-1], [-100, -1], [-2, -1], [-5, -100, -1]])
def test_negative_labels(labels: list[int], discs: Path, said: Said) -> None:
    path = discs / "masks" / "disc2.npy"
    mask = pixels(path.with_suffix(".png")).astype(np.int16)
    mask[0, : len(labels)] = labels
    save(path, mask)
    line = said("compare", discs)
    found = re.search(r"labels start at 0 \((?:to ignore it: (--ignore-index) (-1)|.*: numpy\.(.*))\)$", line)
    assert found is not None
    assert bool(found[1]) == (labels == [-1])
    if not found[1]:
        save(path, eval(f"np.{found[3]}", {"np": np, "mask": mask}))
    assert said("compare", discs, *(found[i] for i in (1, 2) if found[1])) == ""


@follows("Use --task binary, or save 1 for 255, or use --ignore-index 255 if those pixels are unlabelled")
@pytest.mark.parametrize("way", ["binary", "1", "ignored"])
def test_masks_of_0_and_255(way: str, discs: Path, said: Said) -> None:
    masks = {path: pixels(path) for path in (discs / "masks").iterdir()}
    some = [path for path in masks if way != "ignored" or path.stem == "disc2"]  # else nothing would be labelled
    for path in some:
        save(path, masks[path] * np.uint8(255))
    assert "a 0/255 mask? Use --task binary, or save 1 for 255, or use --ignore-index 255" in said("compare", discs)
    for path in some if way == "1" else []:
        save(path, masks[path])
    words = {"binary": ["--task", "binary"], "1": [], "ignored": ["--ignore-index", 255]}[way]
    assert said("compare", discs, *words) == ""


@follows("Then name each class in classes.txt", "Then use --task binary")
def test_high_labels(discs: Path, labelled: Path, said: Said) -> None:
    most = {discs: 33, labelled: 40}
    save(discs / "masks" / "disc2.npy", np.full((32, 32), 33))
    rewrite(labelled / "labels.csv", "i03,2", "i03,40")
    for folder, highest in most.items():
        assert f"labels go up to {highest} and " in said("compare", folder)
        assert said("compare", folder).endswith("in classes.txt. Object numbers? Then use --task binary")
        assert said("compare", folder, "--task", "binary") == ""
        (folder / "classes.txt").write_text("".join(f"class {k}\n" for k in range(highest + 1)))
        assert said("compare", folder) == ""


@follows("name all up to {}, correct the label{}", ", or ignore it: --ignore-index {}")
@pytest.mark.parametrize("labels", [[2], [2, 4], [-100, 2]])
def test_labels_without_a_name(labels: list[int], discs: Path, said: Said) -> None:
    (discs / "classes.txt").write_text("ground\ndisc\n")
    path = discs / "masks" / "disc2.npy"
    mask = pixels(path.with_suffix(".png")).astype(np.int16)
    wrong = mask.copy()
    wrong[0, : len(labels)] = labels
    save(path, wrong)
    line = said("compare", discs)
    ignore = re.search(r", or ignore it: (--ignore-index) (\d)$", line)
    assert bool(ignore) == (labels == [2])
    if ignore:
        assert said("compare", discs, ignore[1], ignore[2]) == ""
    save(path, mask)
    assert said("compare", discs) == ""
    save(path, wrong)
    up_to = re.search(r"name all up to (\d), correct the label", line)
    assert up_to is not None
    (discs / "classes.txt").write_text("".join(f"class {k}\n" for k in range(int(up_to[1]) + 1)))
    assert said("compare", discs) == ""


# --------------------------------------------------------------------------------------------------- tables


@follows("expected at least two different names, one a line, background first", "name two, background first")
def test_class_names(discs: Path, boxes: Path, said: Said) -> None:
    for folder, wrong in ((discs, "one\n"), (discs, "twice\ntwice\n"), (boxes, "one\ntwo\nthree\n")):
        (folder / "classes.txt").write_text(wrong)
        assert "background first" in said("compare", folder)
        (folder / "classes.txt").write_text("ground\nthing\n")
        assert said("compare", folder) == ""


@follows("mark at least one", "at least two are needed, one to train on and one held back")
def test_splits(discs: Path, said: Said) -> None:
    split = discs / "split.csv"
    for part, other in itertools.permutations(("train", "validation")):
        split.write_text(SPLIT + "".join(f"disc{i},{other}\n" for i in range(4)))
        assert said("compare", discs).endswith(f"no image is marked {part}; mark at least one")
        rewrite(split, f"disc1,{other}", f"disc1,{part}")
        assert said("compare", discs) == ""
    rewrite(split, "disc3,validation" if "disc3,validation" in split.read_text() else "disc3,train", "disc3,test")
    found = re.search(r"'test' is not one of (.*)$", said("compare", discs))
    assert found is not None
    split.write_text(SPLIT + "disc0,train\ndisc1,validation\ndisc2,train\ndisc3,test\n")
    before = "test"
    for part in found[1].split(", "):
        rewrite(split, f"disc3,{before}", f"disc3,{part}")
        before = part
        assert said("compare", discs) == ""
    split.unlink()
    kept = [discs / part / f"disc{i}.png" for part in ("images", "masks") for i in (1, 2, 3)]
    held = {path: path.read_bytes() for path in kept}
    for path in kept:
        path.unlink()
    assert said("compare", discs).endswith("at least two are needed, one to train on and one held back")
    for path in (kept[0], kept[3]):
        path.write_bytes(held[path])
    assert said("compare", discs) == ""


@follows("give it a {}{}", " (unused leaves it out)")
def test_rows_that_are_missing_or_wrong(discs: Path, labelled: Path, said: Said) -> None:
    rewrite(discs / "split.csv", "disc3,train\n", "")
    assert said("compare", discs).endswith("'disc3' is not listed; give it a split (unused leaves it out)")
    for part in ("unused", "train"):
        with (discs / "split.csv").open("a") as file:
            file.write(f"disc3,{part}\n")
        assert said("compare", discs) == ""
        rewrite(discs / "split.csv", f"disc3,{part}\n", "")
    rewrite(labelled / "labels.csv", "i03,2\n", "")
    assert said("compare", labelled).endswith("'i03' is not listed; give it a label")
    with (labelled / "labels.csv").open("a") as file:
        file.write("i03,2\n")
    assert said("compare", labelled) == ""
    for wrong in ("-1", "1.0", "cat", ""):
        rewrite(labelled / "labels.csv", "i03,2", f"i03,{wrong}")
        assert said("compare", labelled).endswith("no label; labels are whole numbers from 0")
        rewrite(labelled / "labels.csv", f"i03,{wrong}\n", "i03,2\n")
    assert said("compare", labelled) == ""


@follows(
    "the first line must be stem,{}",
    "the first line must be stem,x1,y1,x2,y2 or stem,x1,y1,x2,y2,ignore",
)
def test_first_lines(discs: Path, labelled: Path, boxes: Path, said: Said) -> None:
    for path in (discs / "split.csv", labelled / "labels.csv", boxes / "boxes.csv"):
        header = path.read_text().splitlines()[0]
        rewrite(path, header, "name,value")
        found = re.search(
            r"the first line must be (.+?)(?: or (.+?))?(?:; it is 'name,value')?$", said("compare", path.parent)
        )
        assert found is not None
        rewrite(path, "name,value", found[1])
        assert said("compare", path.parent) == ""
    rewrite(path, f"{found[1]}\n", f"{found[2]}\n")
    path.write_text(re.sub(r"(?<=\d)$", ",0", path.read_text(), flags=re.MULTILINE).replace("y2,0", "y2"))
    assert said("compare", boxes) == ""


@follows(
    "the box {} must have x1 < x2 and y1 < y2 inside its {} x {} image",
    "ignore must be 0 or 1, got {}",
    "x1, y1, x2, y2 must be numbers",
    "boxes need 2-D images with the same number of channels",
)
def test_boxes(boxes: Path, said: Said) -> None:
    table = boxes / "boxes.csv"
    sound = table.read_text()
    table.write_text(sound.replace("y2\n", "y2,ignore\n") + "left,2,2,a,9\n")
    assert said("compare", boxes).endswith("x1, y1, x2, y2 must be numbers")
    for wrong in ("9,2,9,9", "nan,2,9,9", "2,9,9,2", "2,2,9999,9"):
        table.write_text(f"{sound}right,{wrong}\n")
        found = re.search(r"must have x1 < x2 and y1 < y2 inside its (\d+) x (\d+) image$", said("compare", boxes))
        assert found is not None
    table.write_text(f"{sound}right,0,0,{found[1]},{found[2]}\n")
    assert said("compare", boxes) == ""
    for value, right in (("yes", False), ("0", True), ("1", True)):
        table.write_text(f"{sound.replace('y2', 'y2,ignore')}left,2,2,9,9,{value}\n")
        assert said("compare", boxes).endswith("ignore must be 0 or 1, got 'yes'") != right
    path = boxes / "images" / "right.png"
    grey = pixels(path)
    save(path, grey[..., None].repeat(3, 2))
    assert said("compare", boxes).endswith("; boxes need 2-D images with the same number of channels")
    save(boxes / "images" / "left.png", pixels(boxes / "images" / "left.png")[..., None].repeat(3, 2))
    assert said("compare", boxes) == ""


@follows("Choose both sides in split.csv so that each holds a class")
def test_a_side_without_any_class(discs: Path, said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = sorted((discs / "masks").iterdir())
    kept = pixels(first)
    for path in (first, *others):
        save(path, np.zeros_like(kept))
    rewrite(discs / "split.csv", "disc1,validation", "disc1,train")
    for part, told in (("validation", "to train on"), ("train", "held back")):
        save(others[0] if part == "train" else first, kept)
        line = said("compare", discs)
        assert line.startswith(f"{discs}: of the images {told} none holds a class but the background")
        assert main(["audit", str(discs), "--json"]) == 0
        assert line in [fault["text"] for fault in json.loads(capsys.readouterr().out)["faults"]]
        assert said("compare", discs, "--folds", "2").endswith("; drop --folds")
        if part == "validation":
            save(first, np.zeros_like(kept))
    save(first, kept)
    assert said("compare", discs) == ""
