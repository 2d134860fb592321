"""The kernels for GPUs on a card: whether they are right, the same every time and never wait, and how fast they are.

    python benchmarks/gpu.py --out gpu.json          on a machine with CUDA: 430 seconds (--seconds) at most
    python benchmarks/gpu.py --interpret --tiny      the same code on a CPU, in Triton's interpreter: 4 minutes

Needs torch, Triton and the `src` beside this folder; times monai and exacta too where they can be imported. The status
is 1 if something was wrong. Everything is a job, done in another process by one that never touches the card: one that
breaks its CUDA context, or hangs, takes no other with it. What needs many kernels compiled goes first, side by side.

Times are the device's: before each call the L2 cache is overwritten and the device put to sleep until the host has
launched everything. GB/s count what must be moved: logits twice, labels twice, the gradient; the copy is one of logits.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

INTERPRET, TINY = "--interpret" in sys.argv, "--tiny" in sys.argv
if INTERPRET:
    os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

import lossmith as ls  # noqa: E402

Shape = tuple[int, ...]
DEVICE, COMPILER = ("cpu", "aot_eager") if INTERPRET else ("cuda", "inductor")
cuda: Any = MagicMock() if INTERPRET else torch.cuda  # the one does nothing, whatever is asked of it
if INTERPRET:
    cuda.Event().elapsed_time.return_value = 1.0
    cuda.memory_allocated.return_value = cuda.max_memory_allocated.return_value = 0
LOCK = threading.Lock()
JOBS: dict[str, Callable[[], dict[str, Any]]] = {}  # by name, "part: what", in the order in which they are done


def job(part: str, function: Callable[..., dict[str, Any]], *given: Any, **more: Any) -> None:
    words = ("×".join(map(str, x)) if isinstance(x, tuple) else str(x) for x in given)
    JOBS[f"{part}: {' '.join(words).strip()}"] = functools.partial(function, *given, **more)


def laid(z: Tensor, words: str) -> Tensor:
    """The same values with other strides, or at an odd address."""
    if "channels_last" in words:
        return z.movedim(1, -1).contiguous().movedim(-1, 1)
    if "sliced" in words:
        return F.pad(z, [2, 1] * (z.ndim - 1))[(slice(None), *[slice(2, -1)] * (z.ndim - 1))]
    if "stepped" in words:
        return torch.stack([z, z], -1)[..., 0]
    return F.pad(z.flatten(), [1, 0])[1:].view(z.shape) if "shifted" in words else z


def problem(shape: Shape, words: str) -> tuple[dict[str, Any], Tensor, Tensor, dict[str, Tensor]]:
    """Settings, logits, target and keywords, by words: of the target channels (yes or no in each), rest (one class
    against the rest) or soft, else labels; dtypes and layouts; and what is special about a fifth of the pixels."""
    said, (n, c, *space) = set(words.split()), shape
    r = torch.Generator(DEVICE).manual_seed(zlib.crc32(f"{shape} {words}".encode()))
    randn, rand = (functools.partial(f, generator=r, device=DEVICE) for f in (torch.randn, torch.rand))
    pixels, apart, soft = (n, *space), bool(said & {"channels", "rest"}), "soft" in said
    z, some, void = randn(shape).mul_(3), rand(pixels) < 0.2, -100 if c > 255 or "int8" in said else 255
    y = (rand(pixels) * max(c + ("rest" in said), 2)).long()
    for axis, size in enumerate(space if "patches" in said else (), 1):
        y = y.index_select(axis, torch.arange(size, device=DEVICE) // 8)
    if soft or "channels" in said:
        y = randn(shape)
        y = (y > 0.5).long() if not soft else y.softmax(1) if c > 1 and not apart else y.sigmoid()
    y = y[:, 0] if c == 1 and y.ndim == z.ndim else y
    z = 1e4 * z.sign() if "huge" in said else z
    if said & {"impossible", "trained"}:
        hit = y.unsqueeze(1) == torch.arange(c, device=DEVICE).view(-1, *[1] * len(space))
        z = z + 9.0 * hit if "trained" in said else z.masked_fill(some.unsqueeze(1) & ~hit, -math.inf)
    some[0] |= "void" in said
    if said & {"ignored", "weighted"}:
        z.movedim(1, -1)[some] = math.nan
    if "ignored" in said:
        (y.movedim(1, -1) if y.ndim == z.ndim else y)[some] = void
    if "outside" in said:
        y.view(-1)[-1] = c + 1
    weight = 0.7 * torch.arange(n, device=DEVICE) if "sampled" in said else rand(pixels).masked_fill(some, 0.0)
    dtype = next((x for x in ("bfloat16", "float16") if x in said), "float32")
    label = next((x for x in ("uint8", "int8", "int16", "int32", "bool") if x in said), "float32" if soft else "int64")
    y = laid(y.to(getattr(torch, label)), "shifted" if "misaligned" in said else "")
    task = {"task": "multilabel"} if apart else {"task": "multiclass"} if soft and c > 1 else {}
    weights = {"weight": weight} if said & {"weighted", "sampled"} else {}
    return task | {"ignore_index": void}, laid(z.to(getattr(torch, dtype)), words), y, weights


def stepped(loss: Any, z: Tensor, y: Tensor, **keywords: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient; the logits keep their strides."""
    z = z.detach().requires_grad_()
    value = loss(z, y, **keywords)
    return value.detach(), torch.autograd.grad(value, z)[0]


