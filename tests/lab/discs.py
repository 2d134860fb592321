"""A tiny data set for the lab's tests: bright discs on a noisy ground, easy to learn, made in milliseconds."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_folder(folder: Path, images: int = 8, size: int = 48) -> Path:
    """A folder with images/ and masks/ (PNG, labels 0 and 1); two of the images are held back by split.csv."""
    random = np.random.default_rng(7)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rows, columns = np.mgrid[:size, :size]
    split = ["stem,split"]
    for i in range(images):
        y, x = random.integers(12, size - 12, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 8**2
        grey = random.normal(60, 10, (size, size)) + 120 * disc
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"disc{i}.png")
        Image.fromarray(disc.astype(np.uint8)).save(folder / "masks" / f"disc{i}.png")
        split.append(f"disc{i},{'validation' if i < 2 else 'train'}")
    (folder / "split.csv").write_text("\n".join(split) + "\n")
    return folder
