"""Compiles the Triton kernels without a GPU and reads the machine code: `python tests/kernels_ahead.py --all`.

What is compiled is what would be launched: the host code runs on tensors without memory (device "meta"), and every call
of `launch` is kept instead, with the types, constants and alignments that Triton itself makes of its arguments.

Columns: registers and bytes of stack of a thread (what it spills, and arrays that need an address), instructions that
read or write the stack, bytes of shared memory; instructions of a thread for each element (a logit; a pixel where the
classes are walked), in each of the innermost loops or else in all, unrolled as they may be; widths of loads and stores
of global memory; seconds of CPU.

It has to run without TRITON_INTERPRET, which makes interpreted functions of the kernels when they are imported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

import lossmith as ls
from lossmith.engine.contract import Want
from lossmith.engine.problem import Problem
from lossmith.engine.triton import distance, maps, operators, order

TARGETS = ("80", "90", "100")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


# ---- what is launched ------------------------------------------------------------------------------------------------


class Launch(NamedTuple):
    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]  # constants, and the number of warps

    @property
    def name(self) -> str:
        return f"{self.kernel.__module__.rpartition('.')[2]}.{self.kernel.__name__}"

    def elements(self, threads: int) -> float:
        """What a thread makes of a block, with so many of them in a warp."""
        told = self.options
        sizes = [told[size] for size in ("B", "BR", "BL", "BI", "BX") if size in told]
        classes = told["C"] if self.name.startswith("softmax") else 1
        return classes * torch.Size(sizes).numel() / (threads * told["num_warps"])


class Case(NamedTuple):
    name: str
    ask: Callable[[], object]  # of the host code
    tested: tuple[str, ...] = ()  # the kernels of it that the tests compile: all of them take minutes
    stack: int = 0  # bytes that a thread may have of it: with any, what fits no register goes through memory
    wide: bool = False  # whether the logits are loaded, and their gradient is stored, 16 bytes at once


def launches(case: Case) -> list[Launch]:
    kept: list[Launch] = []

    def keep(kernel: Any, programs: int, *arguments: Any, num_warps: int = 4, **constants: Any) -> None:
        kept.append(Launch(kernel, arguments, {"num_warps": num_warps, **constants}))

    with contextlib.ExitStack() as patches:
        for module in (distance, maps, operators, order):
            patches.enter_context(mock.patch.object(module, "launch", keep))
        case.ask()
    return kept


# ---- the host code, asked on tensors without memory ------------------------------------------------------------------

DTYPES = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "u8": torch.uint8, "i32": torch.int32,
    "i64": torch.int64,
}  # fmt: skip


def problem(
    classes: int, logits: str, target: str, *space: int, n: int = 8, task: str = "multiclass", last: bool = False,
    weights: bool = False,
) -> Problem:  # fmt: skip
    """`target`: soft if its dtype is one of real numbers. `last`: the classes of a pixel side by side."""
    shape = (n, *space, classes) if last else (n, classes, *space)
    z = torch.empty(shape, dtype=DTYPES[logits], device="meta")
    z = z.movedim(-1, 1) if last else z
    hard = task != "binary" and not DTYPES[target].is_floating_point
    y = torch.empty((n, *space) if hard else z.shape, dtype=DTYPES[target], device="meta")
    w, sample = torch.empty(n, *space, device="meta"), torch.empty(n, device="meta")
    given = (w, sample) if weights else (None, None)
    return Problem(z, y, *given, task, 255)  # type: ignore[arg-type]


def given(p: Problem) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    return p.logits, p.target, p.weight, p.sample


def passed(text: str, *shape: Any, **more: Any) -> Callable[[], None]:
    """Both ways of the pass for a sum of losses."""

    def ask() -> None:
        p, want = problem(*shape, **more), Want()
        for term in text.split("+"):
            want |= ls.parse(term.strip()).wants()  # type: ignore[attr-defined]
        asked = operators.Asked.of(p, want)
        table, u = operators._sums(*given(p), *asked)
        operators._gradient(*given(p), table, u if asked.u else None, *asked)

    return ask


def ordered(*shape: Any, hinge: bool = False, per_image: bool = False, **more: Any) -> Callable[[], None]:
    def ask() -> None:
        p = problem(*shape, **more)
        told = p.task, p.ignore_index, 1024, per_image, hinge
        _, _, *kept = order._forward(*given(p), *told)
        order._backward(*given(p), *kept, *told)

    return ask


def mapped(error: str, *shape: Any, **more: Any) -> Callable[[], None]:
    def ask() -> None:
        p = problem(*shape, **more)
        price, told = torch.empty(p.logits.shape, device="meta"), (p.task, p.ignore_index, error)
        maps._backward(*given(p), price, maps._forward(*given(p), price, *told), *told)

    return ask


def measured(*space: int) -> Callable[[], object]:
    seeds = torch.empty(24, *space, dtype=torch.bool, device="meta")
    return lambda: distance.squared_distances(seeds, [1.0] * len(space))


# ---- the cases -------------------------------------------------------------------------------------------------------

BOTH = ("sums", "gradient")
MUCH = "dice + ss + focal(gamma=2.5) + ce(label_smoothing=0.1) + conservative + power_ce(exponent=0.7)"


def cases() -> Iterator[Case]:
    """`make test-all` compiles those that are the likeliest to spill, `make test` the first of every kernel."""
    size, huge = (512, 512), (1024, 1024, 1024)  # the strides of huge images are 64 bits wide
    for c in (2, 3, 4, 9, 21, 32):
        for dtypes in (("fp32", "i64"), ("bf16", "u8")):
            tested = {(4, "fp32"): BOTH, (32, "fp32"): ("sums",)}.get((c, dtypes[0]), ())
            name = f"C={c} {' '.join(dtypes)}, dice + ce"
            yield Case(name, passed("dice + ce", c, *dtypes, *size), tested, wide=c <= 4 and dtypes[0] == "fp32")
    yield Case("C=3 fp16 i64, ce", passed("ce", 3, "fp16", "i64", *size))
    yield Case("C=3 fp32 i32, dice", passed("dice", 3, "fp32", "i32", *size), wide=True)
    # Sums per row and class are too many here, 6 · 32 and 10 · 21: up to 160 of them fit.
    yield Case("C=32 fp32 i64, dice + ss + ce", passed("dice + ss + ce", 32, "fp32", "i64", *size), stack=128)
    yield Case("C=21 fp32 i64, much", passed(MUCH, 21, "fp32", "i64", *size), stack=256)
    yield Case("C=3 fp32 i64, much", passed(MUCH, 3, "fp32", "i64", *size, weights=True), ("sums",))
    yield Case("C=3 fp32 i64, dice + ohem", passed("dice + ohem", 3, "fp32", "i64", *size, weights=True))
    yield Case("C=3 fp32 i64, entropy", passed("entropy", 3, "fp32", "i64", *size))
    yield Case("C=3 fp32 i64, odd size", passed("dice + ce", 3, "fp32", "i64", 511, 511))
    yield Case("C=3 fp32 i64, volume", passed("dice + ce", 3, "fp32", "i64", *huge, n=4))
    yield Case("C=4 fp32 i64, last", passed("dice + ce", 4, "fp32", "i64", *size, last=True), ("sums",))
    yield Case("C=21 bf16 u8, last", passed("dice + ce", 21, "bf16", "u8", *size, last=True), ("sums",))
    yield Case("C=10 fp32 i64, apart", passed("dice + ce", 10, "fp32", "i64", n=4096), BOTH)
    for task, target in (("binary", "u8"), ("binary", "fp32"), ("multilabel", "i64")):
        tested = () if task == "multilabel" else BOTH
        name = f"sigmoid, {task} fp32 {target}, dice + ce"
        classes = 1 if task == "binary" else 5
        yield Case(name, passed("dice + ce", classes, "fp32", target, *size, task=task), tested, wide=target != "i64")
    yield Case("sigmoid, binary bf16 u8, dice + ce", passed("dice + ce", 1, "bf16", "u8", *size, task="binary"))
    yield Case(
        "sigmoid, binary fp32 fp32, much", passed(MUCH, 1, "fp32", "fp32", *size, task="binary", weights=True), BOTH
    )
    yield Case("sigmoid, binary fp32 fp32, apart", passed("dice + ce", 5, "fp32", "fp32", n=4096, task="binary"))
    yield Case("C=150 fp32 i64, dice + ce", passed("dice + ce", 150, "fp32", "i64", *size), BOTH)
    yield Case("C=150 bf16 u8, dice + ce", passed("dice + ce", 150, "bf16", "u8", *size))
    yield Case("C=150 fp32 fp32, dice + ce", passed("dice + ce", 150, "fp32", "fp32", *size))
    yield Case("C=3 fp32 fp32, much", passed(MUCH, 3, "fp32", "fp32", *size, weights=True), BOTH)
    yield Case("C=150 fp32 i64, apart", passed("dice + ce", 150, "fp32", "i64", n=4096))
    for c in (1000, 32000):
        yield Case(f"C={c} bf16 i64, apart, ce", passed("ce", c, "bf16", "i64", n=2048), BOTH, wide=True)
    order_both = ("histogram", "charge")
    for c in (3, 21, 150):
        yield Case(f"C={c} fp32 i64, lovasz", ordered(c, "fp32", "i64", *size), order_both if c == 21 else ())
    yield Case("C=21 bf16 u8, lovasz per image", ordered(21, "bf16", "u8", *size, per_image=True))
    name = "sigmoid, binary fp32 u8, lovasz hinge"
    yield Case(name, ordered(1, "fp32", "u8", *size, task="binary", hinge=True), ("largest", *order_both))
    for error in ("chance", "residual", "square"):
        yield Case(
            f"C=3 fp32 i64, map of {error}", mapped(error, 3, "fp32", "i64", *size), BOTH if error == "square" else ()
        )
    yield Case("C=3 fp32 fp32, map of square", mapped("square", 3, "fp32", "fp32", *size))
    yield Case("sigmoid, binary fp32 u8, map of chance", mapped("chance", 1, "fp32", "u8", *size, task="binary"))
    yield Case("distances 512²", measured(512, 512), ("along_rows", "along_axis"))
    yield Case("distances 8192 x 64", measured(64, 8192))


# ---- machine code ----------------------------------------------------------------------------------------------------

INSTRUCTION = re.compile(r"^\s+(?:/\*[0-9a-f]+\*/)?\s*(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_.]*)\b(.*);")


def compiled(launch: Launch, target: str) -> Any:
    """As `kernel[grid](…)` does it, but for a GPU that is not here."""
    gpu = GPUTarget("hip", target, 64) if target.startswith("gfx") else GPUTarget("cuda", int(target), 32)
    backend, kernel = make_backend(gpu), launch.kernel
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, more = bind(*launch.arguments, **launch.options, debug=False)
    options, signature, constants, attributes = kernel._pack_args(backend, more, bound, specialization, more)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=gpu, options=options.__dict__)


def tool(name: str, *arguments: str) -> str:
    return subprocess.run((TOOLS / name, *arguments), capture_output=True, text=True, check=True).stdout


def read(kernel: Any) -> dict[str, Any]:
    """Of NVIDIA's machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text, usage = tool("nvdisasm", "-c", file.name), tool("cuobjdump", "--dump-resource-usage", file.name)
    code: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in text.splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            labels[label.group(1)] = len(code)
        elif found := INSTRUCTION.match(line):
            code.append((found.group(1), found.group(2)))
            back = re.search(r"`\(\.(L_\w+)\)", found.group(2)) if found.group(1).startswith("BRA") else None
            start = labels.get(back.group(1), len(code)) if back else len(code)
            loops += [(start, len(code))] if len(code) - start > 8 else []
    used = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert used is not None, usage
    moved: Counter[str] = Counter()
    for operation, _ in code:
        kind = operation.partition(".")[0]
        if kind in ("LDG", "STG", "LDL", "STL"):
            width = re.search(r"\.[US]?(8|16|64|128)\b", operation)
            moved[f"{kind}.{width.group(1) if width else 32}"] += 1
    inner = [end - start for start, end in loops if not any(start <= a and b < end for a, b in loops)]
    spills = sum(n for name, n in moved.items() if name[:3] in ("LDL", "STL"))
    return {
        "registers": int(used.group(1)), "stack": int(used.group(2)), "spills": spills, "moved": dict(moved),
        "shared": kernel.metadata.shared, "loops": inner, "length": len(code),
    }  # fmt: skip


