"""The Triton kernels broken on purpose, in the interpreter, as `test_mutants.py` breaks the formulas: what they work
out, not where they read and write, which would end the process.

One in 160 in `make test`, all with `make test-all`, an hour.
"""

from __future__ import annotations

import ast
import functools
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from triton.runtime.interpreter import InterpretedFunction

import lossmith as ls
from lossmith.engine.triton import (
    arithmetic,
    call,
    curves,
    many,
    mapped,
    ordered,
    pixels,
    rows,
    sigmoid,
    softmax,
    walk,
)
from lossmith.engine.triton import maps as by_triton
from mutants import Mutant, Target, mutants, nodes, replace, written
from problems import labels_of, logits_of, shares_of
from test_maps import test_a_small_error_keeps_its_digits as small_errors_over_a_map
from test_maps import test_kernels_sum_as_torch_does as sums_over_a_map
from test_triton import LAYOUTS, assert_right
from triton_survivors import SURVIVORS

pytestmark = pytest.mark.slow

ONE_IN = 320  # mutants are tried in `make test`
MODULES = (arithmetic, curves, many, mapped, ordered, pixels, rows, sigmoid, softmax, walk)
BENT = "focal(gamma=1) + focal(gamma=3) + focal(gamma=1.5) + conservative + power_ce(exponent=0.7)"
EVERYTHING = "dice + dice(squared=true) + ce + ss + focal"
SMOOTH = "ce(label_smoothing=0.2) + ss"
SPACE = (2, 11, 13)  # more than one block of pixels that walk their classes, and two of them not full


def softmax_(text: str, channels: int = 3, layout: str = "", **settings: Any) -> Callable[[], None]:
    def check() -> None:
        logits = logits_of(2, channels, 11, 13).float()
        logits[0, :, 1] *= 40 if "lovasz" not in text else 1  # a level may be missed by a rounding
        logits = LAYOUTS[layout](logits) if layout else logits
        labels = labels_of(channels, *SPACE)
        assert_right(ls.parse(text, ignore_index=255, **settings), logits, labels, weight=weight())

    return check


def weight() -> torch.Tensor:
    """Of every pixel, some of them 0."""
    given = logits_of(*SPACE, seed=5).float().abs()
    return given.masked_fill(given < 0.3, 0.0)


def soft(text: str) -> Callable[[], None]:
    def check() -> None:
        shares = shares_of(2, 4, 11, 13).float()
        shares[0, :, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0]).unsqueeze(1)
        shares[1, 2, 3, 4] = -1.0  # ignored
        logits = logits_of(2, 4, 11, 13).float() * 5
        assert_right(ls.parse(text, task="multiclass", ignore_index=-1), logits, shares, weight=weight())

    return check


def channels(text: str, kind: str) -> Callable[[], None]:
    def check() -> None:
        logits = logits_of(2, 3, 11, 13).float() * 4
        target = {
            "hard": labels_of(2, 2, 3, 11, 13),
            "rest": labels_of(4, *SPACE),
            "soft": (2 * logits_of(2, 3, 11, 13, seed=7)).sigmoid().float(),
        }[kind]
        loss = ls.parse(text, task="multilabel", ignore_index=255)
        assert_right(loss, LAYOUTS["turned"](logits), target, weight=weight())
        assert_right(loss, logits, target, weight=torch.tensor([2.0, 0.0]))

    return check


def single(text: str, count: int, **settings: Any) -> Callable[[], None]:
    """Images of one pixel, more than a block of them."""

    def check() -> None:
        sample = logits_of(131, seed=3).float().abs().masked_fill(torch.arange(131) % 5 == 0, 0.0)
        labels = labels_of(min(count, 250), 131) if settings.get("task") != "multilabel" else labels_of(2, 131, count)
        logits = logits_of(131, count).float() * 3
        logits[7] *= 30
        assert_right(ls.parse(text, ignore_index=255, **settings), logits, labels, weight=sample)

    return check


def out_of_range() -> None:
    for settings, shape in (({}, (1, 3, 4)), ({}, (1, 40, 4)), ({"task": "multilabel"}, (1, 3, 4))):
        for label in (-1, shape[1] + 1):
            labels = torch.zeros(1, 4, dtype=torch.long)
            labels[0, 2] = label
            assert ls.CrossEntropyLoss(**settings)(torch.zeros(shape), labels).isnan()
    for settings in ({"task": "multilabel"}, {"task": "multiclass"}):
        for value in (-0.5, 1.5):
            target = torch.full((1, 3, 4), 1 / 3)
            target[0, 1, 2] = value
            assert ls.CrossEntropyLoss(**settings)(torch.zeros(1, 3, 4), target).isnan()
            assert ls.CrossEntropyLoss(**settings)(torch.zeros(1, 3, 4), target.clamp(-5e-5, 1 + 5e-5)).isfinite()


