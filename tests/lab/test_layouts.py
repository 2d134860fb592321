"""Folders as other tools lay them out hold the same data as images/ and masks/ with PNG in them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from advice import pixels, save
from annotations import write_coco, write_voc, write_yolo
from balls import make_volumes
from crowns import make_folder as make_boxes
from discs import make_folder
from PIL import Image, ImageOps

from lossmith.lab.data.files import image_shape, read_image, read_mask, read_stored
from lossmith.lab.data.labelled import faults_of_pixels, index_pixels
from lossmith.lab.data.scenes import holds_boxes, index_scenes


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "mine", images=4, size=32)


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "packbits"])
def test_compressed_tiff(compression: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 60000, (20, 30)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression)
    assert np.array_equal(read_stored(tmp_path / "a.tif"), array[None])


def test_jpeg_and_bmp(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.bmp")
    assert np.array_equal(read_stored(tmp_path / "a.bmp"), array.transpose(2, 0, 1))
    mask = array[..., 0] % 3
    Image.fromarray(mask).save(tmp_path / "m.bmp")
    assert np.array_equal(read_mask(tmp_path / "m.bmp", -100), mask)
    for mode, channels in (("L", 1), ("RGB", 3), ("CMYK", 3)):
        Image.fromarray(array).convert(mode).save(tmp_path / f"{mode}.jpg")
        assert (
            image_shape(tmp_path / f"{mode}.jpg") == read_stored(tmp_path / f"{mode}.jpg").shape == (channels, 20, 30)
        )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("channels", [3, 4])
def test_grey_masks_saved_as_colours(suffix: str, channels: int, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.uint8)
    colours = np.stack([mask] * 3 + [np.full_like(mask, 255)] * (channels - 3), -1)
    save(tmp_path / f"a{suffix}", colours)
    assert np.array_equal(read_mask(tmp_path / f"a{suffix}", -100), mask)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_orientation(tag: int, suffix: str, tmp_path: Path) -> None:
    """What Pillow's own turning gives."""
    array = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x0112] = tag
    reference = tmp_path / "r.png"
    Image.fromarray(array).save(reference, exif=exif)
    with Image.open(reference) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, array, extratags=[(274, "H", 1, tag, True)])
    else:
        Image.fromarray(array).save(path, exif=exif)
    found = read_stored(path)[0]
    assert image_shape(path) == (1, *found.shape)
    assert np.abs(found.astype(int) - upright).max() <= 4


def test_pages(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 99, (3, 20, 30)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=None)
    assert np.array_equal(read_stored(path, "channels"), stack)
    assert np.array_equal(read_stored(path, "volume"), stack.T[None])
    assert np.array_equal(read_mask(path, -100, "volume"), stack.T)
    for axes, expected in (("ZYX", stack.T[None]), ("CYX", stack)):
        tifffile.imwrite(path, stack, imagej=True, metadata={"axes": axes})
        assert np.array_equal(read_stored(path), expected)


