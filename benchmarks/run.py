"""How fast, against the memory floor and the rivals: `make bench`, or `python benchmarks/run.py --help`.

The floor of a loss over logits is to read them once, and to read them again and write a gradient of their size:
`z.sum()` and a fresh `torch.neg(z)`. Every figure is a multiple of it, measured in the same run: the candidates take
turns, round by round, and their minima are compared, because times on shared machines drift by 2x. With fresh memory
every large tensor is a new one, for the floor, for us and for the rivals alike: the C library is told to keep no freed
memory, or the page faults of one candidate would be saved by what another has left behind. With reused memory it does
as it likes, which is what a training loop is nearer to.

A rival's value is compared first: a faster wrong answer is no rival. Memory is what a call needs beyond the logits and
their gradient, as a share of the logits. Losses are published beside wins.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lossmith as ls

sys.path.append(str(Path(__file__).parent.parent / "docs"))
import rivals  # the table of what equals what

SHAPES = [(4, 4, 512, 512), (4, 21, 512, 512), (2, 3, 128, 128, 128)]
GROWTH = [
    (1, 2, 512, 1024),
    (1, 2, 7168, 7168),
    (1, 21, 256, 256),
    (1, 21, 2240, 2240),
    (1, 150, 96, 96),
    (1, 150, 832, 832),
]
SMALL = [(128, 10), (2, 2, 64, 64)]
KORNIA = {  # for images only
    "focal_loss(z, y, alpha=None, gamma=2, reduction='mean')": "focal",
    "lovasz_softmax_loss(z, y)": "lovasz(per_image=true)",
}
CATALOGUE = (2, 4, 512, 512)  # the rest of the losses, against torch's cross_entropy
ALONE = [
    "ce", "wce", "focal", "power_ce", "conservative", "quadratic", "ohem", "topk", "boundary_ce", "kl", "dice",
    "jaccard", "tversky", "focal_tversky", "logcosh_dice", "log_dice", "gdl", "ss", "lovasz", "dice_ce", "dice_focal",
    "combo", "explog", "unified_focal", "active_contour", "boundary_f1",
]  # fmt: skip
MAPPED = ["boundary", "distance_penalty", "hausdorff(one_sided=true)"]  # these are given their map


@dataclass(frozen=True)
class Candidate:
    """Something that turns logits and labels into a loss; `same_as` names the candidate of ours with the same value."""

    name: str
    make: Callable[[], Callable[[Tensor, Tensor], Tensor]]
    same_as: str = ""
    factor: Callable[[Tensor], float] = lambda z: 1.0  # the rival's value times this is ours
    plain: bool = False


def ours(text: str) -> Candidate:
    return Candidate(text, lambda: ls.parse(text))


def rival(library: str, theirs: str, same_as: str = "") -> Candidate:
    """A row of the table of rivals; its value is compared with what the table says it equals, or its like."""
    row = next(row for row in rivals.RIVALS if (row.library, row.theirs) == (library, theirs))
    name = f"{library} {theirs.partition('(')[0]}"
    return Candidate(name, lambda: row.call, same_as or row.equal, lambda z: 1 / row.factor(z))


def mapped(text: str) -> Candidate:
    def make() -> Callable[[Tensor, Tensor], Tensor]:
        loss, maps = ls.parse(text), []

        def call(z: Tensor, y: Tensor) -> Tensor:
            if not maps:
                maps.append(ls.distance.signed_distance_map(y, z.shape[1]))
            return loss(z, y, distance=maps[0])

        return call

    return Candidate(f"{text}, map given", make)


def candidates(n_classes: int, spatial: int) -> list[Candidate]:
    found = [
        ours("ce"),
        ours("dice"),
        ours("focal"),
        ours("tversky"),
        ours("gdl"),
        ours("lovasz"),
        ours("dice + ce"),
        ours("dice + focal"),
        ours("dice + ce + focal + tversky"),
        Candidate("dice + ce (plain engine)", lambda: ls.parse("dice + ce"), plain=True),
        rival("torch", "cross_entropy(z, y)"),
        rival("MONAI", "DiceCELoss(softmax=True, smooth_nr=1, smooth_dr=1)", "dice + ce"),
        rival("MONAI", "DiceLoss(softmax=True, smooth_nr=1, smooth_dr=1)"),
        rival("MONAI", "TverskyLoss(softmax=True, alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1)"),
        rival("MONAI", "FocalLoss(use_softmax=True, gamma=2)"),
    ]
    if spatial == 2:
        found += [ours("lovasz(per_image=true)"), *(rival("kornia", row, like) for row, like in KORNIA.items())]
    return found


def always_fresh() -> None:
    """Large allocations are mapped anew each time (glibc only), and small ones are not.

    With a threshold of our own glibc would no longer raise the other one, beyond which it gives freed memory back:
    every small temporary would have fresh pages too.
    """
    if sys.platform == "linux":
        m_mmap_threshold, m_trim_threshold = -3, -1
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 1 << 20)
        ctypes.CDLL(None).mallopt(m_trim_threshold, 1 << 26)


def forget() -> None:
    """Gives free memory back (glibc only), or one candidate would work in pages that another has touched.

    Without it one round of the floor in twelve came out four times too fast.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def problem(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(shape, requires_grad=True), torch.randint(0, shape[1], (shape[0], *shape[2:]))


def patches(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Labels in patches some 16 pixels wide, as in images: what looks at boundaries has some, but not everywhere."""
    z, _ = problem(shape)
    coarse = torch.rand(shape[0], 1, shape[2] // 16, shape[3] // 16)
    smooth = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bilinear")[:, 0]
    return z, (smooth * shape[1]).long().clamp(0, shape[1] - 1)


def once(loss: Callable[[Tensor, Tensor], Tensor], candidate: Candidate, z: Tensor, y: Tensor) -> tuple[float, float]:
    """Seconds of forward and backward."""
    z.grad = None
    forget()
    with ls.use_engine("plain" if candidate.plain else "auto"):
        start = time.perf_counter()
        value = loss(z, y)
        middle = time.perf_counter()
        value.backward()
        end = time.perf_counter()
    return middle - start, end - middle


def floor(z: Tensor) -> tuple[float, float]:
    data = z.detach()
    forget()
    start = time.perf_counter()
    data.sum()
    middle = time.perf_counter()
    torch.neg(data)
    return middle - start, time.perf_counter() - middle


def measure(
    shape: tuple[int, ...],
    pool: list[Candidate],
    rounds: int,
    made: Callable[[tuple[int, ...]], tuple[Tensor, Tensor]] = problem,
) -> dict[str, Any]:
    z, y = made(shape)
    losses = {c.name: c.make() for c in pool}
    values = {c.name: float(losses[c.name](z, y).detach()) for c in pool}
    times: dict[str, list[tuple[float, float]]] = {"floor": [], **{c.name: [] for c in pool}}
    for turn in range(rounds + 1):
        times["floor"].append(floor(z))
        for candidate in pool:
            times[candidate.name].append(once(losses[candidate.name], candidate, z, y))
        if turn == 0:
            times = {name: [] for name in times}  # the first round warms caches and compiles
        if sys.stderr.isatty():
            print(f"\r{shape}: round {turn} of {rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    base = min(sum(t) for t in times["floor"])
    middle = statistics.median(sum(t) for t in times["floor"])
    rows = {}
    for name, found in times.items():
        both = [a + b for a, b in found]
        rows[name] = {
            "times_floor": min(both) / base,
            "times_floor_by_medians": statistics.median(both) / middle,
            "milliseconds": {
                "both": spread(both),
                "forward": spread([a for a, _ in found]),
                "backward": spread([b for _, b in found]),
            },
        }
    for c in pool:
        row: dict[str, Any] = rows[c.name]
        row["value"] = values[c.name]
        if c.same_as:
            row["same_as"] = c.same_as
            mine = values[c.same_as]
            row["value_agrees"] = math.isclose(values[c.name] * c.factor(z), mine, rel_tol=1e-4)
            row["times_ours"] = rows[c.name]["times_floor"] / rows[c.same_as]["times_floor"]
    reference = rows.get("torch cross_entropy")
    for row in rows.values() if reference else ():
        row["times_cross_entropy"] = row["times_floor"] / reference["times_floor"]
    return {"shape": shape, "rounds": rounds, "rows": rows}


def spread(seconds: list[float]) -> list[float]:
    """Minimum and quartiles in milliseconds."""
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    return [round(1000 * s, 3) for s in (min(seconds), *quartiles)]


def memory(shape: tuple[int, ...], pool: list[Candidate]) -> dict[str, float]:
    """Each candidate in a process of its own: the most it ever held beyond logits and gradient, in logits."""
    found = {}
    for number, candidate in enumerate(pool):
        text = ",".join(map(str, shape))
        command = [sys.executable, __file__, "--peak", str(number), "--shape", text]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[candidate.name] = float(done.stdout)
    return found


def peak(shape: tuple[int, ...], candidate: Candidate) -> float:
    """Peak resident memory of one forward and backward; the kernel forgets the earlier peak on request (Linux)."""
    loss = candidate.make()
    small = (1, *shape[1:2], *(8 for _ in shape[2:]))
    once(loss, candidate, *problem(small))  # imports and compiles
    z, y = problem(shape)
    y = y + 0  # touched
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    once(loss, candidate, z, y)
    size = z.numel() * z.element_size() / 1024
    return (resident("VmHWM") - before - size) / size


def resident(key: str) -> float:
    """Kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key)))


