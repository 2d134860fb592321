"""The kernels for GPUs, in Triton's interpreter on a CPU, against plain torch in float64.

The catalogue runs with them as well: a few of its tests here, all of them with `make test-all`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import lossmith as ls
from lossmith.distance import signed_distances
from lossmith.engine import choice
from lossmith.engine.triton import call, maps, operators, order, sums
from problems import PROBLEMS, ROWS, build, instead_of_numba, labels_of, logits_of, shares_of

pytestmark = pytest.mark.one_in(6)  # cases of each test: the interpreter is slow

EVERYTHING = "dice + ce + focal(gamma=2.5) + conservative + ss + power_ce(exponent=0.7)"
FIELDS = {row.name for row in ROWS if row.family == "field"}


@pytest.fixture(autouse=True)
def _triton() -> Iterator[None]:
    with ls.use_engine("triton"):
        yield


def valued(loss: Any, logits: Tensor, target: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    """The value and the gradient of its sum, laid out as the logits."""
    z = logits.detach().requires_grad_()
    value = loss(z, target, **given)
    value.sum().backward()
    return value.detach(), z.grad


def assert_right(loss: Any, logits: Tensor, target: Tensor, step: float | None = None, **given: Any) -> None:
    """As plain torch in float64; a gradient in half precision is that one rounded (the interpreter cuts off)."""
    value, gradient = valued(loss, logits, target, **given)
    with ls.use_engine("plain"):
        expected, wanted = valued(loss, logits.double(), target, **given)
    torch.testing.assert_close(value.double(), expected, rtol=3e-6, atol=3e-6, equal_nan=True)
    step = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2**-7}[logits.dtype] if step is None else step
    largest = float(wanted.abs().nan_to_num(0.0).max()) if wanted.numel() else 0.0
    torch.testing.assert_close(gradient.double(), wanted, rtol=step, atol=step * largest, equal_nan=True)


# ---- every loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in FIELDS], ids=lambda row: row.name)
def test_every_loss(row, problem):
    """Whole images, and two of them on their way in the same kernel. Every loss, not with every problem."""
    if problem.task in row.cls.tasks and (ROWS.index(row) + PROBLEMS.index(problem)) % 3 == 0:
        assert_right(build(row, problem), problem.logits.float(), problem.target)


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in FIELDS], ids=lambda row: row.name)
def test_losses_that_look_at_neighbours_are_left_to_torch(row):
    problem = next(p for p in PROBLEMS if p.task in row.cls.tasks and p.axes == 2)
    with pytest.raises(RuntimeError, match=r"use_engine\('triton'\) cannot serve this call: no kernel hands out"):
        build(row, problem)(problem.logits.float(), problem.target)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9, 17, 32, 33, 40])
@pytest.mark.parametrize("space", [(), (1,), (7,), (130,), (3, 5), (2, 1, 4)], ids=str)
def test_any_number_of_classes_and_pixels(channels, space):
    """Between kernels that hold all classes and those that walk them; images of one pixel; blocks that are not full."""
    if (channels + len(space) + math.prod(space)) % 2 == 0:
        loss = ls.parse(EVERYTHING if channels < 9 else "dice + ce + focal(gamma=2.5)", ignore_index=255)
        assert_right(loss, logits_of(2, channels, *space).float(), labels_of(max(channels, 2), 2, *space))


@pytest.mark.parametrize("classes", [150, 1000])
def test_classes_side_by_side(classes):
    """(N, C): no sums per class, so a program reads a row."""
    loss = ls.parse("ce + 0.5 * focal(gamma=1.5)", ignore_index=255)
    labels = labels_of(min(classes, 255), 6)
    assert_right(loss, logits_of(6, classes).float(), labels)
    assert_right(ls.parse("ohem", ignore_index=255), logits_of(6, classes).float(), labels)
    last = logits_of(2, classes, 2, 3).float().to(memory_format=torch.channels_last)  # a program for each pixel
    for some in (last, last[..., 1:3], last[:1].expand(2, -1, -1, -1))[: 3 if classes == 150 else 1]:
        labels = labels_of(min(classes, 255), 2, *some.shape[2:])
        assert_right(loss, some, labels, weight=torch.rand(labels.shape))


@pytest.mark.parametrize("task", ["multiclass", "soft", "multilabel", "multilabel soft", "rest", "binary"])
@pytest.mark.parametrize("text", ["dice + ce", "lovasz(bins=16)", "lovasz_hinge(bins=16)", "boundary", "entropy"])
def test_pixels_are_shared_out(task, text, monkeypatch):
    """Programs that take several blocks, and several programs for an image."""
    monkeypatch.setattr(call, "FROM", 1)
    monkeypatch.setattr(call, "SHARE", 2)
    channels = 1 if task == "binary" else 3
    space = (37, 41) if text == "dice + ce" and task != "soft" else (13, 23)  # blocks of 512 pixels, or of 128
    logits, shape = logits_of(2, channels, *space).float(), (2, *space)
    target = {
        "multiclass": labels_of(3, *shape),
        "soft": shares_of(2, 3, *space).float(),
        "multilabel": labels_of(2, 2, 3, *space),
        "multilabel soft": logits_of(2, 3, *space, seed=7).sigmoid().float(),
        "rest": labels_of(4, *shape),
        "binary": labels_of(2, *shape),
    }[task]
    kind = {"soft": "multiclass", "multilabel soft": "multilabel", "rest": "multilabel"}.get(task, task)
    if text.startswith("lovasz_hinge") and kind == "multiclass":
        return
    assert_right(ls.parse(text, task=kind, ignore_index=255), logits, target)


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("weight", ["sample", "pixel"])
def test_errors_in_order_with_weights(per_image, weight):
    logits, labels = logits_of(3, 4, 9, 8).float(), labels_of(4, 3, 9, 8)
    given = torch.tensor([0.0, 0.3, 2.0]) if weight == "sample" else torch.rand(3, 9, 8).round(decimals=1)
    loss = ls.parse(f"lovasz(bins=16, per_image={str(per_image).lower()})", ignore_index=255)
    assert_right(loss, logits, labels, weight=given)


def test_errors_of_a_margin_in_order_with_images_of_one_pixel():
    """The weight of the first image was taken for that of all when the largest error was looked for."""
    weight = torch.ones(40)
    weight[0] = 0.0
    loss = ls.LovaszHingeLoss(bins=16, per_image=False)
    assert_right(loss, logits_of(40, 1).float(), labels_of(2, 40, ignore=False), weight=weight)


# ---- tensors of every kind -------------------------------------------------------------------------------------------


def turned(z: Tensor) -> Tensor:
    """Pixels that lie far apart."""
    axes = z.ndim - 2
    return z.permute(*range(2, z.ndim), 0, 1).contiguous().permute(axes, axes + 1, *range(axes))


LAYOUTS = {
    "channels last": lambda z: z.to(memory_format=torch.channels_last),
    "turned": turned,
    "every other": lambda z: torch.stack([z, z], -1)[..., 0],
    "cut out": lambda z: torch.nn.functional.pad(z, (1, 2, 3, 1))[..., 3:-1, 1:-2],
    "one image for all": lambda z: z[:1].expand_as(z),
    "not aligned": lambda z: torch.cat([z.new_zeros(1), z.flatten()])[1:].view_as(z),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "text"), [(3, EVERYTHING), (34, "dice + ce"), (3, "lovasz(bins=8) + boundary")])
def test_layouts(layout, channels, text):
    logits = LAYOUTS[layout](logits_of(2, channels, 4, 5).float())
    labels = labels_of(channels, 2, 4, 5)
    apart = torch.stack([labels, labels], -1)[..., 1]
    for some in (labels, apart) if channels == 3 else (apart,):  # many classes are slow, and read labels one way only
        assert_right(ls.parse(text, ignore_index=255), logits, some)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_channels(layout):
    logits = LAYOUTS[layout](logits_of(2, 3, 4, 5).float())
    target = LAYOUTS[layout](labels_of(2, 2, 3, 4, 5).float())
    assert_right(ls.parse("dice + ce", ignore_index=255, task="multilabel"), logits, target)
    soft = LAYOUTS[layout](shares_of(2, 3, 4, 5).float())
    assert_right(ls.parse("dice + ce", task="multiclass"), logits, soft)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 3, 21, 34])
def test_half_precision(dtype, channels):
    loss = ls.parse("dice + ce + focal", ignore_index=255)
    assert_right(loss, logits_of(2, channels, 5, 7).to(dtype), labels_of(max(channels, 2), 2, 5, 7))


DTYPES = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 35])
def test_labels_of_every_width(dtype, channels):
    """Read as they are; an ignore_index that they cannot hold ignores nothing."""
    if channels > 2 and dtype not in (torch.uint8, torch.int64):
        return
    labels = labels_of(2, 2, 5, 7, ignore=False).to(dtype)
    beside = torch.cat([labels.flatten()[:1], labels.flatten()])[1:].view_as(labels)  # not aligned
    for ignore in (-100, 1) if dtype != torch.bool else (-100,):
        loss = ls.parse("dice + ce", ignore_index=ignore)
        for some in (labels, beside) if channels < 3 and dtype in (torch.uint8, torch.int64) else (beside,):
            assert_right(loss, logits_of(2, channels, 5, 7).float(), some)


def test_156_is_not_minus_100():
    """As it would be in 8 bits."""
    labels = torch.full((1, 4), 156, dtype=torch.uint8)
    assert ls.CrossEntropyLoss()(torch.zeros(1, 200, 4), labels).item() == pytest.approx(math.log(200))


def test_images_far_apart():
    """Offsets that 32 bits cannot hold: 4 GB of addresses, of which nearly none are touched."""
    memory = torch.empty(2**31 + 2**12, dtype=torch.bfloat16)
    for strides in ((2**31, 64, 1), (2**11, 2**30, 1), (64, 2**9, 2**29)):
        logits = memory.as_strided((2, 2, 4), strides)
        logits.copy_(logits_of(2, 2, 4))
        loss, labels = ls.parse("dice + ce", ignore_index=255), labels_of(2, 2, 4)
        expected, wanted = valued(loss, logits.clone(memory_format=torch.contiguous_format), labels)
        z, y, up = logits, labels, torch.ones(2, 4, 2, dtype=torch.float64)
        asked = "multiclass", 255, True, True, False, False, 0, [0], [0.0]
        torch.testing.assert_close(loss(logits, labels), expected)
        near = operators.pass_gradient(z.contiguous(), y, None, None, up, None, *asked)
        assert torch.equal(operators.pass_gradient(z, y, None, None, up, None, *asked), near)
        assert wanted.isfinite().all()


@pytest.mark.parametrize("name", [p.name for p in PROBLEMS if p.settings.get("ignore_index") == 255])
@pytest.mark.parametrize("text", ["dice + ce + ss", "lovasz(bins=1, per_image=false)", "boundary", "ohem"])
def test_ignored_pixels_are_inert(name, text):
    """Whatever is there: NaN, infinity."""
    problem = next(p for p in PROBLEMS if p.name == name)
    settings = {key: value for key, value in problem.settings.items() if key != "ignore_index"}
    loss = ls.parse(text, ignore_index=255, **settings)
    z, y = problem.logits.float(), problem.target
    hidden = (y == 255).reshape(len(z), -1, *z.shape[2:]).expand_as(z)
    value, gradient = valued(loss, z, y)
    pixels = torch.arange(math.prod(z.shape[2:])).view(z.shape[2:])
    for first in range(3 if z.ndim == 2 else 1):  # side by side in an image; one after the other where it is one pixel
        strange = torch.tensor([math.nan, math.inf, -math.inf])[(pixels + first) % 3]
        other, other_gradient = valued(loss, torch.where(hidden, strange, z), y)
        assert torch.equal(value, other)
        assert torch.equal(gradient, other_gradient)
    assert not gradient[hidden].any()


@pytest.mark.parametrize("channels", [1, 3, 40])
@pytest.mark.parametrize("text", ["ce", "dice", "lovasz(bins=4)", "boundary", "ohem", "boundary_ce"])
def test_nan_and_labels_out_of_range_are_visible(channels, text):
    loss, labels = ls.parse(text), labels_of(max(channels, 2), 1, 3, 4, ignore=False)
    logits = logits_of(1, channels, 3, 4).float()
    logits[0, -1, 1, 1] = math.nan
    assert loss(logits, labels).isnan()
    for label in (channels + 3, -1):
        assert loss(logits_of(1, channels, 3, 4).float(), labels.index_fill(2, torch.tensor([1]), label)).isnan()


@pytest.mark.parametrize("channels", [1, 3, 40])
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_saturated_logits(channels, scale):
    logits = (logits_of(2, channels, 4, 5).sign() * scale).float()
    labels = labels_of(max(channels, 2), 2, 4, 5)
    assert_right(ls.parse("dice + ce + focal + ss", ignore_index=255), logits, labels)


@pytest.mark.parametrize("channels", [3, 40])
def test_impossible_classes(channels):
    """−∞ off the label."""
    labels = labels_of(channels - 1, 2, 4, 5, ignore=False)
    logits = logits_of(2, channels, 4, 5).float()
    logits[:, -1] = -math.inf
    assert_right(ls.parse("dice + ce + focal"), logits, labels)
    logits = logits_of(2, channels, 4, 5).float().index_fill(1, torch.tensor([0]), -math.inf)
    assert_right(ls.parse("dice + ce"), logits, labels.clamp(min=1))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 3), (0, 1, 4), (2, 40, 0)], ids=str)
def test_nothing_to_read(shape):
    labels = torch.zeros(shape[0], *shape[2:], dtype=torch.long)
    for text in ("dice + ce", "lovasz", "ohem"):
        value, gradient = valued(ls.parse(text), torch.zeros(shape), labels)
        assert value.isfinite()
        assert gradient.shape == shape


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((2, 2, 9), (0.7,)), ((2, 3, 13, 17), (0.7, 1.3)), ((1, 2, 7, 9, 11), (2.5, 0.8, 0.8)), ((1, 1, 40, 3), None)],
    ids=str,
)
@pytest.mark.parametrize("share", [0.5, 0.03, 0.0])
def test_distances_are_exact(shape, spacing, share):
    mask, valid = torch.rand(shape) < share, torch.rand(shape[0], 1, *shape[2:]) < 0.9
    maps = signed_distances(mask, valid, spacing)
    with ls.use_engine("plain"):
        expected = signed_distances(mask, valid, spacing, double=True)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-6, atol=1e-6)


# ---- what torch does with it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["dice + ce", "lovasz(bins=4) + boundary"])
def test_the_same_bits_each_run(text):
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (
            valued(ls.parse(text), logits_of(2, 3, 9, 30).float(), labels_of(3, 2, 9, 30, ignore=False))
            for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    "text", ["dice + ce", "lovasz(bins=4)", "boundary", "ce(reduction='none')", "entropy(reduction='none')"]
)
def test_derivatives_of_derivatives_are_left_to_torch(text):
    """As in plain; and so are many gradients at once."""
    logits, labels = logits_of(2, 3, 3, 4).float(), labels_of(3, 2, 3, 4, ignore=False)

    def second() -> Tensor:
        z = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(ls.parse(text)(z, labels).sum(), z, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), z)[0]

    def batched() -> Tensor:
        z = logits.clone().requires_grad_()
        value = ls.parse(text)(z, labels).reshape(-1)[:2]
        return torch.autograd.grad(value, z, torch.eye(len(value)), is_grads_batched=True)[0]

    for derivative in (second, batched):
        got = derivative()
        with ls.use_engine("plain"):
            torch.testing.assert_close(got, derivative(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("text", ["dice + ce", "lovasz(bins=4)", "boundary", "ohem", "ce(label_smoothing=0.1)"])
def test_compilers_see_one_node(text):
    """In the whole graph; `torch.export` too. The value is that of the kernels, bit for bit."""
    logits, labels, loss = logits_of(2, 3, 5, 6).float(), labels_of(3, 2, 5, 6, ignore=False), ls.parse(text)
    seen: list[str] = []

    def backend(graph, examples):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(lambda z, y: loss(z, y), fullgraph=True, backend=backend)
    assert torch.equal(compiled(logits, labels), loss(logits, labels))
    assert any(name.startswith("lossmith.") for name in seen), seen
    torch._dynamo.reset()
    whole = torch.compile(lambda z, y: loss(z, y), fullgraph=True, backend="aot_eager")
    for one, other in zip(valued(whole, logits, labels), valued(loss, logits, labels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("text", ["dice + ce", "focal(gamma=1.5)", "ce(label_smoothing=0.1)", "lovasz(bins=4)"])
def test_compilers_may_know_sizes_and_settings_as_symbols(text):
    torch._dynamo.reset()
    loss = ls.parse(text)
    compiled = torch.compile(lambda z, y: loss(z, y), fullgraph=True, backend="aot_eager", dynamic=True)
    for width in (6, 4):
        logits, labels = logits_of(2, 3, 5, width).float(), labels_of(3, 2, 5, width, ignore=False)
        torch.testing.assert_close(compiled(logits, labels), loss(logits, labels))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_again_when_somebody_chooses_anew():
    """And who insists is told under compilers too."""
    torch._dynamo.reset()
    z, y, loss, seen = logits_of(2, 3, 4).float(), labels_of(3, 2, 4, ignore=False), ls.DiceLoss(), []

    def backend(graph, examples):
        seen.append(any("lossmith" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    compiled = torch.compile(lambda z, y: loss(z, y), fullgraph=True, backend=backend)
    for engine in ("triton", "plain", "auto"):
        with ls.use_engine(engine):
            compiled(z, y)
    assert seen == [True, False, False]
    with pytest.raises(Exception, match=r"not torch\.float64"):
        compiled(z.double(), y)


def test_export():
    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = ls.parse("dice + ce")

        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            return self.loss(z, y)

    given = logits_of(2, 3, 5, 6).float(), labels_of(3, 2, 5, 6, ignore=False)
    program = torch.export.export(Step(), given)
    assert "lossmith.pass_sums" in program.graph_module.code
    torch.testing.assert_close(program.module()(*given), Step()(*given))


def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators without the covers that torch gives them: what is inside runs, but for the kernels themselves."""

    def wrapped(inside: Any, keep: Any, back: Any) -> Any:
        class Bare(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *given: Any) -> Any:
                found = inside(*given)
                keep(ctx, given, found)
                return found

            @staticmethod
            def backward(ctx: Any, *up: Any) -> Any:
                return back(ctx, *up)

        return Bare.apply

    for module in (operators, order, maps):
        monkeypatch.setattr(module, "launch", lambda kernel, programs, *given, **told: None)
    monkeypatch.setattr(sums, "pass_sums", wrapped(operators._sums, operators._keep, operators._back))
    monkeypatch.setattr(operators, "pass_gradient", operators._gradient)
    monkeypatch.setattr(order, "_ranked", wrapped(order._forward, order._keep, order._back))
    monkeypatch.setattr(order, "_charged", order._backward)
    monkeypatch.setattr(maps, "_summed", wrapped(maps._forward, maps._keep, maps._back))
    monkeypatch.setattr(maps, "_spread", maps._backward)