def read_amd(kernel: Any) -> dict[str, Any]:
    text = kernel.asm["amdgcn"]

    def told(name: str) -> int:
        return int(re.search(rf"\.{name}:\s*(\d+)", text).group(1))  # type: ignore[union-attr]

    moved = Counter(re.findall(r"\b(?:global|buffer)_(?:load|store)_\w+", text))
    length = len(re.findall(r"^\t[sv]_\w+|^\t(?:global|buffer|ds)_\w+", text, re.MULTILINE))
    return {
        "registers": told("vgpr_count"), "stack": told("private_segment_fixed_size"), "moved": dict(moved),
        "spills": told("vgpr_spill_count"), "shared": kernel.metadata.shared, "loops": [], "length": length,
    }  # fmt: skip


def found(job: tuple[int, str, str]) -> dict[str, Any]:
    """Of one kernel of a case, by number, for a target. `failed` says what the compiler said."""
    number, name, target = job
    case = list(cases())[number]
    one = next(launch for launch in launches(case) if launch.name == name)
    amd = target.startswith("gfx")
    elements = one.elements(64 if amd else 32)
    told: dict[str, Any] = {"case": case.name, "kernel": name, "target": target, "elements": elements}
    told["allowed"] = case.stack
    told["wide"] = elements * one.arguments[0].element_size() // 16 if case.wide and not amd else 0
    begin = sum(os.times()[:4])  # with those of the assembler, which is a process of its own
    try:
        kernel = compiled(one, target)
        told |= read_amd(kernel) if amd else read(kernel)
    except Exception as error:
        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
        told["failed"] = " <- ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
    return told | {"seconds": sum(os.times()[:4]) - begin}


