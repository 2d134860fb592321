"""Tiny aerial photographs for the detector's tests: bright discs in boxes, made in milliseconds."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_folder(folder: Path, size: int = 192, boxes: int = 9) -> Path:
    """A folder with images/ (one to train on, one of 2 x 1 tiles held back) and boxes.csv."""
    random = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    lines = ["stem,x1,y1,x2,y2"]
    for stem, width in (("left", size), ("right", 320)):
        rows, columns = np.mgrid[:size, :width]
        grey = random.normal(60, 10, (size, width))
        places = [(x, y) for x in range(32, width - 24, 64) for y in range(32, size - 24, 64)][:boxes]
        for x, y in places:
            radius = int(random.integers(12, 24))
            grey += 100 * ((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
            lines.append(f"{stem},{x - radius},{y - radius},{x + radius},{y + radius}")
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{stem}.png")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    (folder / "split.csv").write_text("stem,split\nleft,train\nright,validation\n")
    return folder