@pytest.mark.parametrize("inside", [False, True], ids=["fakes", "what is inside"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in FIELDS], ids=lambda row: row.name)
def test_no_value_is_read(row, inside, monkeypatch):
    """Tensors without values do: so no call waits for the device, and a step can be captured in a CUDA graph."""
    if inside:
        bare(monkeypatch)
    task = "multilabel" if "multiclass" not in row.cls.tasks else "multiclass"
    problem = next(p for p in PROBLEMS if p.task == task and p.axes == 2)
    loss = build(row, problem, **({"bins": 2} if "bins" in row.cls.fields else {}))
    with FakeTensorMode(allow_non_fake_inputs=True):
        z = torch.empty(problem.logits.shape, requires_grad=True)
        y = torch.empty(problem.target.shape, dtype=problem.target.dtype)
        loss(z, y).sum().backward()
    assert z.grad is not None
    assert z.grad.shape == z.shape


@pytest.mark.parametrize("layout", ["turned", "cut out"])
def test_operators_are_what_torch_expects(layout):
    """Their fakes say which strides they return, their gradients are registered."""
    z, y = LAYOUTS[layout](logits_of(2, 3, 4, 5).float()).requires_grad_(), labels_of(3, 2, 4, 5)
    settings = "multiclass", 255, True, True, False, False, 1, [0], [0.0]
    torch.library.opcheck(operators.pass_sums, (z, y, None, None, *settings))
    torch.library.opcheck(maps._summed, (z, y, None, None, torch.rand(2, 3, 4, 5), "multiclass", 255, "residual"))
    # Its table holds a NaN, on purpose, which is not equal to itself where the last of torch's checks compares.
    torch.library.opcheck(order._ranked, (z, y, None, None, "multiclass", 255, 4, False, False), test_utils=UTILITIES)