def test_channels_of_nifti(tmp_path: Path) -> None:
    for shape in ((6, 5, 4, 9), (6, 5, 4, 1, 9)):
        array = np.random.default_rng(0).random(shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
        assert image_shape(tmp_path / "a.nii.gz") == read_image(tmp_path / "a.nii.gz").shape == (9, 6, 5, 4)


# ------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("name", ["{}_mask", "{}_label", "{}_seg"])
@pytest.mark.parametrize("part", ["masks", "labels"])
def test_names_of_masks(name: str, part: str, mine: Path) -> None:
    (mine / "masks").rename(mine / part)
    for path in list((mine / part).iterdir()):
        path.rename(path.with_name(f"{name.format(path.stem)}.png"))
    index = index_pixels(mine)
    assert index.faults == []
    assert {stem: path.stem for stem, path in index.partners.items()} == {
        f"disc{i}": name.format(f"disc{i}") for i in range(4)
    }


def test_two_masks_for_an_image(mine: Path) -> None:
    shutil.copy(mine / "masks" / "disc1.png", mine / "masks" / "disc1_seg.png")
    (fault,) = index_pixels(mine).faults
    assert "disc1_seg.png: no image for it" in str(fault)


def test_sub_folders(mine: Path) -> None:
    (mine / "split.csv").unlink()
    for part in ("images", "masks"):
        for patient, numbers in (("anna", (0, 1)), ("ben", (2, 3))):
            (mine / part / patient).mkdir()
            for slice_, i in enumerate(numbers):
                (mine / part / f"disc{i}.png").rename(mine / part / patient / f"{slice_}.png")
    index = index_pixels(mine)
    assert not any(fault.fatal for fault in index.faults)  # but for a line on --group-by
    assert index.stems == ["anna/0", "anna/1", "ben/0", "ben/1"]
    assert index.partners["ben/1"] == mine / "masks" / "ben" / "1.png"
    (mine / "masks" / "ben" / "1.png").rename(mine / "masks" / "ben" / "1.webp")
    (fault,) = (fault for fault in index_pixels(mine).faults if fault.fatal)
    assert "ben/1.webp: cannot read .webp" in str(fault)


def test_stray_files_are_one_line(mine: Path) -> None:
    for name in ("README.txt", "Thumbs.db", "desktop.ini", ".DS_Store", "LICENSE", "._disc1.png"):
        (mine / "images" / name).write_bytes(b"")
    (fault,) = faults_of_pixels(mine, "multiclass", -100)
    assert not fault.fatal
    assert str(fault).endswith("/images: skipped what is no image: LICENSE, README.txt, Thumbs.db and 1 more")


def test_nnunet_and_the_decathlon(tmp_path: Path) -> None:
    folder = make_volumes(tmp_path / "balls", (20, 32, 20))
    before = index_pixels(folder)
    (folder / "images").rename(folder / "imagesTr")
    (folder / "masks").rename(folder / "labelsTr")
    (folder / "dataset.json").write_text('{"modality": {"0": "CT"}, "labels": {"0": "air", "1": "ball", "2": "stick"}}')
    index = index_pixels(folder)
    assert (index.faults, index.shapes, index.classes) == ([], before.shapes, ["air", "ball", "stick"])
    for path in list((folder / "imagesTr").iterdir()):
        for channel in range(2):
            shutil.copy(path, path.with_name(path.name.replace(".nii", f"_{channel:04d}.nii")))
        path.unlink()
    names = '{"channel_names": {"0": "CT", "1": "PET"}, "labels": {"air": 0, "ball": 1, "ignore": 2}}'
    (folder / "dataset.json").write_text(names)
    index = index_pixels(folder)
    assert (index.faults, index.stems, index.dataset.ignored) == ([], ["a", "b"], 2)
    assert index.shapes["a"] == read_stored(index.images["a"]).shape == (2, 20, 32, 20)


def test_255_is_named_where_all_labels_are_foreground(mine: Path) -> None:
    mask = pixels(mine / "masks" / "disc2.png").copy()
    mask[0] = 255
    save(mine / "masks" / "disc2.png", mask)
    (fault,) = faults_of_pixels(mine, "binary", -100)
    assert not fault.fatal
    assert "255 beside others, read as foreground; --ignore-index 255 ignores it" in str(fault)
    assert faults_of_pixels(mine, "binary", 255) == []


# --------------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize("write", [write_coco, write_voc, write_yolo])
def test_boxes_of_other_tools(write: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make_boxes(tmp_path / "crowns")
    _, (boxes, ignore) = index_scenes(folder)
    write(folder)
    assert holds_boxes(folder)
    index, (found, ignored) = index_scenes(folder)
    assert index.faults == []
    for stem in boxes:
        np.testing.assert_allclose(found[stem], boxes[stem], atol=1e-6)
        assert np.array_equal(ignored[stem], ignore[stem])


def test_polygons_and_crowds(tmp_path: Path) -> None:
    folder = make_boxes(tmp_path / "crowns")
    path = write_yolo(folder)
    path.write_text(path.read_text() + "0 0.1 0.1 0.5 0.1 0.5 0.3\n")
    index, (found, _) = index_scenes(folder)
    assert index.faults == []
    np.testing.assert_allclose(found["right"][-1], [32, 19.2, 160, 57.6])
    path.write_text("0 0.1 a 0.5 0.1\n0 0.1 0.1\n")
    assert [fault.line for fault in index_scenes(folder)[0].faults] == [1, 2]
    shutil.rmtree(folder / "labels")
    (folder / "coco.json").write_text(
        '{"images": [{"id": 1, "file_name": "images/left.png"}, {"id": 2, "file_name": "right.png"}], "annotations": ['
        '{"image_id": 1, "bbox": [1, 2, 9, 9], "iscrowd": 1}, {"image_id": 2, "bbox": [1, 2, 9, 9]}]}'
    )
    assert index_scenes(folder)[1][1]["left"].tolist() == [True]