def machine() -> dict[str, Any]:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()

    names = ["lossmith", "torch", "numpy", "numba", "monai", "kornia"]
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    cpu = Path("/proc/cpuinfo")
    model = (
        next((x.split(":")[1].strip() for x in cpu.read_text().splitlines() if "model name" in x), "")
        if cpu.exists()
        else ""
    )
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": git("rev-parse", "--short", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--", "src")),
    }


def show(result: dict[str, Any], extra: dict[str, float]) -> None:
    print(f"\nlogits {tuple(result['shape'])}, {result['rounds']} rounds")
    print(f"{'':34}{'× floor (of medians)':>22}{'× torch ce':>12}{'ms (min, median)':>22}{'memory':>9}   against ours")
    for name, row in result["rows"].items():
        low, _, median, _ = row["milliseconds"]["both"]
        held = f"{extra[name]:9.2f}" if name in extra else " " * 9
        against = ""
        if "same_as" in row:
            against = f"{row['times_ours']:.1f} × {row['same_as']!r}" + (
                "" if row["value_agrees"] else ", ANOTHER VALUE"
            )
        ratios = f"{row['times_floor']:12.2f} ({row['times_floor_by_medians']:.2f})".rjust(22)
        ce = f"{row['times_cross_entropy']:.2f}" if "times_cross_entropy" in row else ""
        print(f"{name:34}{ratios}{ce:>12}{low:12.2f}{median:10.2f}{held}   {against}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="rounds per shape, at least 10 for figures to quote")
    parser.add_argument("--shape", help="one shape of logits, for example 4,21,512,512, instead of the usual ones")
    parser.add_argument("--out", type=Path, help="a folder: the figures go to a file there, named by the processor")
    parser.add_argument("--memory", choices=["fresh", "reused"], help="how memory comes; both, if it is not said")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    shapes = [tuple(int(n) for n in chosen.shape.split(","))] if chosen.shape else SHAPES
    if chosen.peak is not None:
        always_fresh()
        print(peak(shapes[0], candidates(shapes[0][1], len(shapes[0]) - 2)[chosen.peak]))
        return
    if chosen.memory is None:  # the C library is told once per process
        for memory in ("fresh", "reused"):
            subprocess.run([sys.executable, *sys.argv, "--memory", memory], check=True)
        return
    if chosen.memory == "fresh":
        always_fresh()
    print(f"\nmemory: {chosen.memory}")
    report = measured(shapes, chosen.rounds, everything=not chosen.shape, peaks=chosen.memory == "fresh")
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        file = chosen.out / (re.sub(r"[^a-z0-9]+", "-", report["machine"]["cpu"].lower()).strip("-") + ".json")
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, chosen.memory: report}, indent=1) + "\n")