def nothing_possible() -> None:
    for count in (3, 40):
        labels = torch.zeros(1, 2, dtype=torch.long)
        assert ls.CrossEntropyLoss()(torch.full((1, count, 2), -math.inf), labels).isnan()
        value = ls.CrossEntropyLoss()(torch.full((1, count, 2), -3e38), labels)
        assert value.item() == pytest.approx(math.log(count))


def tiny_errors() -> None:
    """To their last digits."""
    logits = torch.zeros(1, 3, 5)
    logits[:, 0] = torch.tensor([1.0, 9.0, 17.0, 40.0, 80.0])
    for task in ("multiclass", "multilabel"):
        target = torch.tensor([1, 0, 0]).reshape(1, 3, 1).expand(1, 3, 5)
        hard = target.argmax(1) if task == "multiclass" else target
        loss = ls.parse("ce(reduction='none')", task=task)
        value = loss(logits, hard)
        with ls.use_engine("plain"):
            torch.testing.assert_close(value.double(), loss(logits.double(), hard), rtol=2e-6, atol=0)


def maps() -> None:
    for error in ("chance", "residual", "square"):
        for name in ("labels", "shares", "one of several", "soft mask"):
            sums_over_a_map(by_triton, error, name, "pixel")
    small_errors_over_a_map(by_triton, "labels")


CHECKS = {  # the quick ones first
    "out of range": out_of_range,
    "nothing possible": nothing_possible,
    "tiny errors": tiny_errors,
    "few": softmax_(EVERYTHING),
    "few, bent": softmax_(BENT),
    "few, u": softmax_("ohem + topk"),
    "few, smooth": softmax_(SMOOTH),
    "few, turned": softmax_("dice + ce", layout="turned"),
    "few, side by side": softmax_("dice + ce + ss", 5, layout="channels last"),
    "few, nine": softmax_("dice + ce", 9),
    "few, two": softmax_("dice + ce", 2),
    "few, single": single(EVERYTHING, 4),
    "many": softmax_("dice + ce + ss + focal", 34),
    "many, u": softmax_("ohem + ce(label_smoothing=0.1)", 34),
    "many, single": single("dice + ce", 34),
    "every": softmax_("entropy(reduction='none')", 3),
    "soft": soft(EVERYTHING),
    "soft, bent": soft(BENT),
    "soft, smooth": soft(SMOOTH),
    "soft, every": soft("ohem"),
    "rows": single("ce + focal(gamma=1.5)", 40),
    "rows, u": single("ohem", 40),
    "channels": channels(EVERYTHING, "hard"),
    "channels, bent": channels(BENT, "hard"),
    "channels, soft, bent": channels(BENT, "soft"),
    "channels, smooth": channels(SMOOTH, "hard"),
    "channels, rest": channels("dice + ce", "rest"),
    "channels, u": channels("ohem", "hard"),
    "channels, soft": channels(EVERYTHING, "soft"),
    "channels, soft, smooth": channels(SMOOTH, "soft"),
    "channels, every": channels("ohem + entropy", "soft"),
    "channels, single": single("dice + ce", 3, task="multilabel"),
    "order": softmax_("lovasz(bins=16)"),
    "order, batch": softmax_("lovasz(bins=16, per_image=false)"),
    "order, single": single("lovasz(bins=16, per_image=false)", 4),
    "order, channels": channels("lovasz(bins=16)", "hard"),
    "hinge": channels("lovasz_hinge(bins=16)", "hard"),
    "hinge, single": single("lovasz_hinge(bins=16, per_image=false)", 3, task="multilabel"),
    "maps": maps,
}
# Of these `test_triton.py` has the like: they have to pass with `make test-all`, and wherever they notice something.
ELSEWHERE = {
    *("few, turned", "few, side by side", "few, nine", "few, two", "few, single", "many, single", "rows, u"),
    *("order, single", "channels, single", "hinge, single"),
}
OF = {
    many: ("many", "soft", "every"),
    softmax: ("few",),
    rows: ("rows",),
    sigmoid: ("channels",),
    ordered: ("order", "hinge"),
    mapped: ("maps",),
}


