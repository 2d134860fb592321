"""All that is wrong in a data folder, in a stable order; a comparison says the first of it that is fatal."""

from pathlib import Path

import numpy as np
import pytest
from advice import pixels, rewrite, save

from lossmith.lab import UserError
from lossmith.lab.data import files
from lossmith.lab.data.faults import Fault
from lossmith.lab.data.files import image_shape, mask_shape, read_image, read_mask
from lossmith.lab.data.labelled import index_pixels
from lossmith.lab.kinds import kind_of
from lossmith.lab.settings import Asked


def faults(folder: Path) -> list[str]:
    """Every fault of a folder, its path relative to that."""
    found = kind_of(folder).faults(folder, Asked(str(folder)))
    assert found == kind_of(folder).faults(folder, Asked(str(folder)))
    return [str(fault).removeprefix(f"{folder}/") for fault in found]


def first(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        kind_of(folder).read(folder, Asked(str(folder)))
    return str(caught.value).removeprefix(f"{folder}/")


def test_a_fault_in_words() -> None:
    path = Path("a.png")
    assert str(Fault(path, "is wrong")) == "a.png: is wrong"
    assert str(Fault(path, "is wrong", "mend it", line=3)) == "a.png, line 3: is wrong; mend it"
    assert str(Fault(path, "is wrong", "Mend it")) == "a.png: is wrong. Mend it"
    assert str(Fault(path, "is it wrong?", "Mend it")) == "a.png: is it wrong? Mend it"


def test_three_faults_of_masks(discs: Path) -> None:
    assert faults(discs) == []
    (discs / "masks" / "disc0.png").unlink()
    save(discs / "masks" / "disc1.png", pixels(discs / "masks" / "disc1.png")[:20])
    rewrite(discs / "split.csv", "disc3,train", "disc3,test")
    said = [
        "images/disc0.png: no mask for it; expected masks/disc0 with .png, .tif or .npy",
        "masks/disc1.png: the mask is 32 x 20 but its image is 32 x 32 pixels; they must have the same size",
        "split.csv, line 5: 'test' is not one of train, validation, unused",
    ]
    assert faults(discs) == said
    assert first(discs) == said[0]


def test_faults_of_names_headers_and_values(discs: Path) -> None:
    (discs / "images" / "more.webp").touch()
    (discs / "images" / "disc0.png").write_bytes(b"no picture")
    (discs / "classes.txt").write_text("once\nonce\n")
    save(discs / "masks" / "disc1.npy", np.full((32, 32), 0.5))
    save(discs / "images" / "disc2.npy", np.full((32, 32), np.nan))
    found = faults(discs)
    assert [text.split(":")[0] for text in found] == [
        *("images/more.webp", "images/disc0.png", "classes.txt", "masks/disc1.npy", "images/disc2.npy")
    ]
    assert first(discs) == found[0]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_file_that_cannot_be_read_is_one_fault(part: str, discs: Path) -> None:
    """Neither its partner nor its row in split.csv is wrong for it."""
    (discs / part / "disc1.png").rename(discs / part / "disc1.webp")
    (text,) = faults(discs)
    assert text.startswith(f"{part}/disc1.webp: cannot read .webp; ")


def test_faults_of_labels(labelled: Path) -> None:
    rewrite(labelled / "labels.csv", "i00,0", "i00,half")
    rewrite(labelled / "labels.csv", "i03,2\n", "")
    save(labelled / "images" / "i02.npy", np.zeros((8, 8)))
    found = faults(labelled)
    assert found == [
        "labels.csv, line 2: 'half' is no label; labels are whole numbers from 0",
        "labels.csv: 'i03' is not listed; give it a label",
        "images/i02.npy: is 8 x 8 pixels, but i00.png is 16 x 16; images with a label each must have one size",
    ]
    assert first(labelled) == found[0]


def test_faults_of_boxes(boxes: Path) -> None:
    (boxes / "classes.txt").write_text("one\ntwo\nthree\n")
    with (boxes / "boxes.csv").open("a") as file:
        file.write("left,9,2,9,9\nup,1,1,2,2\n")
    found = faults(boxes)
    assert [text.split(" ")[0] for text in found] == ["boxes.csv,", "boxes.csv,", "classes.txt:"]
    assert first(boxes) == found[0]


def test_no_box_to_judge_by(boxes: Path) -> None:
    text = (boxes / "boxes.csv").read_text()
    (boxes / "boxes.csv").write_text("".join(line for line in text.splitlines(True) if "right" not in line))
    assert faults(boxes) == ["boxes.csv: no box in the images marked validation"]
    assert first(boxes) == faults(boxes)[0]


def test_a_fault_that_is_not_fatal_stops_nothing(discs: Path) -> None:
    (discs / "classes.txt").write_text("ground\ndisc\nnowhere\n")
    kind, asked = kind_of(discs), Asked(str(discs))
    (fault,) = kind.faults(discs, asked)
    assert not fault.fatal
    assert str(fault) == f"{discs}/classes.txt: names 'nowhere', and no label is that; its scores will mean nothing"
    assert kind.read(discs, asked).classes == ["ground", "disc", "nowhere"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".nii.gz"])
def test_headers_say_the_shape_that_reading_gives(suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    axes = ((12, 10, 8), (12, 10, 8, 3), (12, 10, 8, 1)) if suffix == ".nii.gz" else ((12, 10), (12, 10, 3))
    for shape in axes:
        path = tmp_path / f"a{suffix}"
        save(path, random.integers(1, 200, shape).astype(np.uint8))
        assert image_shape(path) == read_image(path).shape
        if len(shape) == len(axes[0]) or shape[-1] == 1:
            assert mask_shape(path) == read_mask(path, -100).shape


def test_an_index_reads_no_pixels(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_read_array", lambda *_: pytest.fail("read"))
    index = index_pixels(discs)
    assert index.faults == []
    assert index.shapes == {f"disc{i}": (1, 32, 32) for i in range(4)}