UTILITIES = ("test_schema", "test_autograd_registration", "test_faketensor")


def test_sums_are_never_made_by_atomics():
    """Those of floating-point numbers would differ from run to run; counts may be, they are whole."""
    folder = Path(operators.__file__).parent
    assert [file.name for file in folder.glob("*.py") if "atomic_" in file.read_text()] == ["ordered.py"]
    assert "amount = amount_of(weight, by)" in (folder / "ordered.py").read_text()


@pytest.mark.parametrize("weighed", [False, True])
def test_shares_need_not_sum_to_1(weighed):
    """The mean is over pixels, whatever their shares are."""
    shares = shares_of(2, 3, 4, 5).float()
    shares[:, :, 1] *= 0.5
    given = {"weight": torch.ones(2, 4, 5)} if weighed else {}
    for text in ("ce", "focal", "dice + ce"):
        assert_right(ls.parse(text, task="multiclass"), logits_of(2, 3, 4, 5).float(), shares, **given)


@pytest.mark.parametrize("channels", [3, 40])
def test_logits_at_the_end_of_the_numbers(channels):
    """Masked logits are set to the smallest number; a pixel of which nothing is possible has no value."""
    labels = torch.zeros(1, 2, dtype=torch.long)
    low = torch.full((1, channels, 2), -3e38)
    assert ls.CrossEntropyLoss()(low, labels).item() == pytest.approx(math.log(channels))
    assert ls.CrossEntropyLoss()(torch.full((1, channels, 2), -math.inf), labels).isnan()
    assert ls.CrossEntropyLoss()(low[..., 0].expand(2, -1), labels[0]).item() == pytest.approx(math.log(channels))