def signed(mask: Tensor, valid: Tensor, spacing: Sequence[float], double: bool = True) -> Tensor:
    """What `signed_distances` should be, float64, by comparing all pixels with all."""
    valid, out = valid.expand(mask.shape), torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    pixels = torch.ones_like(mask[0, 0]).nonzero() * torch.tensor(spacing, dtype=torch.float64, device=mask.device)
    for at in product(range(mask.shape[0]), range(mask.shape[1])):
        sides = [pixels[(side & valid[at]).flatten()] for side in (mask[at], ~mask[at])]
        if all(map(len, sides)):
            exact = "donot_use_mm_for_euclid_dist"
            to, back = (torch.cdist(pixels, x, compute_mode=exact).amin(1).view(mask[at].shape) for x in sides)
            out[at] = torch.where(mask[at], -back, to) * valid[at]
    return out


ls.distance._by_cpu = signed  # what the plain engine asks for distances: they need no scipy, and are known to be right


def off(found: Tensor, right: Tensor, strays: int = 0) -> float:
    """The largest difference, but for some, as a share of the largest number; NaN where only one of them is finite."""
    found, right = (x.detach().cpu().double().flatten() for x in (found, right))
    if not found.isfinite().equal(right.isfinite()):
        return math.nan
    gaps = (found - right).abs().nan_to_num(0.0).sort().values
    return float(gaps[max(0, len(gaps) - 1 - strays)] / right.abs().nan_to_num(0.0, 0.0, 0.0).max().clamp(min=1e-12))


