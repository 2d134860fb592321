"""What the lab says of formats, layouts and annotations that mean something else than it takes them for."""

import gzip
import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from advice import Said, follows, pixels, reached, save
from annotations import write_coco, write_voc
from balls import make_volumes
from PIL import Image

FOCAL = ["--loss", "focal + giou"]


def jpeg(path: Path, array: np.ndarray, quality: int = 90) -> None:
    Image.fromarray(array).save(path, quality=quality)


@follows("save it as PNG from the source")
def test_masks_as_jpeg(discs: Path, said: Said) -> None:
    path = discs / "masks" / "disc2.png"
    mask = pixels(path)
    path.unlink()
    jpeg(path.with_suffix(".jpg"), mask * np.uint8(255))
    for words in ([], ["--task", "binary"]):
        line = said("compare", discs, *words)
        assert line.endswith("is a JPEG, which changes labels; save it as PNG from the source")
    path.with_suffix(".jpg").rename(path)  # under another name it is one still
    assert said("compare", discs).endswith("is a JPEG, which changes labels; save it as PNG from the source")
    path.unlink()
    tifffile.imwrite(path.with_suffix(".tif"), mask, compression="jpeg")
    assert said("compare", discs).endswith("by JPEG, which changes labels; save it as PNG from the source")
    path.with_suffix(".tif").unlink()
    jpeg(discs / "lossy.jpg", mask * np.uint8(255))
    save(path, pixels(discs / "lossy.jpg"))
    for words in ([], ["--task", "binary"]):
        assert "it went through JPEG; save it as PNG from the source" in said("compare", discs, *words)
    found = re.search(r"but two classes: (.*)$", said("compare", discs))
    assert found is not None
    mended = eval(found[1], {"mask": pixels(path), "numpy": np})
    assert np.array_equal(mended, mask)
    for sound in (mended, mask):
        save(path, sound)
        assert said("compare", discs) == ""


@follows("Add --pages volume or --pages channels", "save one image or volume a file")
def test_pages(discs: Path, said: Said) -> None:
    for part in ("images", "masks"):
        for path in list((discs / part).iterdir()):
            stack = np.stack([pixels(path)] * 32)
            path.unlink()
            tifffile.imwrite(path.with_suffix(".tif"), stack)
    line = said("compare", discs)
    assert line.endswith("holds 32 pages, a volume or channels? Add --pages volume or --pages channels")
    assert said("compare", discs, "--pages", "volume") == ""
    for path in (discs / "masks").iterdir():
        tifffile.imwrite(path, tifffile.imread(path)[0])
    assert said("compare", discs, "--pages", "channels") == ""
    path = discs / "images" / "disc2.tif"
    tifffile.imwrite(path, np.zeros((2, 3, 32, 32), np.uint8), photometric="minisblack", metadata={"axes": "TQYX"})
    assert said("compare", discs, "--pages", "channels").endswith("save one image or volume a file")


@follows(
    "Replace it (numpy: numpy.where(image == {}, numpy.median(image[image != {}]), image)), and save the label that is "
    "ignored there"
)
@pytest.mark.parametrize(("value", "tagged"), [(-9999, False), (-32768, False), (65535, True)])
def test_no_measurement(value: int, tagged: bool, discs: Path, said: Said) -> None:
    path = discs / "images" / "disc2.tif"
    image = pixels(path.with_suffix(".png")).astype(np.int32)
    image[:4] = value
    path.with_suffix(".png").unlink()

    def write(array: np.ndarray) -> None:
        tifffile.imwrite(path, array, extratags=[(42113, "s", 0, str(value), True)] if tagged else [])

    write(image)
    line = said("compare", discs)
    assert f"holds {value} in 12.5% of its pixels, far from all others: no measurement?" in line
    found = re.search(r"numpy: (.*)\), and", line)
    assert found is not None
    write(eval(found[1], {"image": image, "numpy": np}).astype(np.int32))
    assert said("compare", discs) == ""


@follows("Save or copy it again", "cut it into tiles, or save it as TIFF")
def test_headers_that_promise_too_much(discs: Path, volumes: Path, said: Said) -> None:
    path = discs / "images" / "disc2.png"
    sound = pixels(path)
    save(path.with_suffix(".npy"), sound)
    numbers = path.with_suffix(".npy")
    with numbers.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)})
    assert said("compare", discs).endswith("has room for 128. Damaged? Save or copy it again")
    save(path, sound)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 60000, 60000)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    path.write_bytes(raw)
    line = said("compare", discs)
    assert re.search(r"promises more than [\d,]+ pixels; cut it into tiles, or save it as TIFF$", line)
    save(path, sound)
    assert said("compare", discs) == ""
    whole = volumes / "images" / "a.nii.gz"
    raw = bytearray(gzip.decompress(whole.read_bytes()))
    raw[42:48] = struct.pack("<hhh", 30000, 30000, 30000)
    whole.write_bytes(gzip.compress(bytes(raw)))
    assert said("compare", volumes).endswith("Damaged? Save or copy it again")


@follows(
    "remove the orientation tag of the image if the mask was drawn on it as it is stored",
    "if the mask was drawn on the pixels as they are stored, remove the tag",
)
def test_orientation_tags(discs: Path, said: Said) -> None:
    path = discs / "images" / "disc2.png"
    image, mask = pixels(path), pixels(discs / "masks" / "disc2.png")
    tag = Image.Exif()
    tag[0x0112] = 6
    for sides, refused in ((np.s_[:32, :20], True), (np.s_[:32, :32], False)):
        Image.fromarray(image[sides]).save(path, exif=tag)
        save(discs / "masks" / "disc2.png", mask[sides])
        line = said("compare", discs)
        if refused:
            assert "mask is 20 x 32 but its image is 32 x 20 pixels, turned upright as its tag says" in line
            assert line.endswith(
                "; remove the orientation tag of the image if the mask was drawn on it as it is stored"
            )
            Image.fromarray(image[sides]).save(path)
        assert said("compare", discs) == ""