def test_autocast():
    z = logits_of(2, 3, 4, 5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ls.parse("dice + ce")(z, labels_of(3, 2, 4, 5, ignore=False))
    assert torch.equal(value, ls.parse("dice + ce")(z, labels_of(3, 2, 4, 5, ignore=False)))


# ---- who answers -----------------------------------------------------------------------------------------------------


def test_the_kernels_answer(answered):
    z, y = logits_of(2, 3, 4, 5).float(), labels_of(3, 2, 4, 5, ignore=False)
    ls.parse("dice + ce + lovasz + boundary")(z, y)
    assert {name for name, _ in answered} == {"triton"}


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        (torch.zeros(1, 2, 3, dtype=torch.float64), "not torch.float64"),
        (torch.zeros(1, 2, 3, device="meta"), "the kernels run on a GPU, not on meta"),
    ],
    ids=["float64", "meta"],
)
def test_refusals(logits, reason):
    with pytest.raises(RuntimeError, match=rf"use_engine\('triton'\) cannot serve this call: .*{reason}"):
        ls.DiceLoss()(logits, torch.zeros(1, 3, dtype=torch.long, device=logits.device))


def test_auto_leaves_a_cpu_to_its_own_kernels(answered):
    """Also where the interpreter is on, which is slow."""
    with ls.use_engine("auto"):
        ls.DiceLoss()(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long))
    assert {name for name, _ in answered} == {"numba"}


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("", "or on the CPU with TRITON_INTERPRET=1 in the environment"),
        ("sys.modules['triton'] = None", "the kernels run on a GPU"),
    ],
)
def test_without_an_interpreter_or_triton(before, reason):
    program = f"""
import sys
{before}
import torch, lossmith as ls
try:
    with ls.use_engine("triton"):
        ls.DiceLoss()(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long))
except RuntimeError as error:
    print(error)
print(ls.DiceLoss()(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long)).isfinite().item())
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert reason in done.stdout
    assert done.stdout.endswith("True\n")


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("kernel", ["sums", "gradient"])
def test_a_compiler_that_fails_leads_to_torch(kernel, monkeypatch, answered, recwarn):
    """With one warning that says why; for who insists on the kernels it is an error."""
    from triton.compiler.errors import CompilationError

    class Broken:
        def __getitem__(self, grid: Any) -> Any:
            def run(*given: Any, **constants: Any) -> None:
                exec(compile("raise error", "triton", "exec"), {"__name__": "triton.compiler", "error": error})

            return run

    error = CompilationError("def f(): pass", None, "no such instruction")
    monkeypatch.setattr(operators.softmax, kernel, Broken())
    monkeypatch.setattr(choice, "_failures", {})
    choice.warn.cache_clear()
    z, y = torch.zeros(1, 2, 3, requires_grad=True), torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(RuntimeError, match=r"use_engine\('triton'\) cannot serve this call: the kernels failed"):
        ls.DiceLoss()(z, y).backward()
    instead_of_numba(monkeypatch)
    with ls.use_engine("auto"):
        for _ in range(2):
            ls.DiceLoss()(z, y).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert {name for name, _ in answered} == {"triton", "plain"}
    assert len([w for w in recwarn if "without its fast GPU kernels" in str(w.message)]) == 1