def measured(shapes: list[tuple[int, ...]], rounds: int, everything: bool, peaks: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"machine": machine(), "shapes": [], "growth": [], "small": []}
    for shape in shapes:
        pool = candidates(shape[1], len(shape) - 2)
        result = measure(shape, pool, rounds)
        result["memory"] = memory(shape, pool) if peaks and sys.platform == "linux" else {}
        show(result, result["memory"])
        report["shapes"].append(result)
    if not everything:
        return report
    pool = [*map(ours, ALONE), *map(mapped, MAPPED), rival("torch", "cross_entropy(z, y)")]
    report["catalogue"] = measure(CATALOGUE, pool, rounds, patches)
    show(report["catalogue"], {})
    few = [ours("ce"), ours("dice + ce"), rival("torch", "cross_entropy(z, y)")]
    for key, some in (("growth", GROWTH), ("small", SMALL)):
        for shape in some:
            result = measure(shape, few, max(rounds, 30 if key == "small" else 0))
            logits = math.prod(shape)
            result["nanoseconds_per_logit"] = result["rows"]["dice + ce"]["milliseconds"]["both"][0] * 1e6 / logits
            show(result, {})
            print(f"'dice + ce' takes {result['nanoseconds_per_logit']:.2f} ns per logit")
            report[key].append(result)
    return report


if __name__ == "__main__":
    main()