def kernels() -> Iterator[tuple[Any, InterpretedFunction]]:
    for module in MODULES:
        for value in vars(module).values():
            if isinstance(value, InterpretedFunction) and value.fn.__module__ == module.__name__:
                yield module, value


def broken(kernel: InterpretedFunction, mutant: Mutant) -> Any:
    """What the interpreter shall run instead."""
    tree = written(mutant.target)
    replace(tree, nodes(tree)[mutant.at], mutant.replacement)
    changed = kernel.rewriter.ast_transformer.visit(ast.fix_missing_locations(ast.Module([tree], [])))
    space: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(changed), f"<{mutant}>", "exec"), kernel.fn.__globals__, space)
    return space[kernel.fn.__name__]


def elsewhere(kernel: InterpretedFunction) -> set[int]:
    """Nodes that say where something is read or written: broken, they would end the process, not a test."""
    tree, found = written(Target(None, kernel.fn)), set()
    known = {id(node): at for at, node in enumerate(nodes(tree))}
    for node in ast.walk(tree):
        names = [getattr(target, "id", "") for target in getattr(node, "targets", [getattr(node, "target", None)])]
        moves = isinstance(node, ast.Call) and ast.unparse(node.func) in ("tl.load", "tl.store", "tl.atomic_add", "add")
        if moves or (isinstance(node, ast.Assign | ast.AugAssign) and PLACES & set(names)):
            found |= {known[id(inner)] for inner in ast.walk(node) if id(inner) in known}
    return found


PLACES = {
    *(
        "at",
        "seen",
        "to",
        "here",
        "first",
        "image",
        "chunk",
        "whose",
        "group",
        "row",
        "pixel",
        "place",
        "u_at",
        "i",
        "k",
    ),
    *("z", "y", "zp", "yp", "zq", "yq", "part", "own_part", "out", "up", "cost", "costs", "counts", "totals", "scale"),
    *("table", "ok", "label", "mine", "slot", "slots", "c", "k", "planes"),
}


def noticed(check: Callable[[], None]) -> bool:
    torch.manual_seed(0)
    try:
        with ls.use_engine("triton"):
            check()
    except (Exception, pytest.fail.Exception):
        return True
    return False


@functools.cache
def sound(check: Callable[[], None]) -> bool:
    """A check that fails on the whole kernels would notice everything."""
    return not noticed(check)


NAMES = [f"{module.__name__.rpartition('.')[2]}.{kernel.fn.__name__}" for module, kernel in kernels()]


@pytest.mark.parametrize("name", NAMES)
def test_every_mutant_of_a_kernel_is_killed(name, request, monkeypatch):
    module, kernel = next(pair for pair, known in zip(kernels(), NAMES, strict=True) if known == name)
    monkeypatch.setattr(call, "FROM", 1)
    monkeypatch.setattr(call, "SHARE", 2)
    order = [check for key, check in CHECKS.items() if key.split(",")[0] in OF.get(module, ())]
    left = [check for check in CHECKS.values() if check not in order] if module not in OF else []
    tried = [*order, *left]
    kernel.rewrite()
    known = kernel.rewritten_fn
    whole, survivors = known[kernel.fn], []
    places = elsewhere(kernel)
    for mutant in [mutant for mutant in mutants(Target(None, kernel.fn)) if mutant.at not in places]:
        title = f"{name}: {mutant.what}"
        skipped = not request.config.getoption("--thorough") and zlib.crc32(title.encode()) % ONE_IN
        if title in SURVIVORS or skipped:
            continue
        try:
            known[kernel.fn] = broken(kernel, mutant)
            at = next((k for k, check in enumerate(tried) if noticed(check)), None)
        finally:
            known[kernel.fn] = whole
        if at is None:
            survivors.append(title)
        else:
            tried.insert(0, tried.pop(at))
            assert sound(tried[0])
    assert not survivors, "no check notices:\n" + "\n".join(survivors)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.one_in(3)
def test_the_whole_kernels_pass(name, request, monkeypatch):
    if name in ELSEWHERE and not request.config.getoption("--thorough"):
        pytest.skip("with --thorough")
    monkeypatch.setattr(call, "FROM", 1)
    monkeypatch.setattr(call, "SHARE", 2)
    with ls.use_engine("triton"):
        CHECKS[name]()
