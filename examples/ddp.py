"""The same training on two processes and on one, step by step: python examples/ddp.py

Dice over the batch is a ratio of sums, and cross-entropy a mean over the pixels that count: split over processes, each
would be another loss. With `group="world"` both are those of the whole batch. Six crops of real images a step, of which
one process has four and the other two; one crop is mostly ignored. The last column is what two processes train with
when nobody tells them of each other: the mean of their losses.
"""

from __future__ import annotations

import tempfile
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import lossmith as ls
from lossmith.lab.data.builtin import find_folder
from lossmith.lab.data.labelled import read_pixels

STEPS, BATCH, SIZE, SHARES = 20, 6, 64, (slice(0, 4), slice(4, 6))
LOSS = "dice(per_image=false, ignore_index=255) + ce(ignore_index=255)"


def crops(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """A batch for each step: windows of the frames, the same for everybody."""
    samples = read_pixels(folder, "bacteria", "multiclass", 255).train
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(STEPS):
        images, labels = [], []
        for _ in range(BATCH):
            sample = samples[int(torch.randint(len(samples), (1,), generator=generator))]
            top, left = (int(torch.randint(n - SIZE + 1, (1,), generator=generator)) for n in sample.label.shape)
            window = slice(top, top + SIZE), slice(left, left + SIZE)
            images.append(torch.from_numpy(sample.image[(slice(None), *window)]).double())
            labels.append(torch.from_numpy(sample.label[window]).long())
        target = torch.stack(labels)
        target[0, 8:] = 255
        batches.append((torch.stack(images), target))
    return batches


def train(batches: list[tuple[Tensor, Tensor]], share: slice, group: Any, wrap: Any) -> list[float]:
    """The losses of all steps."""
    torch.manual_seed(0)
    channels = batches[0][0].shape[1]
    net = nn.Sequential(nn.Conv2d(channels, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 5, padding=2)).double()
    model, loss = wrap(net), ls.parse(LOSS, group=group)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for images, labels in batches:
        optimiser.zero_grad()
        value = loss(model(images[share]), labels[share])
        value.backward()
        optimiser.step()
        values.append(value.item())
    return values


def worker(rank: int, store: str, batches: list[tuple[Tensor, Tensor]], results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=len(SHARES))
    found = [train(batches, SHARES[rank], group, DistributedDataParallel) for group in ("world", None)]
    results.put((rank, found))
    dist.destroy_process_group()


def on_two(batches: list[tuple[Tensor, Tensor]]) -> tuple[list[list[float]], list[list[float]]]:
    """The losses of every process, with the group and without."""
    context = get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        about = str(Path(folder) / "store"), batches, results
        workers = [context.Process(target=worker, args=(rank, *about)) for rank in range(len(SHARES))]
        for process in workers:
            process.start()
        found: dict[int, Any] = {}
        while len(found) < len(workers):
            try:
                found |= [results.get(timeout=0.2)]
            except Empty:
                if any(process.exitcode for process in workers):
                    raise SystemExit("a process ended before its last step; its error stands above") from None
        for process in workers:
            process.join()
    shared, apart = zip(*(found[rank] for rank in range(len(SHARES))), strict=True)
    return list(shared), list(apart)


def main(batches: list[tuple[Tensor, Tensor]]) -> float:
    """Trains all ways and prints them beside each other; returns the largest difference with the group."""
    shared, apart = on_two(batches)
    alone = train(batches, slice(0, BATCH), None, lambda net: net)
    largest = 0.0
    print("step   one process    two with group   difference   two without")
    for step, value in enumerate(alone):
        off = max(abs(value - values[step]) for values in shared)
        without = sum(values[step] for values in apart) / len(apart)
        print(f"{step + 1:4d}   {value:.9f}    {shared[0][step]:.9f}      {off:.1e}      {without:.9f}")
        largest = max(largest, off)
    print(f"largest difference: {largest:.1e}")
    return largest


if __name__ == "__main__":
    main(crops(find_folder("bacteria", print)))
