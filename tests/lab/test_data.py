"""Reading a folder: what is accepted, and the one line that says what is wrong."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from discs import make_folder
from PIL import Image

from lossmith.lab import UserError
from lossmith.lab.data.labelled import Data, faults_of_pixels, read_pixels


def read(folder: Path, task: str = "multiclass", ignore_index: int = -100) -> Data:
    return read_pixels(folder, "mine", task, ignore_index)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "mine", images=4, size=32)


def save_mask(folder: Path, stem: str, array: np.ndarray[Any, Any]) -> None:
    (folder / "masks" / f"{stem}.png").unlink()
    np.save(folder / "masks" / f"{stem}.npy", array)


def test_reads_a_folder(mine: Path) -> None:
    data = read(mine)
    assert [s.stem for s in data.validation] == ["disc0", "disc1"]
    assert [s.stem for s in data.train] == ["disc2", "disc3"]
    assert data.classes == ["background", "class 1"]
    sample = data.train[0]
    assert sample.image.shape == (1, 32, 32)
    assert sample.image.dtype == np.float32
    assert sample.image.mean() == pytest.approx(0, abs=1e-5)
    assert sample.image.std() == pytest.approx(1, abs=1e-4)
    assert np.array_equal(sample.label, np.asarray(Image.open(mine / "masks" / "disc2.png")))


@pytest.mark.parametrize("kind", ["png16", "tif", "npy"])
def test_formats_and_depths_hold_the_same_picture(mine: Path, kind: str) -> None:
    before = read(mine)
    for path in list((mine / "images").iterdir()):
        array = np.asarray(Image.open(path)).astype(np.uint16) * 200
        path.unlink()
        if kind == "png16":
            Image.fromarray(array).save(path)
        elif kind == "tif":
            tifffile.imwrite(path.with_suffix(".tif"), array)
        else:
            np.save(path.with_suffix(".npy"), array.astype(np.float32))
    after = read(mine)
    for a, b in zip(before.train, after.train, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=1e-4)


def test_rgb_alpha_and_palette_images_have_three_channels(mine: Path) -> None:
    for i, mode in enumerate(["RGB", "RGBA", "P", "RGB"]):
        path = mine / "images" / f"disc{i}.png"
        Image.open(path).convert("RGB").convert(mode).save(path)
    assert read(mine).channels == 3


def test_palette_masks_are_class_numbers(mine: Path) -> None:
    path = mine / "masks" / "disc2.png"
    picture = Image.open(path)
    labels = np.asarray(picture)
    painted = Image.fromarray(labels, mode=None).convert("P")
    painted.putdata(labels.ravel().tolist())
    painted.putpalette([0, 0, 0, 200, 30, 30])
    painted.save(path)
    assert np.array_equal(read(mine).train[0].label, labels)


def test_without_split_a_seeded_quarter_is_held_back(mine: Path) -> None:
    (mine / "split.csv").unlink()
    first, second = read(mine), read(mine)
    assert len(first.validation) == 1
    assert len(first.train) == 3
    assert first.validation[0].stem == second.validation[0].stem


def test_unused_images_are_left_out(mine: Path) -> None:
    text = (mine / "split.csv").read_text().replace("disc3,train", "disc3,unused")
    (mine / "split.csv").write_text(text)
    assert [s.stem for s in read(mine).train] == ["disc2"]


def test_fingerprint_sees_a_pixel_a_label_and_a_split(mine: Path) -> None:
    seen = {read(mine).fingerprint}
    label = np.asarray(Image.open(mine / "masks" / "disc2.png")).copy()
    label[0, 0] = 1
    Image.fromarray(label).save(mine / "masks" / "disc2.png")
    seen.add(read(mine).fingerprint)
    picture = np.asarray(Image.open(mine / "images" / "disc2.png")).copy()
    picture[0, 0] += 1
    Image.fromarray(picture).save(mine / "images" / "disc2.png")
    seen.add(read(mine).fingerprint)
    (mine / "split.csv").write_text((mine / "split.csv").read_text().replace("disc3,train", "disc3,validation"))
    seen.add(read(mine).fingerprint)
    assert len(seen) == 4


def test_binary_reads_every_positive_label_as_foreground(mine: Path) -> None:
    save_mask(mine, "disc2", np.array([[0, 7], [255, 300]]).repeat(16, 0).repeat(16, 1))
    data = read(mine, task="binary")
    assert data.classes == ["background", "foreground"]
    assert np.unique(data.train[0].label).tolist() == [0, 1]
    assert data.train[0].label.mean() == 0.75


def test_binary_keeps_ignored_pixels(mine: Path) -> None:
    save_mask(mine, "disc2", np.array([[0, 1], [1, 255]]).repeat(16, 0).repeat(16, 1))
    assert np.unique(read(mine, task="binary", ignore_index=255).train[0].label).tolist() == [0, 1, 255]


def test_classes_txt_names_the_classes_and_allows_an_absent_one(mine: Path) -> None:
    (mine / "classes.txt").write_text("ground\ndisc\nnowhere\n")
    assert read(mine).classes == ["ground", "disc", "nowhere"]


def test_no_folder(mine: Path) -> None:
    (mine / "masks").rename(mine / "truth")
    assert "no folder masks/" in refusal(mine)


def test_no_images(mine: Path) -> None:
    for path in (mine / "images").iterdir():
        path.unlink()
    assert "no image in it" in refusal(mine)


def test_no_mask_for_an_image(mine: Path) -> None:
    (mine / "masks" / "disc1.png").unlink()
    assert "disc1.png: no mask for it; expected masks/disc1" in refusal(mine)


def test_no_image_for_a_mask(mine: Path) -> None:
    (mine / "images" / "disc1.png").unlink()
    assert "disc1.png: no image for it" in refusal(mine)


def test_one_stem_twice(mine: Path) -> None:
    np.save(mine / "images" / "disc1.npy", np.zeros((32, 32)))
    assert "has the same stem" in refusal(mine)


def test_unknown_suffix(mine: Path) -> None:
    (mine / "images" / "disc9.webp").write_bytes(b"")
    assert "disc9.webp: cannot read .webp; save it as PNG, JPEG, BMP, TIFF, NPY, or NIfTI" in refusal(mine)


def test_hidden_files_do_not_matter(mine: Path) -> None:
    (mine / "images" / ".DS_Store").write_bytes(b"")
    read(mine)


def test_broken_file(mine: Path) -> None:
    (mine / "images" / "disc1.png").write_bytes(b"no picture")
    assert "disc1.png: cannot be read" in refusal(mine)


def test_sizes_differ(mine: Path) -> None:
    save_mask(mine, "disc2", np.zeros((32, 40), dtype=np.uint8))
    assert "disc2.npy: the mask is 40 x 32 but its image is 32 x 32 pixels" in refusal(mine)


def test_channels_differ(mine: Path) -> None:
    path = mine / "images" / "disc2.png"
    Image.open(path).convert("RGB").save(path)
    assert "disc2.png: 3 channels, but disc0.png has 1" in refusal(mine)


def test_stack_of_frames(mine: Path) -> None:
    (mine / "images" / "disc2.png").unlink()
    np.save(mine / "images" / "disc2.npy", np.zeros((20, 32, 32)))
    assert "shape (20, 32, 32) is no 2-D image" in refusal(mine)


def test_nan_pixels(mine: Path) -> None:
    (mine / "images" / "disc2.png").unlink()
    np.save(mine / "images" / "disc2.npy", np.full((32, 32), np.nan))
    assert "NaN" in refusal(mine)


def test_colour_mask(mine: Path) -> None:
    path = mine / "masks" / "disc2.png"
    colours = np.asarray(Image.open(path).convert("RGB")) * np.uint8([1, 2, 3])
    Image.fromarray(colours).save(path)
    assert "disc2.png: holds colours, no labels; save class numbers as one grey" in refusal(mine)


def test_mask_of_0_and_255(mine: Path) -> None:
    path = mine / "masks" / "disc2.png"
    Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(path)
    message = refusal(mine)
    assert "disc2.png: holds the labels [0, 255], a 0/255 mask?" in message
    assert "--task binary" in message


def test_object_numbers(mine: Path) -> None:
    save_mask(mine, "disc2", np.arange(32 * 32).reshape(32, 32))
    message = refusal(mine)
    assert "disc2.npy: labels go up to 1023" in message
    assert "--task binary" in message


def test_a_gap_in_the_labels_gets_a_first_look(mine: Path) -> None:
    save_mask(mine, "disc2", np.full((32, 32), 5))
    assert read(mine).classes == ["background", *(f"class {k}" for k in range(1, 6))]
    (fault,) = faults_of_pixels(mine, "multiclass", -100)
    assert not fault.fatal
    assert "disc2.npy: labels go up to 5 without 2, 3, 4; they are read as class numbers. Object numbers?" in str(fault)


def test_more_classes_than_named(mine: Path) -> None:
    (mine / "classes.txt").write_text("ground\ndisc\n")
    save_mask(mine, "disc2", np.full((32, 32), 2))
    assert "disc2.npy: holds the label 2, but classes.txt names 2 classes" in refusal(mine)


def test_a_negative_label(mine: Path) -> None:
    save_mask(mine, "disc2", np.full((32, 32), -1))
    assert "holds the label -1" in refusal(mine)
    read(mine, ignore_index=-1)


def test_nothing_labelled(mine: Path) -> None:
    for path in (mine / "masks").iterdir():
        Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(path)
    (mine / "classes.txt").write_text("ground\ndisc\n")
    assert "every mask is background only" in refusal(mine)


def test_one_image_only(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "one", images=1)
    (folder / "split.csv").unlink()
    assert "at least two are needed" in refusal(folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["name", "part"]], "the first line must be stem,split"),
        ([["stem", "split"], ["disc0", "val"]], "line 2: 'val' is not one of train, validation, unused"),
        ([["stem", "split"], ["disc7", "train"]], "line 2: there is no image with the stem 'disc7'"),
        ([["stem", "split"], ["disc0", "train"], ["disc0", "train"]], "line 3: 'disc0' is listed twice"),
        ([["stem", "split"], ["disc0", "train"]], "'disc1' is not listed"),
        ([["stem", "split"], *([f"disc{i}", "train"] for i in range(4))], "no image is marked validation"),
        ([["stem", "split"], *([f"disc{i}", "validation"] for i in range(4))], "no image is marked train"),
    ],
)
def test_split_csv(mine: Path, rows: list[list[str]], message: str) -> None:
    with (mine / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert message in refusal(mine)
