"""Writes the tables of docs/scale.md: `python docs/scale.py`; with `--check` says whether they are current.

How wrong a loss is when a batch of 64 images sits on several processes that know nothing of each other, which is what
data-parallel training does: the mean of their losses against the loss of the batch, and the angle between the mean of
their gradients and its gradient. In float64, on small images of one kind of object that many of them lack.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tables import cells, filled, table_head, update
from torch import Tensor

import lossmith as ls
from lossmith.losses.dense import Dense

PAGE = Path(__file__).with_name("scale.md")
RESULTS = Path(__file__).parent.parent / "benchmarks/results"
IMAGES, SIZE, PROCESSES = 64, 24, (2, 8, 64)
SETTINGS = {"lovasz": "bins=64", "ohem": "min_kept=2000"}  # small images are not the small number of pixels of a step


def images() -> tuple[Tensor, Tensor]:
    """Logits and labels: an object of 1 to 200 pixels in half of the images, up to a third of an image ignored."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(IMAGES, SIZE, SIZE, dtype=torch.long)
    for image in labels:
        if torch.rand((), generator=generator) < 0.5:
            side = 1 + int(13 * torch.rand((), generator=generator) ** 2)
            top, left = (int(torch.randint(SIZE - side + 1, (1,), generator=generator)) for _ in range(2))
            image[top : top + side, left : left + side] = 1
        image[: int(SIZE / 3 * torch.rand((), generator=generator) + 0.5)] = -100
    noise = torch.randn(IMAGES, 2, SIZE, SIZE, generator=generator, dtype=torch.float64)
    noise[:, 1] += 2.0 * (labels == 1) - 1.0
    return noise, labels


def losses() -> list[str]:
    """All that read two classes, and with one region over the batch where there is a choice."""
    texts = []
    for row in ls.catalogue():
        if not issubclass(row.cls, Dense) or "multiclass" not in row.cls.tasks or row.cls.sees_ignored:
            continue
        settings = SETTINGS.get(row.name, "")
        texts.append(f"{row.name}({settings})" if settings else row.name)
        if row.fields.get("per_image") is True:
            texts.append(f"{row.name}(per_image=false)")
    return texts


def off(text: str, logits: Tensor, labels: Tensor, processes: int) -> tuple[float, float]:
    """By how many percent the value is off, and by how many degrees the gradient."""
    loss, found = ls.parse(text), []
    for parts in (1, processes):
        z = logits.clone().requires_grad_()
        pairs = zip(z.chunk(parts), labels.chunk(parts), strict=True)
        value = torch.stack([loss(*pair) for pair in pairs]).mean()
        value.backward()
        assert z.grad is not None
        found.append((value.item(), z.grad.flatten()))
    (whole, slope), (apart, other) = found
    cosine = float(slope @ other / (slope.norm() * other.norm()))
    return 100 * (apart / whole - 1), math.degrees(math.acos(min(1.0, cosine)))


def table() -> Iterator[str]:
    """The losses that are off, the worst first."""
    logits, labels = images()
    rows, exact = [], []
    for text in losses():
        found = [off(text, logits, labels, n) for n in PROCESSES]
        if max(abs(x) for pair in found for x in pair) < 1e-4:
            exact.append(f"`{text}`")
        else:
            rows.append((found[-1][1], text, found))
    yield from table_head("loss", *(f"{n} processes: value, gradient" for n in PROCESSES))
    yield from (line(text, found) for _, text, found in sorted(rows, reverse=True))
    if exact:
        yield ""
        yield f"Not off here: {', '.join(exact)}."


def line(text: str, found: list[tuple[float, float]]) -> str:
    return cells(f"`{text}`", *(f"{percent(value)}, {angle:.1f}°" for value, angle in found))


def measured() -> Iterator[str]:
    """What `benchmarks/scale.py` has found."""
    for file in sorted(RESULTS.glob("scale-*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        yield f"{found['cpu']}, torch {found['torch']}, commit {found['commit'][:7]}."
        yield ""
        columns = [result["processes"] for result in found["results"]]
        yield from table_head("", "loss", "told by a process", *(f"{n} process{'es' * (n > 1)}" for n in columns))
        rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for result in found["results"]:
            for row in result["rows"]:
                rows.setdefault((row["what"], row["loss"]), {})[result["processes"]] = row
        for (what, loss), by in rows.items():
            last = by[max(by)]
            told = f"{last['group bytes']:,} bytes in {last['group collectives']}"
            yield cells(WHAT[what], f"`{loss}`", told, *(taken(by.get(n)) for n in columns))
        peaks = ", ".join(f"{result['peak GiB of a process']:.1f}" for result in found["results"])
        yield ""
        yield f"At most {peaks} GiB a process."


WHAT = {"step": "2 images of 256² a process, two classes", "slabs": "10⁸ voxels in slabs, two classes"}


def taken(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    alone = f" (without the group {1e3 * row['alone']:.1f})" if "alone" in row else ""
    return f"{1e3 * row['group']:,.1f} ms{alone}"


def percent(x: float) -> str:
    return "0 %" if abs(x) < 0.005 else f"{'+' if x > 0 else '−'}{abs(x):.2g} %"


def written(page: str) -> str:
    """The page with its table made anew."""
    with ls.use_engine("plain"):
        page = filled(page, "apart", "\n".join(table()), PAGE)
    return filled(page, "measured", "\n".join(measured()), PAGE)


if __name__ == "__main__":
    sys.exit(update(PAGE, written, (__doc__ or "").splitlines()[0]))
