"""Tiny volumes and tiny labelled images for the lab's tests."""

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image


def make_volumes(folder: Path, shape: tuple[int, int, int] = (32, 36, 40)) -> Path:
    """Two NIfTI volumes with a ball (label 1) and a bright stick (label 2) in noise; the second is held back."""
    random = np.random.default_rng(7)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    x, y, z = np.indices(shape)
    for stem, centre in (("a", (16, 16, 16)), ("b", (14, 20, 24))):
        label = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < 8**2).astype(np.uint8)
        label[4:6, 4:30, 4:6] = 2
        grey = random.normal(0, 1, shape).astype(np.float32) + 10 * label
        for part, volume in (("images", grey), ("masks", label)):
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / part / f"{stem}.nii.gz")
    (folder / "split.csv").write_text("stem,split\na,train\nb,validation\n")
    return folder


def make_labelled(folder: Path, images: int = 24, size: int = 32) -> Path:
    """Images whose label is how bright their middle is: 0 for half of them, 1 for a third, 2 for the rest."""
    random = np.random.default_rng(7)
    (folder / "images").mkdir(parents=True)
    labels, split = ["stem,label"], ["stem,split"]
    for i in range(images):
        label = (0, 1, 0, 2, 0, 1)[i % 6]
        grey = random.normal(60, 10, (size, size))
        grey[8:24, 8:24] += 60 * label
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"i{i:02d}.png")
        labels.append(f"i{i:02d},{label}")
        split.append(f"i{i:02d},{'validation' if i < images // 4 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")
    (folder / "split.csv").write_text("\n".join(split) + "\n")
    return folder