def fault(told: dict[str, Any]) -> str | None:
    """What is wrong with a kernel, and with which; None if nothing is."""
    wrong = []
    if "failed" in told:
        wrong.append(f"does not compile: {told['failed']}")
    else:
        if told["stack"] > told["allowed"] or (told["spills"] and not told["allowed"]):
            wrong.append(f"{told['stack']} bytes of stack, {told['spills']} instructions that spill")
        for what in ("LDG", "STG") if told["kernel"].endswith("gradient") else ("LDG",):
            if told["moved"].get(f"{what}.128", 0) < told["wide"]:
                wrong.append(f"{what} of 128 bits wanted {told['wide']:g} times: {told['moved']}")
    return f"{told['kernel']}, {told['case']}, on {told['target']}: {'; '.join(wrong)}" if wrong else None


def row(told: dict[str, Any]) -> str:
    head = f"{told['target']:6} {told['kernel']:20} {told['case']:42}"
    if "failed" in told:
        return f"{head} FAILED {told['failed'][:2000]}"
    moved = " ".join(f"{name}×{n}" for name, n in sorted(told["moved"].items()))
    each = "+".join(f"{n / told['elements']:.1f}" for n in told["loops"] or [told["length"]])
    each += "" if told["loops"] else " in all"
    return (
        f"{head} reg {told['registers']:3} stack {told['stack']:4} spills {told['spills']:3} shared {told['shared']:6}"
        f" each {each:14} {moved}  {told['seconds']:.1f} s"
    )


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=TARGETS, help="compute capabilities, or gfx942")
    parser.add_argument("--all", action="store_true", help="all cases, not only those of the tests")
    parser.add_argument("--once", action="store_true", help="every kernel once: of the cases of the tests, the first")
    parser.add_argument("--only", default="", help="cases and kernels with this in their name")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print what was found for a program to read")
    args = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        parser.error("TRITON_INTERPRET=1 leaves nothing to compile")
    jobs: list[tuple[int, str, str]] = []
    for number, case in enumerate(cases()):
        for name in dict.fromkeys(launch.name for launch in launches(case)):
            mine = args.all or name.partition(".")[2] in case.tested
            if mine and args.only in f"{name} {case.name}":
                jobs += [(number, name, target) for target in args.targets]
    if args.once:
        jobs = [job for at, job in enumerate(jobs) if job[1:] not in [other[1:] for other in jobs[:at]]]
    with (
        tempfile.TemporaryDirectory() as fresh,  # a kernel compiled before proves nothing
        mock.patch.dict(os.environ, {"TRITON_CACHE_DIR": fresh}),
        ProcessPoolExecutor(args.processes, get_context("spawn")) as pool,
    ):
        results = []
        for told in pool.map(found, jobs):
            results.append(told)
            if not args.json:
                print(row(told), flush=True)
    faults = [found for found in map(fault, results) if found]
    if args.json:
        json.dump(results, sys.stdout)
    else:
        print("\n".join(faults or ["nothing is wrong"]))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