def correct(text: str, shape: Shape, words: str) -> dict[str, Any]:
    """How far value and gradient are off. A few errors lie between two levels of Lovász, and are not looked at."""
    settings, z, y, keywords = problem(shape, words)
    try:
        value, gradient = stepped(ls.parse(text, **settings), z, y, **keywords)
    except ValueError as error:  # on a CPU labels are looked at where that costs nothing
        return {"wrong": "outside" not in words or not INTERPRET, "is": str(error)[:300]}
    if "outside" in words:
        return {"wrong": not value.isnan(), "is": float(value)}
    with ls.use_engine("plain"):
        cpu = {name: x.cpu() for name, x in keywords.items()}
        right, slope = stepped(ls.parse(text, **settings), z.cpu().double(), y.cpu(), **cpu)
    found = {"value": off(value, right), "gradient": off(gradient, slope, "lovasz" in text and z.numel() // 500)}
    rounding = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 0.0}[z.dtype]
    limits = {"value": 2e-5, "gradient": 2e-5 + rounding * (1 + INTERPRET)}  # the interpreter cuts digits off
    return {"wrong": any(not found[name] <= limits[name] for name in found), **found, "is": float(value)}


def distances(shape: Shape, spacing: Sequence[float], share: float) -> dict[str, Any]:
    mask, valid = (torch.rand((*shape[:1], c, *shape[2:]), device=DEVICE) for c in (shape[1], 1))
    mask, valid = mask < share, valid < 0.8
    mask[0, 0] = False  # absent
    error = off(ls.distance.signed_distances(mask, valid, spacing), signed(mask, valid, spacing))
    return {"wrong": not error <= 1e-6, "value": error}


def beyond(shape: Shape) -> dict[str, Any]:
    """More than 2³¹ logits: their gradient is that of each half."""
    z = torch.empty(shape, device=DEVICE, dtype=torch.bfloat16).normal_()
    y = torch.randint(0, shape[1], (shape[0], *shape[2:]), device=DEVICE, dtype=torch.uint8)
    loss = ls.parse("ce(reduction='sum')")
    whole, halves = stepped(loss, z, y), [stepped(loss, z[:, :, k::2].contiguous(), y[:, k::2]) for k in (0, 1)]
    error = off(whole[0], halves[0][0] + halves[1][0])
    same = all(half[1].equal(whole[1][:, :, k::2]) for k, half in enumerate(halves))
    return {"wrong": not (same and error < 1e-5), "value": error, "the same gradient": same}


LOSSES = "dice + ce; focal(gamma=2.5); conservative; ss; gdl; ce(label_smoothing=0.1); ohem(min_kept=50); topk; LOVASZ"
SPECIAL = """sliced; stepped; shifted; channels_last; huge; impossible; ignored void; int8; int16; misaligned int32; \
    misaligned uint8; weighted misaligned; outside; outside uint8"""
CASES = f"""
{LOSSES} | 2 3 13 17 | ; bfloat16 channels_last; float16 misaligned; ignored uint8; weighted
{LOSSES} | 2 1 13 17; 2 5 9 15; 2 40 5 7 | ignored sampled
{LOSSES} | 2 5 9 15 | channels weighted; rest ignored
boundary; hausdorff | 2 3 6 9; 1 2 5 6 7 | ; bfloat16 ignored; trained
boundary; hausdorff | 2 2 6 5 | channels ignored; channels soft
dice + ce | 1 2 7 19; 1 4 7 19; 1 5 7 19; 1 8 7 19; 1 9 7 19; 1 16 5 9; 1 17 5 9; 1 21 5 9; 1 32 5 9; 1 33 5 9 | \
    ; bfloat16 uint8 ignored; channels_last float16
dice + ce | 1 64 3 5; 1 150 3 5 | bfloat16 uint8 ignored
dice + focal | 2 1 1; 2 1 513; 1 1 999; 2 3 1; 2 3 127; 2 3 128; 2 3 513; 1 3 1300; 1 21 1; 1 21 257; 1 40 1; 1 40 129 |
ce | 300 5; 70 40; 24 1000; 1 150 | ; bfloat16 ignored; sliced; sampled; impossible; outside
focal(gamma=1) + ce(label_smoothing=0.1) | 300 5; 70 40 | bfloat16 ignored; sampled
lovasz; lovasz(bins=64, per_image=true); lovasz(bins=99); dice(per_image=false) | 2 3 7 9 5 | ignored trained
MIX; HINGE; LOVASZ | 2 1 13 17 | huge; sliced; bool; shifted bfloat16; misaligned uint8; outside; soft; soft float16
dice + ce; HINGE; ce(label_smoothing=0.1); focal(gamma=2.5, alpha=0.25) | 2 5 9 15 | channels; rest; soft channels; \
    channels ignored bfloat16; channels_last channels sampled; soft channels ignored; rest uint8 misaligned weighted
dice + ce; LOVASZ | 2 3 13 17 | {SPECIAL}
MIX | 1 12 5 7 | {SPECIAL}
dice + focal | 1 40 5 7 | {SPECIAL}
dice + ce; LOVASZ; dice(squared=true) + focal + kl | 2 3 13 17; 2 40 5 7 | \
    soft; soft ignored; soft bfloat16 channels_last; soft weighted huge
"""
LARGE = """focal(gamma=1) + ce(label_smoothing=0.1) | 24 1000; 1 150 | ; bfloat16 ignored; sliced
dice + ce; lovasz; ce(label_smoothing=0.1) | 2 3 128 128 64; 4 21 600 600; 1 40 700 700; 1 1 1500 1500 | \
    ignored uint8; bfloat16"""  # several blocks a program


def cases() -> None:
    short = {"LOVASZ": "lovasz(bins=64)", "HINGE": "lovasz_hinge(bins=64)"}
    short["MIX"] = "dice(squared=true) + ce + focal + tversky + power_ce"
    for line in (CASES + LARGE * (not TINY)).strip().split("\n"):
        for text, shape, words in product(*([x.strip() for x in part.split(";")] for part in line.split("|"))):
            job("correct", correct, short.get(text, text), tuple(map(int, shape.split())), words)
    spaces = [((2, 3, 40), (0.7,)), ((2, 2, 9, 37), (1.0, 1.0)), ((1, 2, 5, 11, 13), (2.5, 0.8, 0.8))]
    if not TINY:  # rows too long for a scan; offsets that need 64 bits
        spaces += [((1, 2, 129, 257), (0.7, 1.3)), ((1, 2, 20, 33, 45), (3.0, 1.0, 1.0)), ((1, 2, 9000), (0.3,))]
        for shape in ((1, 4, 23200, 23200), (1, 150, 3800, 3800)):
            job("correct", beyond, shape)
    for (shape, spacing), share in product(spaces, (0.5, 0.02)):
        job("correct", distances, shape, spacing, share)


STEPS = [
    ("dice + ce", (4, 21, 512, 512), "uint8"), ("dice + ce", (2, 3, 128, 128, 128), "bfloat16 ignored"),
    ("dice + ce", (2, 150, 256, 256), "bfloat16"), ("dice + ce", (2, 1, 512, 512), ""), ("ce", (4096, 1000), ""),
    ("lovasz(bins=99)", (4, 21, 256, 256), "weighted"), ("topk", (2, 5, 99, 99), ""), ("boundary", (2, 3, 99, 99), ""),
    ("ce(label_smoothing=0.1)", (2, 40, 256, 256), ""), ("lovasz_hinge(bins=50)", (2, 1, 512, 512), ""),
    ("dice + ce", (2, 5, 256, 256), "soft"), ("hausdorff", (2, 3, 128, 128), ""), ("ohem", (2, 5, 512, 512), "ignored"),
    ("gdl + focal(gamma=2.5)", (2, 5, 256, 256), "channels"), ("ss", (2, 5, 256, 256), "sampled"),
]  # fmt: skip


def small(shape: Shape) -> Shape:
    return (min(shape[0], 16), min(shape[1], 5), *(min(s, 8) for s in shape[2:])) if TINY else shape


def captured(step: Callable[[], Any]) -> tuple[Any, Any]:
    """A CUDA graph of a step, and what it writes into."""
    cuda.synchronize()
    with cuda.stream(cuda.Stream()):
        for _ in range(1 if TINY else 3):
            step()
    cuda.synchronize()
    recorded = cuda.CUDAGraph()
    with cuda.graph(recorded):
        kept = step()
    return recorded, kept


def steady(text: str, shape: Shape, words: str, kind: str) -> dict[str, Any]:
    """Against the first run: 99 more; one in which waiting for the device is an error; a graph that was captured with
    other logits; a step that was traced whole, with a little of a model."""
    settings, z, y, keywords = problem(small(shape), words)
    loss = functools.partial(ls.parse(text, **settings), **keywords)
    right, other = stepped(loss, z, y), torch.zeros_like(z)
    if "compile" in kind:
        torch.compiler.reset()
        tell: dict[str, Any] = {"fullgraph": True, "backend": COMPILER, "dynamic": True if "dynamic" in kind else None}
        found = stepped(torch.compile(lambda z, y: loss(z * 1.5, y), **tell), z, y)
        errors = [off(a, b) for a, b in zip(found, stepped(lambda z, y: loss(z * 1.5, y), z, y), strict=True)]
        return {"wrong": any(not e <= (1e-5 if z.dtype == torch.float32 else 1e-2) for e in errors), "off": errors}
    if kind == "graph":
        recorded, kept = captured(lambda: stepped(loss, other, y))
        other.copy_(z)
        recorded.replay()
        return {"wrong": not INTERPRET and not all(a.equal(b) for a, b in zip(kept, right, strict=True))}
    torch.use_deterministic_algorithms(kind == "deterministic")
    cuda.set_sync_debug_mode("error" if kind == "waits" else "default")
    found = [stepped(loss, z, y) for _ in range(1 if TINY or kind == "waits" else 99)]
    cuda.set_sync_debug_mode("default")
    differ = sum(not all(a.equal(b) for a, b in zip(one, right, strict=True)) for one in found)
    return {"wrong": differ > 0, "runs": 1 + len(found), "that differ": differ}


SOLID, PLANE, MORE = (2, 3, 128, 128, 128), (4, 21, 512, 512), (2, 14, 128, 128, 128)
ROWS = [
    ("dice + ce", SOLID, "uint8"), ("dice + ce", PLANE, ""), ("dice + ce", (2, 118, 128, 128, 128), "bfloat16 uint8"),
    ("dice + ce", (8, 150, 512, 512), "bfloat16"), ("ce", (65536, 1000), ""), ("dice + ce", SOLID, "bfloat16 uint8"),
    ("dice + ce", PLANE, "bfloat16 uint8"), ("dice + ce", MORE, "uint8"), ("lovasz", PLANE, ""), ("ce", (128, 10), ""),
    ("dice + ce", (2, 2, 64, 64), ""), ("lovasz", PLANE, "trained"), ("boundary", SOLID, "uint8"), ("ce", PLANE, ""),
    ("ce", (65536, 1000), "bfloat16"), ("dice + ce", MORE, "bfloat16 uint8"), ("lovasz", SOLID, "trained uint8"),
    ("hausdorff", PLANE, "trained"), ("dice + ce", SOLID, ""), ("dice + ce", PLANE, "bfloat16 channels_last uint8"),
]  # fmt: skip


def dice_ce(z: Tensor, y: Tensor, kind: torch.dtype = torch.float32, first: int = 0, smooth: float = 1.0) -> Tensor:
    """Dice + cross-entropy as people write it; as nnU-Net does with a mask for one-hot labels, without background."""
    p, axes = z.float().softmax(1)[:, first:], tuple(range(2, z.ndim))
    r = torch.zeros(z.shape, dtype=kind, device=z.device).scatter_(1, y.unsqueeze(1), 1)[:, first:]
    score = (2 * (p * r).sum(axes) + smooth) / (p.sum(axes) + r.sum(axes) + smooth)
    return 1 - score.mean() + F.cross_entropy(z.float(), y)


def candidates(text: str, settings: dict[str, Any], y: Tensor, c: int) -> dict[str, Callable[[Tensor], Any]]:
    """What takes turns, ours first, each a function of the logits; rivals have int64 labels, converted beforehand."""
    wide, loss, dice = y.long(), ls.parse(text, **settings), "dice" in text
    theirs = {name: import_module(f"{name}.losses") for name in ("monai", "exacta") if find_spec(name)}

    def ours(engine: str, z: Tensor) -> Any:
        with ls.use_engine(engine):
            return loss(z, y)

    found: dict[str, Any] = {"ours": functools.partial(ours, "triton" if INTERPRET else "auto")}
    if text in ("boundary", "hausdorff"):
        masks = F.one_hot(wide, c).movedim(-1, 1) > 0
        return found | {"signed_distances": lambda z: ls.distance.signed_distances(masks)}
    found["plain engine"], rivals = functools.partial(ours, "plain"), dict[str, Any]()
    if text != "lovasz":
        rivals["torch ce"] = F.cross_entropy
        rivals["compiled"] = torch.compile(dice_ce if dice else F.cross_entropy, backend=COMPILER)
    if dice:
        rivals["nnU-Net"] = functools.partial(dice_ce, kind=torch.bool, first=1, smooth=1e-5)
    if dice and "monai" in theirs:
        monai = theirs["monai"].DiceCELoss(to_onehot_y=True, softmax=True, smooth_nr=1, smooth_dr=1)
        rivals["MONAI"] = lambda z, y: monai(z, y.unsqueeze(1))
    if text != "ce" and "exacta" in theirs:
        rivals["exacta"] = theirs["exacta"].DiceCELoss(smooth=1.0) if dice else theirs["exacta"].LovaszSoftmaxLoss()
    return found | {name: lambda z, call=call: call(z, wide) for name, call in rivals.items()}


def once(call: Callable[[Tensor], Any], z: Tensor, cold: bool = True) -> list[float]:
    """Milliseconds of forward, backward and both; if it is not cold, the host's too."""
    z.grad, marks = None, [cuda.Event(enable_timing=True) for _ in range(3)]
    if cold:
        torch.zeros(64 if TINY else 1 << 28, dtype=torch.uint8, device=DEVICE)
        cuda._sleep(1 << 23)  # some 4 ms
    marks[0].record()
    value = call(z)
    marks[1].record()
    if value is not None and value.requires_grad:
        value.backward()
    marks[2].record()
    cuda.synchronize()
    return [marks[a].elapsed_time(marks[b]) for a, b in ((0, 1), (1, 2), (0, 2))]


def speed(text: str, shape: Shape, words: str, rounds: int, until: float) -> dict[str, Any]:
    """All that is measured of a row; with one round whatever must be compiled for it is."""
    settings, z, y, _ = problem(small(shape), words + " patches")
    z, begin, found = z.requires_grad_(), time.time(), dict[str, Any](MB=z.nbytes / 1e6)
    calls, twin = candidates(text, settings, y, z.shape[1]), torch.empty_like(z)
    for name, call in list(calls.items()):
        try:
            once(call, z)
            z.grad, before = None, cuda.memory_allocated()
            cuda.reset_peak_memory_stats()
            step = min(once(call, z, cold=False)[2] for _ in range(min(rounds, 5)))
            peak = cuda.max_memory_allocated() - before - z.nbytes
            with torch.profiler.profile() as seen:
                once(call, z, cold=False)
            kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in seen.events())
            found[name] = {
                "step ms": step,
                "extra MB": peak / 1e6,
                "launches": kernels,
                "value": float(call(z).detach().sum()),
            }
        except Exception as error:  # out of memory, mostly
            found[name] = {"error": repr(error)[:300]}
            del calls[name]
    with contextlib.suppress(Exception):
        recorded, _ = captured(lambda: torch.autograd.grad(calls["ours"](z), z))
        calls["ours, as a graph"] = lambda z: recorded.replay() and None
    calls["copy"], times = lambda z: twin.copy_(z.detach()), dict[str, list[list[float]]]()
    for turn, name in product(range(rounds), calls):
        if turn < 3 or (time.time() - begin < 8 and time.time() < until - 5):
            times.setdefault(name, []).append(once(calls[name], z))
    copied = 2 * z.nbytes / statistics.median(both for _, _, both in times["copy"])
    moved = (z.nbytes + y.nbytes, 2 * z.nbytes + y.nbytes, 3 * z.nbytes + 2 * y.nbytes)
    for name, many in times.items():
        for part, size, some in zip(("forward", "backward", "both"), moved, zip(*many, strict=True), strict=True):
            ms = torch.tensor(some).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
            rates = {"GB/s": size / ms[1] / 1e6, "of a copy": size / ms[1] / copied} if ms[1] else {}
            found.setdefault(name, {})[part] = {"ms": ms, **rates}
    return found