@follows("Then use --ignore-index {}, else name each class in classes.txt")
def test_255_beside_class_numbers(discs: Path, said: Said) -> None:
    path = discs / "masks" / "disc2.png"
    mask = pixels(path).copy()
    mask[0, :20], mask[1] = np.arange(1, 21), 255
    save(path, mask)
    line = said("compare", discs)
    assert "holds the label 255 beside 0 to 20, unlabelled? Then use --ignore-index 255, else name" in line
    assert said("compare", discs, "--ignore-index", 255) == ""
    (discs / "classes.txt").write_text("".join(f"class {k}\n" for k in range(256)))
    assert said("compare", discs) == ""


@follows("Then write each into classes.txt, the absent too")
def test_gaps(discs: Path, said: Said) -> None:
    path = discs / "masks" / "disc2.png"
    save(path, pixels(path) * np.uint8(7))
    assert said("compare", discs) == ""
    (discs / "classes.txt").write_text("".join(f"class {k}\n" for k in range(8)))
    assert said("compare", discs) == ""


# ------------------------------------------------------------------------------------------------------------- layouts


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    folder = make_volumes(tmp_path / "Dataset001_balls", (20, 32, 20))
    (folder / "images").rename(folder / "imagesTr")
    (folder / "masks").rename(folder / "labelsTr")
    for path in list((folder / "imagesTr").iterdir()):
        for channel in range(2):
            shutil.copy(path, path.with_name(path.name.replace(".nii", f"_{channel:04d}.nii")))
        path.unlink()
    describe(folder, {"background": 0, "ball": 1, "stick": 2})
    return folder


def describe(folder: Path, labels: object) -> None:
    found = {"channel_names": {"0": "CT", "1": "PET"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(found))


@follows(
    "give each label its own number",
    "add --ignore-index {}",
    "its labels are {}",
    'name them: "labels": {"background": 0, "tumour": 1}',
    "keep what the images need in it",
    "give every case all its channels, from _0000 on",
)
def test_dataset_json(nnunet: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = {"background": 0, "ball": 1, "stick": 2}
    assert said("compare", nnunet) == ""
    for labels, advice in (
        ({"background": 0, "whole": [1, 2], "stick": 2}, "regions overlap, and here a pixel has one class; give each"),
        ({"background": 0, "ball": "one"}, "give each label its own number"),
        ({"background": 0, "ball": 1, "stick": 3}, "its labels are [0, 1, 3]; number them 0, 1, 2 … without gaps"),
        ({}, 'name them: "labels": {"background": 0, "tumour": 1}'),
        (json.loads('{"background": 0, "ball": 1, "ignore": 2}'), "ignores the label 2; add --ignore-index 2"),
    ):
        describe(nnunet, labels)
        assert advice in said("compare", nnunet)
    assert said("compare", nnunet, "--ignore-index", 2) == ""
    describe(nnunet, sound)
    monkeypatch.setattr("lossmith.lab.data.nnunet._MOST_BYTES", 20)
    assert said("compare", nnunet).endswith("; keep what the images need in it")
    monkeypatch.undo()
    monkeypatch.setattr("lossmith.lab.run.comparison.ThreadPoolExecutor", reached)
    (nnunet / "imagesTr" / "b_0001.nii.gz").rename(nnunet / "imagesTr" / "b_0002.nii.gz")
    assert "b_0001, is missing; give every case all its channels, from _0000 on" in said("compare", nnunet)
    (nnunet / "imagesTr" / "b_0002.nii.gz").unlink()
    assert "1 channels, but dataset.json names 2; give every case all its channels" in said("compare", nnunet)


# --------------------------------------------------------------------------------------------------------------- boxes


@follows(
    "the box {} of {} must have x1 < x2 and y1 < y2 inside its {} x {} image",
    "each image needs id and file_name",
    "each needs image_id and bbox = [x, y, width, height]",
    "else move it",
    "for one of them alone, keep only its boxes",
)
def test_coco(boxes: Path, said: Said) -> None:
    path = write_coco(boxes)
    sound = json.loads(path.read_text())
    assert said("compare", boxes, *FOCAL) == ""

    def wrong(part: str, key: str, value: object) -> str:
        broken = json.loads(json.dumps(sound))
        broken[part][0][key] = value
        path.write_text(json.dumps(broken))
        return said("compare", boxes, *FOCAL)

    assert "must have x1 < x2 and y1 < y2 inside its 192 x 192 image" in wrong("annotations", "bbox", [2, 2, 999, 9])
    assert wrong("annotations", "bbox", [2, 2]).endswith("each needs image_id and bbox = [x, y, width, height]")
    assert wrong("annotations", "category_id", 2) == ""  # merged, with a line that is no error
    assert wrong("images", "file_name", "gone.png").endswith(
        "an image without things is to be listed too; else move it"
    )
    del sound["images"][0]["id"]
    path.write_text(json.dumps(sound))
    assert said("compare", boxes, *FOCAL).endswith("each image needs id and file_name")


@follows("each object needs a bndbox of numbers")
def test_voc(boxes: Path, said: Said) -> None:
    path = write_voc(boxes)
    text = path.read_text()
    assert said("compare", boxes, *FOCAL) == ""
    bomb = '<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;">]>'
    for broken in (bomb + text, text.replace("<xmin>", "<xmin>a"), text[:-4]):
        path.write_text(broken)
        assert said("compare", boxes, *FOCAL).endswith("each object needs a bndbox of numbers")
    path.write_text(text)
    assert said("compare", boxes, *FOCAL) == ""
