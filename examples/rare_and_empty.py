"""A folder of images in which the object has 0.1 % of the pixels and half of the images are empty:

python examples/rare_and_empty.py rare
lossmith audit rare
lossmith compare rare --loss ce --loss "dice(per_image=false) + ce" --lr auto --seeds 3 --out rare-compare

Made, not photographed: a small bright disc in noise, beside larger faint ones and single hot pixels, which are not it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, TRAIN, HELD_BACK = 96, 64, 32


def picture(random: np.random.Generator, empty: bool) -> tuple[np.ndarray, np.ndarray]:
    """Grey values and the mask."""
    rows, columns = np.mgrid[:SIZE, :SIZE]

    def disc(radius: float) -> np.ndarray:
        y, x = random.uniform(12, SIZE - 12, 2)
        return (rows - y) ** 2 + (columns - x) ** 2 < radius**2

    mask = np.zeros((SIZE, SIZE), bool) if empty else disc(random.uniform(2.0, 2.9))
    grey = random.normal(90, 20, (SIZE, SIZE))
    for _ in range(3):
        grey += 25 * disc(random.uniform(6.0, 10.0))
    grey[tuple(random.integers(0, SIZE, (2, 20)))] += 90
    return np.clip(grey + 60 * mask, 0, 255).astype(np.uint8), mask.astype(np.uint8)


def make(folder: Path) -> None:
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    lines = ["stem,split"]
    for i in range(TRAIN + HELD_BACK):
        for part, pixels in zip(("images", "masks"), picture(random, empty=i % 2 == 1), strict=True):
            Image.fromarray(pixels).save(folder / part / f"{i:03}.png")
        lines.append(f"{i:03},{'train' if i < TRAIN else 'validation'}")
    (folder / "split.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