def carry_out(names: list[str], until: float, done: dict[str, Any], out: Path) -> None:
    """In another process; where it ends early, one more goes on behind the job it was at."""
    while names and time.time() < until:
        told = [sys.executable, *sys.argv, "--until", str(until)]
        with subprocess.Popen(told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            timer = threading.Timer(until + 8 - time.time(), process.kill)
            timer.start()
            print("\n".join(names), file=process.stdin)
            process.stdin.close()
            for line in filter(lambda line: line.startswith('{"job"'), process.stdout):
                with LOCK:
                    done[json.loads(line)["job"]] = json.loads(line)
                    wrong = [found for found in done.values() if found["wrong"]]
                    Path(f"{out}.part").write_text(json.dumps({"wrong": wrong, "jobs": done}, indent=1))
                    os.replace(f"{out}.part", out)
            timer.cancel()
        names = [name for name in names if name not in done]
        if names:
            late = time.time() > until
            done[names[0]] = {"wrong": not late, "error": f"not done when the process ended, {process.returncode}"}


def show(done: dict[str, Any]) -> None:
    print(f"\n{'':46}{'ms: p20     p50     p80':>24}{'GB/s':>7}{'of a copy':>10}{'extra MB':>9}  times as long")
    for name, found in done.items():
        if name.startswith("speed") and "both" in found.get("ours", {}):
            ours, given = found["ours"]["both"], {k: v for k, v in found.items() if isinstance(v, dict)}
            all_ms = {k: v["both"]["ms"][1] for k, v in given.items() if "both" in v}
            figures = "".join(f"{ms:8.3f}" for ms in ours["ms"]) + f"{ours['GB/s']:7.0f}{ours['of a copy']:10.2f}"
            others = ", ".join(f"{k} {ms / all_ms['ours']:.2f}" for k, ms in all_ms.items() if k != "ours")
            print(f"{name[7:]:46}{figures}{found['ours']['extra MB']:9.1f}  {others}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "."), "gpu.json"))
    parser.add_argument("--seconds", type=float, default=430)
    parser.add_argument("--interpret", action="store_true", help="on a CPU, in Triton's interpreter")
    parser.add_argument("--tiny", action="store_true", help="small shapes, few repetitions")
    parser.add_argument("--until", type=float, default=0, help=argparse.SUPPRESS)  # for jobs that come by stdin
    given, begin = parser.parse_args(), time.time()
    for row in () if TINY else ROWS:
        job("warm", speed, *row, rounds=1, until=given.until)
    cases()
    kinds = ("waits", "graph", "bits", "deterministic", "compile", "compile dynamic")
    for kind, step in product(kinds, STEPS[: 4 if TINY else None]):
        job(kind, steady, *step, kind=kind)
    for row in ROWS[: 9 if TINY else None]:
        job("speed", speed, *row, rounds=2 if TINY else 40, until=given.until)
    if given.until:
        work()
        return 0
    command = "nvidia-smi --query-gpu=name,compute_cap,driver_version,clocks.sm,clocks.mem,clocks.max.sm --format=csv"
    card = "" if INTERPRET else subprocess.run(command.split(), capture_output=True, text=True, check=False).stdout
    versions = {name: getattr(sys.modules.get(name), "__version__", "") for name in ("torch", "triton", "lossmith")}
    done: dict[str, Any] = {"machine": {"wrong": False, "card": card, "python": sys.version, **versions}}
    alone = [name for name in JOBS if name.startswith("speed")]
    beside, workers = [name for name in JOBS if name not in alone], max(1, min(12, (os.cpu_count() or 1) - 2))
    with ThreadPoolExecutor(workers) as pool:
        until = begin + given.seconds * (0.85 if INTERPRET else 0.55)
        list(pool.map(lambda i: carry_out(beside[i::workers], until, done, given.out), range(workers)))
    carry_out(alone, begin + given.seconds, done, given.out)
    show(done)
    wrong = [name for name, found in done.items() if found["wrong"]]
    print(f"\n{len(done)} of {len(JOBS)} jobs in {time.time() - begin:.0f} s, all in {given.out}; wrong: {len(wrong)}")
    for name in wrong:
        print(name, {word: x for word, x in done[name].items() if word not in ("job", "wrong", "seconds")})
    return len(wrong) > 0


def work() -> None:
    """The jobs that come by stdin, a line for each; no more of them once the device is out of order."""
    torch.set_num_threads(1)
    with ls.use_engine("triton"):
        for name in sys.stdin.read().splitlines():
            begin = time.time()
            torch.use_deterministic_algorithms(False)
            cuda.set_sync_debug_mode("default")
            try:
                found = JOBS[name]()
            except Exception as error:
                short = isinstance(error, torch.OutOfMemoryError)  # of what the others, side by side, have taken
                found = {"wrong": not short, "error": f"{type(error).__name__}: {error}"[:900]}
            line = {"job": name, "wrong": False, **found, "seconds": round(time.time() - begin, 2)}
            print(json.dumps(line), flush=True)
            cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
