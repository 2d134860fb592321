"""What sharing a batch costs: losses with `group=` on a few processes of this machine: `python benchmarks/scale.py`.

Every process has one thread. Two things are measured: a step of data-parallel training, of the loss alone, with the
group and without in turns; and one large volume cut into slabs. Times are minima of rounds, of the slowest process;
bytes are what a process puts into the collectives of a step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import lossmith as ls

STEP = (2, 2, 256, 256)  # images of each process
VOLUME = (1, 2, 480, 456, 456)  # 1e8 voxels
STEPS = ["ce", "dice", "dice(per_image=false) + ce", "gdl(per_image=false) + focal", "lovasz", "ohem", "topk"]
SLABS = ["dice + ce", "lovasz", "ohem"]


def made(shape: tuple[int, ...], rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    logits = torch.randn(shape, generator=generator)
    return logits, (torch.rand((shape[0], *shape[2:]), generator=generator) < 0.1).long()


def timed(loss: ls.Loss, logits: Tensor, labels: Tensor) -> float:
    logits.grad = None
    if dist.is_initialized():
        dist.barrier()
    start = time.perf_counter()
    loss(logits, labels).backward()
    return time.perf_counter() - start


def told() -> list[int]:
    """The bytes of the collectives from here on."""
    seen: list[int] = []

    def spy(name: str) -> None:
        real = getattr(dist, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            sent = arguments[-1]
            seen.append(sent.numel() * sent.element_size())
            return real(*arguments, **keywords)

        setattr(dist, name, call)

    for name in ("all_reduce", "all_gather"):
        spy(name)
    return seen


def measure(rank: int, members: int, store: str, rounds: int, volume: tuple[int, ...], results: Any) -> None:
    torch.set_num_threads(1)
    group: Any = None
    if members > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=members)
        group = "world"
    seen, found = told(), []
    jobs = [("step", text, STEP, rounds) for text in STEPS] if members > 1 else []
    slab = (*volume[:2], volume[2] * (rank + 1) // members - volume[2] * rank // members, *volume[3:])
    jobs += [("slabs", text, slab, max(2, rounds // 10)) for text in SLABS]
    for what, text, shape, times in jobs:
        logits, labels = made(shape, rank)
        logits.requires_grad_()
        shared = ls.parse(text, group=group, split="space" if what == "slabs" else "images")
        alone = ls.parse(text)
        best: dict[str, float] = {}
        for _ in range(times):
            for name, loss in (("group", shared), ("alone", alone))[: 2 if what == "step" else 1]:
                seen.clear()
                taken = timed(loss, logits, labels)
                best[name] = min(best.get(name, 9e9), taken)
                best[f"{name} bytes"], best[f"{name} collectives"] = sum(seen), len(seen)
        found.append({"what": what, "loss": text, "shape": list(shape), **best})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    results.put((rank, found, peak))
    if members > 1:
        dist.barrier()
        dist.destroy_process_group()


def run(members: int, rounds: int, volume: tuple[int, ...]) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        about = members, str(Path(folder) / "store"), rounds, volume, results
        workers = [context.Process(target=measure, args=(rank, *about)) for rank in range(members)]
        for worker in workers:
            worker.start()
        found = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
    rows = []
    for each in zip(*(rows for _, rows, _ in found), strict=True):
        row = dict(each[0])
        row |= {name: max(other[name] for other in each) for name in ("group", "alone") if name in row}
        rows.append(row)
    return {"processes": members, "peak GiB of a process": max(peak for *_, peak in found), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tiny", action="store_true", help="a small volume and few rounds: whether it runs")
    chosen = parser.parse_args()
    volume, rounds = ((1, 2, 12, 8, 8), 2) if chosen.tiny else (VOLUME, chosen.rounds)
    found = [run(members, rounds, volume) for members in (1, 2, 3)]
    for result in found:
        print(f"{result['processes']} processes, at most {result['peak GiB of a process']:.1f} GiB each")
        for row in result["rows"]:
            alone = f", alone {1e3 * row['alone']:.2f}" if "alone" in row else ""
            told = f"{row['group bytes']:,} bytes in {row['group collectives']} collectives"
            print(f"  {row['what']:5} {row['loss']:32} {1e3 * row['group']:9.2f} ms{alone}; {told}")
    if chosen.out:
        about = {
            "machine": platform.machine(),
            "torch": torch.__version__,
            "cpu": cpu(),
            "commit": commit(),
            "results": found,
        }
        chosen.out.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def commit() -> str:
    told = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return told.stdout.strip()


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
