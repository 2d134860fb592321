"""The properties of every box loss of the catalogue: one added tomorrow is tested as it is, once it has a reference."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import golden_boxes as golden
import lossmith as ls
from lossmith.engine import ask
from lossmith.engine.contract import Boxes, Overlap
from lossmith.engine.plain.overlap import overlap
from lossmith.names import SHARED
from problems import nudges
from reference_boxes import BOXES, Lie, box_slope, box_value, closed_slope, corners

ROWS = [row for row in ls.catalogue() if row.family == "box"]
by_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def random_boxes(count: int, seed: int = 0, size: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = size * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    half = size * (0.02 + 0.25 * torch.rand(count, 2, generator=generator, dtype=torch.float64))
    return torch.cat([centre - half, centre + half], 1)


def random_pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Half of them far apart or nested by chance, half of them nearly right."""
    target = random_boxes(count, seed)
    near = target + torch.randn(count, 4, generator=torch.Generator().manual_seed(seed + 7), dtype=torch.float64)
    return torch.cat([random_boxes(count // 2, seed + 1), near[count // 2 :]]), target


def variants(row: Any) -> list[dict[str, Any]]:
    return [{}, *(change for change in nudges(row.cls, "binary", 2) if "fmt" not in change)]


def steep(more: dict[str, Any]) -> bool:
    """Powers below 1 of an error: near 0 neither a difference quotient nor a float32 can follow."""
    return 0 < more.get("theta", 1) < 1


def valued(loss: ls.Loss, boxes: Tensor, target: Tensor, **call: Any) -> tuple[Tensor, Tensor]:
    boxes = boxes.detach().clone().requires_grad_()
    value = loss(boxes, target, **call)
    (gradient,) = torch.autograd.grad(value.sum(), boxes)
    return value.detach(), gradient


def close(a: Tensor, b: Any, tolerance: float = 1e-12) -> None:
    b = torch.as_tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def expected(name: str, boxes: Tensor, target: Tensor, **more: Any) -> list[float]:
    return of_each(box_value, name, boxes, target, **more)


def of_each(of: Callable[..., Any], name: str, boxes: Tensor, target: Tensor, **more: Any) -> list[Any]:
    """A reference of every pair, worked out once: the mutants ask for the same again and again."""
    frozen = (tuple(map(tuple, some.tolist())) for some in (boxes, target))
    return _of_each(of, name, *frozen, tuple(more.items()))


@functools.cache
def _of_each(of: Callable[..., Any], name: str, boxes: Any, target: Any, more: Any) -> list[Any]:
    return [of(name, a, b, **dict(more)) for a, b in zip(boxes, target, strict=True)]


# ---- the value is right ---------------------------------------------------------------------------------------------


def test_every_loss_has_a_reference():
    assert {row.name for row in ROWS} <= BOXES.keys()


@by_row
def test_value_is_the_reference(row, engine):
    boxes, target = random_pairs(1000)
    for more in variants(row):
        loss = row.cls(reduction="none", **more)
        found = expected(row.name, boxes, target, **more)
        close(loss(boxes, target), found, 1e-12)
        if not steep(more):
            found = expected(row.name, boxes.float(), target.float(), **more)
            close(loss(boxes.float(), target.float()), found, 2e-6)


@by_row
def test_gradient_is_the_slope_of_the_reference(row, engine):
    boxes, target = random_pairs(1000, seed=3)
    for more in (some for some in variants(row) if not steep(some)):
        if more.get("form") == "log" or more.get("focal"):
            kept = torch.tensor([Lie(a, b).iou > 0.01 for a, b in zip(boxes.tolist(), target.tolist(), strict=True)])
            boxes, target = boxes[kept], target[kept]
        slopes = of_each(box_slope, row.name, boxes, target, **more)
        loss = row.cls(reduction="sum", **more)
        close(valued(loss, boxes, target)[1], slopes, 1e-6)
        close(valued(loss, boxes.float(), target.float())[1], slopes, 2e-5)


@pytest.mark.parametrize("name", ["iou_box", "giou", "diou", "ciou"])
def test_gradient_is_the_closed_form(name, engine):
    boxes, target = random_pairs(1000, seed=5)
    slopes = [closed_slope(name, a, b) for a, b in zip(boxes.tolist(), target.tolist(), strict=True)]
    loss = ls.parse(name, reduction="sum")
    close(valued(loss, boxes, target)[1], slopes, 1e-11)
    # of the very numbers that float32 can write
    rounded = [closed_slope(name, a, b) for a, b in zip(boxes.float().tolist(), target.float().tolist(), strict=True)]
    close(valued(loss, boxes.float(), target.float())[1], rounded, 5e-6)


@pytest.mark.parametrize("text", golden.BOXES)
def test_golden_values(text, engine):
    loss = ls.parse(text, reduction="none")
    boxes, target = (torch.tensor(x, dtype=torch.float64) for x in zip(*golden.PAIRS, strict=True))
    close(loss(boxes, target), golden.BOXES[text], 1e-12)
    close(loss(boxes.float(), target.float()), golden.BOXES[text], 2e-6)


def test_golden_gradients(engine):
    boxes, target = (torch.tensor([x], dtype=torch.float64) for x in golden.SLOPE_PAIR)
    for name, slope in golden.SLOPES.items():
        close(valued(ls.parse(name), boxes, target)[1][0], slope, 1e-12)
        close(valued(ls.parse(name), boxes.float(), target.float())[1][0], slope, 2e-6)
    gradient = valued(ls.parse("ciou"), boxes, target)[1][0]
    assert (gradient - torch.tensor(golden.CIOU_SLOPE_IF_ALPHA_MOVED, dtype=torch.float64)).abs().max() > 1e-4


def test_golden_focal_eiou_and_pairwise():
    boxes, target = (torch.tensor(x, dtype=torch.float64) for x in zip(*golden.PAIRS, strict=True))
    close(ls.EIoULoss(focal=0.5)(boxes[:1], target[:1]), golden.FOCAL_EIOU, 1e-12)
    for kind, values in golden.PAIRWISE.items():
        close(ls.box.pairwise_iou(boxes, target, kind).diagonal(), values, 1e-12)
    unit = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    far = unit + torch.tensor([1e6 - 0.0, 0.0, 1e6, 0.0], dtype=torch.float64)
    assert float(ls.box.pairwise_iou(unit, far, "giou")) == pytest.approx(-1, abs=1e-5)
    tall = torch.tensor([[1e6, 1e6, 1e6 + 1, 1e6 + 1]], dtype=torch.float64)
    assert float(ls.box.pairwise_iou(unit, tall, "giou")) == pytest.approx(golden.FAR_GIOU, abs=1e-12)


@by_row
@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_formats(row, fmt, engine):
    boxes, target = random_pairs(50)
    if fmt != "xyxy":
        boxes, target = (torch.cat([x[:, :2], x[:, 2:] - x[:, :2]], 1) for x in (boxes, target))
    found = expected(row.name, boxes, target, fmt=fmt)
    close(row.cls(fmt=fmt, reduction="none")(boxes, target), found, 1e-12)
    several = row.cls(fmt=fmt, reduction="none")(boxes.reshape(5, 10, 4), target.reshape(5, 10, 4))
    close(several.flatten(), found, 1e-12)
    boxes.requires_grad_()
    if row.name != "ciou":  # whose α is held constant
        assert torch.autograd.gradcheck(lambda b: row.cls(fmt=fmt)(b, target), boxes, fast_mode=True)


@by_row
@by_dtype
def test_fused_is_plain(row, dtype):
    boxes, target = (x.to(dtype) for x in random_pairs(700, seed=11))
    boxes[0] = target[0]
    for more in [*variants(row), {"fmt": "cxcywh"}]:
        for call in ({}, {"weight": torch.linspace(0, 2, 700)}, {"denominator": 7.0}):
            with ls.use_engine("plain"):
                value, gradient = valued(row.cls(**more), boxes, target, **call)
            with ls.use_engine("auto" if dtype == torch.float64 else "fused"):
                fused, fused_gradient = valued(row.cls(**more), boxes, target, **call)
            close(fused, value, 2e-6)
            assert fused_gradient.dtype == dtype
            step = max(torch.finfo(dtype).eps, 2e-6)
            scale = float(gradient.double().abs().max())
            torch.testing.assert_close(fused_gradient, gradient, rtol=2 * step, atol=5e-6 * scale + 2e-7)


def test_every_field_has_its_gradient_in_the_kernels():
    boxes, target = (x.float() for x in random_pairs(300, seed=13))
    upstream = torch.linspace(-1, 1, 300)
    for field in Boxes.__annotations__:
        found = []
        for choice in ("plain", "fused"):
            leaf = boxes.clone().requires_grad_()
            with ls.use_engine(choice):
                value = getattr(ask(Overlap(leaf, target, (field,))), field)
            found.append((value.detach(), *torch.autograd.grad((value * upstream).sum(), leaf)))
        close(found[1][0], found[0][0], 1e-6)
        close(found[1][1], found[0][1], 5e-6)


def test_distance_and_shape_keep_their_digits_from_nothing_to_the_most():
    """1 − e^−x by the kernels, for x from 1e-11 to 2: 1 − exp(−x) in float32 would be 0 below 6e-8."""
    step = torch.cat([part * 2.0 ** torch.arange(-18, 12) for part in (1.0, 1.25, 1.5, 1.75)])  # exact beside 1
    none, target = torch.zeros_like(step), torch.tensor([[-1.0, -1.0, 1.0, 1.0]]).expand(len(step), 4)
    for field, move in (
        ("detour", torch.stack([step, none, step, none], 1)),
        ("detour", torch.stack([step, step / 2, step, step / 2], 1)),
        ("shape_x", torch.stack([-step, none, step, none], 1)),
        ("shape_y", torch.stack([none, -step, none, step], 1)),
    ):
        boxes = target + move
        with ls.use_engine("fused"):
            (found,) = vars(ask(Overlap(boxes, target, (field,)))).values()
        (exact,) = vars(overlap(boxes.double(), target.double(), [field])).values()
        torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 3 * 131072 + 5])
def test_any_number_of_boxes(count):
    """Blocks that are full, and not, and enough boxes for several threads."""
    boxes, target = (x.float() for x in random_pairs(count)) if count else (torch.zeros(0, 4), torch.zeros(0, 4))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with ls.use_engine("fused"):
            value, gradient = valued(ls.GIoULoss(reduction="none"), boxes, target)
    finally:
        torch.set_num_threads(threads)
    with ls.use_engine("plain"):
        plain, plain_gradient = valued(ls.GIoULoss(reduction="none"), boxes, target)
    close(value, plain, 2e-6)
    close(gradient, plain_gradient, 2e-5)


# ---- what must change nothing ---------------------------------------------------------------------------------------


@by_row
def test_symmetries(row, engine):
    """Order of the boxes, place, scale, mirror and transposition; leading axes are only axes."""
    boxes, target = random_pairs(40)
    loss = row.cls(reduction="none")
    value = loss(boxes, target)
    close(loss(boxes.flip(0), target.flip(0)), value.flip(0), 1e-12)
    close(loss(boxes * 3, target * 3), value, 1e-10)
    close(loss(boxes + 50, target + 50), value, 1e-10)
    close(loss(-boxes[:, [2, 1, 0, 3]] * mirror(), -target[:, [2, 1, 0, 3]] * mirror()), value, 1e-10)
    close(loss(boxes[:, [1, 0, 3, 2]], target[:, [1, 0, 3, 2]]), value, 1e-10)
    close(loss(target, boxes), [box_value(row.name, *p) for p in zip(target.tolist(), boxes.tolist(), strict=True)])
    close(loss(boxes.reshape(4, 10, 4), target.reshape(4, 10, 4)).reshape(-1), value)
    close(loss(boxes[0], target[0]), value[0])


def mirror() -> Tensor:
    return torch.tensor([1.0, -1.0, 1.0, -1.0])


@by_row
def test_layout_does_not_matter(row, engine):
    boxes, target = (x.float() for x in random_pairs(64))
    value, gradient = valued(row.cls(), boxes, target)
    wide = torch.full((64, 6), math.nan)
    wide[:, 1:5] = boxes
    for other in (wide[:, 1:5], boxes.T.contiguous().T):
        leaf = other.detach().requires_grad_()
        again = row.cls()(leaf, target.to(torch.float64))
        close(again, value, 1e-6)
        close(torch.autograd.grad(again, leaf)[0], gradient, 1e-6)


@by_row
@pytest.mark.parametrize("filler", [math.nan, math.inf, -math.inf, 1e30])
def test_weight_0_is_inert(row, filler, engine):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        boxes, target = (x.to(dtype) for x in random_pairs(30))
        weight = torch.ones(30)
        weight[::3] = 0
        kept = weight != 0
        value, gradient = valued(row.cls(), boxes[kept], target[kept])
        boxes[::3], target[1::3] = filler, target[1::3]
        target[::3] = filler
        dirty, dirty_gradient = valued(row.cls(), boxes, target, weight=weight)
        close(dirty, value, 1e-6)
        assert (dirty_gradient[::3] == 0).all()
        torch.testing.assert_close(dirty_gradient[kept], gradient)
        none = row.cls(reduction="none")(boxes, target, weight=weight)
        assert (none[::3] == 0).all()
        close(none[kept].sum() / kept.sum(), value, 1e-6)


@by_row
def test_weight_2_is_repeating_the_box(row, engine):
    boxes, target = random_pairs(10)
    weight = torch.ones(10)
    weight[1] = 2
    twice = [*range(10), 1]
    for reduction in ("mean", "sum"):
        loss = row.cls(reduction=reduction)
        close(loss(boxes, target, weight=weight), loss(boxes[twice], target[twice]), 1e-12)
    close(row.cls()(boxes, target, denominator=4.0), row.cls(reduction="sum")(boxes, target) / 4, 1e-12)
    close(row.cls()(boxes, target, denominator=torch.tensor(0)), row.cls(reduction="sum")(boxes, target), 1e-12)


@by_row
def test_every_knob_changes_the_value(row):
    boxes, target = random_pairs(100)
    for change in nudges(row.cls, "binary", 2):
        if change != {"gate": 0.0}:  # an IoU is rarely below 0
            assert row.cls(**change)(boxes, target) != row.cls()(boxes, target), change


# ---- ranges and degenerate boxes ------------------------------------------------------------------------------------


@by_row
@by_dtype
def test_identical_boxes_cost_nothing(row, dtype, engine):
    boxes = random_boxes(50).to(dtype)
    for more in variants(row):
        value, gradient = valued(row.cls(reduction="none", **more), boxes, boxes)
        assert (value == 0).all(), more
        assert gradient.abs().max() <= 1e-6


@by_row
def test_range_holds(row, engine):
    low, high = row.range
    for seed in range(5):
        boxes, target = random_pairs(500, seed)
        thin = boxes.clone()
        thin[:, 2] = thin[:, 0] + 1e-9
        for some in (boxes, thin, boxes * 1e3, target):
            value = row.cls(reduction="none")(some, target)
            assert low - 1e-12 <= value.min()
            assert value.max() <= high + 1e-12


def degenerate(dtype: torch.dtype) -> dict[str, tuple[list[float], list[float]]]:
    far = 3e4 if dtype == torch.float16 else 1e6
    unit = [0.0, 0.0, 1.0, 1.0]
    return {
        "a point against a box": ([2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 4.0, 4.0]),
        "a box against a point": ([0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 2.0, 2.0]),
        "the same point": ([2.0, 2.0, 2.0, 2.0], [2.0, 2.0, 2.0, 2.0]),
        "two points": ([2.0, 2.0, 2.0, 2.0], [3.0, 2.0, 3.0, 2.0]),
        "the origin": ([0.0] * 4, [0.0] * 4),
        "no height": ([0.0, 1.0, 4.0, 1.0], [0.0, 0.0, 4.0, 3.0]),
        "no width, both": ([1.0, 0.0, 1.0, 3.0], [1.0, 0.0, 1.0, 3.0]),
        "inverted": ([4.0, 4.0, 0.0, 0.0], [0.0, 0.0, 4.0, 4.0]),
        "both inverted": ([4.0, 4.0, 0.0, 0.0], [3.0, 3.0, 1.0, 1.0]),
        "inverted in x": ([4.0, 0.0, 0.0, 4.0], [0.0, 0.0, 4.0, 4.0]),
        "identical": ([1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 3.0, 5.0]),
        "touching": ([0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]),
        "apart": (unit, [2.0, 3.0, 3.0, 4.0]),
        "far apart": (unit, [far, far, far, far]),
        "far apart, both ways": ([-far, 0.0, 1 - far, 1.0], [far, 0.0, far, 1.0]),
        "large": ([-far, -far, far, far], [-far, -far, far, far / 2]),
        "tiny": ([0.0, 0.0, 6e-5, 6e-5], [0.0, 0.0, 6e-5, 12e-5]),
        "tiny in large": (unit, [-far, -far, far, far]),
    }


@by_row
@by_dtype
def test_degenerate_boxes_are_finite(row, dtype, engine):
    for name, (a, b) in degenerate(dtype).items():
        boxes, target = torch.tensor([a], dtype=dtype), torch.tensor([b], dtype=dtype)
        for more in variants(row):
            value, gradient = valued(row.cls(reduction="none", **more), boxes, target)
            assert value.isfinite().all(), (name, more)
            assert gradient.isfinite().all(), (name, more)
            assert gradient.dtype == dtype
            close(value, [box_value(row.name, boxes[0].tolist(), target[0].tolist(), **more)], 1e-5)


def test_a_box_too_thin_for_its_inverse_has_no_size(engine):
    """However long it is: 1/1e-39 is no float32, and slopes are made of it."""
    boxes = torch.tensor([[0.0, 0.0, 1e-39, 1e4], [0.0, 0.0, 1e4, 1e-39]])
    value, gradient = valued(ls.IoULoss(reduction="none"), boxes, boxes)
    assert value.tolist() == [1.0, 1.0]
    assert gradient.isfinite().all()


@by_row
@by_dtype
def test_nothing_at_all(row, dtype, engine):
    for call in ({}, {"denominator": 0.0}, {"weight": torch.zeros(0)}):
        value, gradient = valued(row.cls(), torch.zeros(0, 4, dtype=dtype), torch.zeros(0, 4, dtype=dtype), **call)
        assert value == 0
        assert gradient.shape == (0, 4)
    value, gradient = valued(row.cls(), random_boxes(3).to(dtype), random_boxes(3).to(dtype), weight=torch.zeros(3))
    assert value == 0
    assert (gradient == 0).all()


@by_row
def test_nan_stays_visible(row, engine):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for k in range(4):
            for side in (0, 1):
                pair = [x.to(dtype, copy=True) for x in random_pairs(5)]
                pair[side][2, k] = math.nan
                assert row.cls()(*pair).isnan()
                assert row.cls(reduction="none")(*pair).isnan().tolist() == [False, False, True, False, False]
                assert valued(row.cls(), *pair)[1][2].isnan().any()


@by_row
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounding(row, dtype, engine):
    boxes, target = (x.to(dtype) for x in random_pairs(100))
    value, gradient = valued(row.cls(reduction="sum"), boxes, target)
    exact, exact_gradient = valued(row.cls(reduction="sum"), boxes.double(), target.double())
    close(value, exact, 1e-5)
    assert value.dtype == torch.float32
    torch.testing.assert_close(gradient, exact_gradient.to(dtype), rtol=torch.finfo(dtype).eps, atol=2e-6)


@by_row
def test_small_errors_keep_their_digits(row, engine):
    """A shift of a thousandth of a pixel: 1 − IoU would be rounding error."""
    target = torch.tensor([[0.0, 0.0, 8.0, 4.0], [0.0, 0.0, 4.0, 8.0]], dtype=torch.float64)
    boxes = target + torch.tensor([2.0**-10, 2.0**-11, 2.0**-10, 0.0], dtype=torch.float64)
    for more in variants(row):
        loss = row.cls(reduction="none", **more)
        value, exact = loss(boxes.float(), target.float()).double(), loss(boxes, target)
        torch.testing.assert_close(value, exact, rtol=3e-6, atol=0)


def test_ciou_holds_alpha_constant():
    boxes, target = random_pairs(50)
    value, gradient = valued(ls.CIoULoss(reduction="sum"), boxes, target)
    assert gradient.isfinite().all()
    same = torch.tensor([[0.0, 0.0, 2.0, 1.0]])
    assert valued(ls.CIoULoss(), same, same)[0] == 0  # 0 / 0 of α
    for gate, differs in ((0.5, True), (0.0, False)):
        kept = torch.tensor([Lie(a, b).iou for a, b in zip(boxes.tolist(), target.tolist(), strict=True)]) > gate
        gated = ls.CIoULoss(gate=gate, reduction="none")(boxes, target)
        plain, distance = (c(reduction="none")(boxes, target) for c in (ls.CIoULoss, ls.DIoULoss))
        close(gated, torch.where(kept, plain, distance), 1e-12)
        assert differs == bool((gated != plain).logical_and(~kept).any()) or not differs
    assert value > 0


def test_the_angle_of_a_box_without_width_has_a_slope(engine):
    """Or none of its losses could open it again: ∂ atan(w / h) / ∂w = h / (w² + h²)."""
    flat, target = torch.tensor([[1.0, 0.0, 1.0, 4.0]], requires_grad=True), torch.tensor([[0.0, 0.0, 2.0, 4.0]])
    turn = ask(Overlap(flat, target, ("turn",))).turn
    close(torch.autograd.grad(turn.sum(), flat)[0], [[0.25, 0.0, -0.25, 0.0]], 1e-7)


# ---- torch ----------------------------------------------------------------------------------------------------------


@by_row
def test_gradcheck(row):
    boxes, target = random_pairs(8)
    boxes.requires_grad_()
    for more in variants(row):
        if row.name != "ciou":
            assert torch.autograd.gradcheck(lambda b, m=more: row.cls(**m)(b, target), boxes, fast_mode=True)
            both = target.clone().requires_grad_()
            assert torch.autograd.gradcheck(lambda a, b, m=more: row.cls(**m)(a, b), (boxes, both), fast_mode=True)


@by_row
def test_double_backward(row, engine):
    boxes, target = (x.float() for x in random_pairs(20))
    boxes.requires_grad_()

    def curvature() -> Tensor:
        (gradient,) = torch.autograd.grad(row.cls(reduction="sum")(boxes, target), boxes, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), boxes)[0]

    with ls.use_engine("plain"):
        plain = curvature()
    close(curvature(), plain, 1e-5)
    assert plain.isfinite().all()


@by_row
def test_vmap_of_grad(row):
    boxes, target = (x.float() for x in random_pairs(12))
    found = torch.func.vmap(torch.func.grad(lambda a, b: row.cls()(a, b)))(boxes, target)
    close(found, valued(row.cls(reduction="sum"), boxes, target)[1], 1e-6)
    weight = torch.linspace(0, 1, 12)
    some = torch.func.vmap(lambda a, b, w: row.cls(reduction="sum")(a, b, weight=w))(boxes, target, weight)
    close(some, row.cls(reduction="none")(boxes, target, weight=weight), 1e-6)


@by_row
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_compile_without_graph_breaks(row):
    boxes, target = (x.float() for x in random_pairs(12))
    weight = torch.linspace(0, 1, 12)
    torch._dynamo.reset()
    compiled = torch.compile(row.cls(), fullgraph=True, backend="aot_eager")
    value, gradient = valued(compiled, boxes, target, weight=weight)
    plain, plain_gradient = valued(row.cls(), boxes, target, weight=weight)
    close(value, plain, 2e-6)
    close(gradient, plain_gradient, 2e-6)


@by_row
def test_it_is_a_module(row):
    loss = row.cls(fmt="xywh")
    boxes, target = random_pairs(5)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss.half(), ls.parse(repr(loss))):
        close(other(boxes, target), loss(boxes, target), 0.0)
    assert not loss.state_dict()
    for more in nudges(row.cls, "binary", 2):
        assert ls.parse(repr(row.cls(**more))).settings() == row.cls(**more).settings()


@by_row
def test_callers_tensors_stay_as_they_are(row, engine):
    boxes, target = (x.float() for x in random_pairs(9))
    weight = torch.linspace(0, 1, 9)
    before = boxes.clone(), target.clone(), weight.clone()
    row.cls()(boxes.requires_grad_(), target, weight=weight).backward()
    for now, then in zip((boxes.detach(), target, weight), before, strict=True):
        assert torch.equal(now, then)


@by_row
def test_it_is_documented(row):
    text = row.cls.__doc__ or ""
    for section in ("Range:", "Limits:", "Paper:", ">>>"):
        assert section in text, section
    for name in row.cls.fields.keys() - SHARED - {"fmt"}:
        assert f"{name}:" in text, f"{name} is not explained"
    assert row.summary.endswith(".")


# ---- sums -----------------------------------------------------------------------------------------------------------


def test_a_sum_asks_once_for_the_overlap(engine, answered):
    boxes, target = (x.float() for x in random_pairs(30))
    losses = [row.cls() for row in ROWS]
    total = losses[0] + 2 * losses[1]
    for loss in losses[2:]:
        total = total + loss
    value = losses[0](boxes, target) + 2 * losses[1](boxes, target) + sum(x(boxes, target) for x in losses[2:])
    answered.clear()
    close(total(boxes, target), value, 1e-6)
    assert len(answered) == 1
    parts = total.parts(boxes, target)
    assert list(parts) == [row.name for row in ROWS]
    close(sum(parts.values()), value, 1e-6)


def test_boxes_and_coordinates_in_one_sum(engine):
    boxes, target = random_pairs(6)
    for text in ("giou + smooth_l1", "smooth_l1 + giou"):
        loss = ls.parse(text)
        close(loss(boxes, target), ls.GIoULoss()(boxes, target) + ls.SmoothL1Loss()(boxes, target))
        weight = torch.arange(6.0)
        found = loss(boxes, target, weight=weight, denominator=4.0)
        by_hand = ls.GIoULoss(reduction="none")(boxes, target) @ weight.double()
        by_hand += (torch.nn.functional.smooth_l1_loss(boxes, target, reduction="none").sum(1) * weight).sum()
        close(found, by_hand / 4, 1e-12)
    mixed = ls.parse("ce + 2*giou")
    logits, labels = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 2])
    value = mixed(score=(logits, labels), box=(boxes, target), weight={"box": torch.ones(6)})
    close(value, math.log(3) + 2 * ls.GIoULoss()(boxes, target))


# ---- functions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_pairwise(kind, monkeypatch):
    a, b = random_boxes(7), random_boxes(5, seed=1)
    name = "iou_box" if kind == "iou" else kind
    found = [[1 - box_value(name, x, y) for y in b.tolist()] for x in a.tolist()]
    close(ls.box.pairwise_iou(a, b, kind), found, 1e-12)
    monkeypatch.setattr("lossmith.box._TABLE", 11)  # two rows at a time
    close(ls.box.pairwise_iou(a, b, kind), found, 1e-12)
    size = torch.cat([a[:, :2], a[:, 2:] - a[:, :2]], 1)
    close(ls.box.pairwise_iou(size, size, kind, fmt="xywh"), ls.box.pairwise_iou(a, a, kind), 1e-10)
    assert ls.box.pairwise_iou(a.half(), b, kind).dtype == torch.float32
    for n, m in itertools.product((0, 2), (0, 3)):
        assert ls.box.pairwise_iou(a[:n], b[:m], kind).shape == (n, m)


def test_distances():
    points = torch.tensor([[10.0, 20.0], [4.0, 4.0]])
    boxes = torch.tensor([[2.0, 12.0, 26.0, 20.0], [8.0, 0.0, 16.0, 8.0]])
    stride = torch.tensor([8.0, 4.0])
    found = ls.box.encode_distances(points, boxes, stride)
    close(found, [[1.0, 1.0, 2.0, 0.0], [-1.0, 1.0, 3.0, 1.0]])
    close(ls.box.decode_distances(points, found, stride), boxes)
    cxcywh = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
    close(ls.box.encode_distances(points, cxcywh, 1.0, fmt="cxcywh"), found * stride.unsqueeze(1))


def greedy(losses: list[float], boxes: list[list[float]], keep: int, nms: float) -> list[int]:
    """Shrivastava's procedure, by hand."""
    kept: list[int] = []
    for i in sorted(range(len(losses)), key=lambda i: -losses[i]):
        if len(kept) < keep and all(Lie(boxes[i], boxes[k]).iou <= nms for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("nms", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("keep", [0, 1, 20, 1000])
def test_hard_examples(nms, keep):
    boxes, losses = random_boxes(60), torch.rand(60)
    losses[10] = losses[3]
    expected = greedy(losses.tolist(), boxes.tolist(), keep, nms)
    assert ls.hard_examples(losses, boxes, keep, nms).tolist() == expected
    assert ls.hard_examples(losses[:0], boxes[:0], keep).tolist() == []


def test_hard_examples_at_the_edges():
    same = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 7.0]])
    losses = torch.tensor([1.0, 1.0, math.nan])
    assert ls.hard_examples(losses, same, 3, nms=1.0).tolist() == [2, 0, 1]
    assert ls.hard_examples(losses, same, 3, nms=0.7).tolist() == [2, 0]  # an IoU of nms itself is no duplicate
    assert ls.hard_examples(losses, same, 3, nms=0.69).tolist() == [2]
    for wrong in ({"keep": -1}, {"keep": 1, "nms": 1.5}):
        with pytest.raises(ValueError, match="keep must be >= 0 and nms in"):
            ls.hard_examples(losses, same, **wrong)
    with pytest.raises(ValueError, match=r"losses \(N,\) need boxes \(N, 4\), got \(3,\) and \(2, 4\)"):
        ls.hard_examples(losses, same[:2], 1)


# ---- errors ---------------------------------------------------------------------------------------------------------

B = torch.zeros(5, 4)
ERRORS = [
    (
        lambda: ls.GIoULoss()(B.long(), B),
        TypeError,
        ["GIoULoss", "predictions must be a floating-point", "torch.int64"],
    ),
    (lambda: ls.GIoULoss()(B), TypeError, ["GIoULoss", "target must be a real tensor", "NoneType"]),
    (lambda: ls.GIoULoss()(B, B[:3]), ValueError, ["(5, 4)", "(3, 4)", "same shape", "pick the target"]),
    (lambda: ls.GIoULoss()(B[:, :3], B[:, :3]), ValueError, ["boxes must be (…, 4), got (5, 3)"]),
    (lambda: ls.GIoULoss()(B, B, weight=torch.ones(5, 4)), ValueError, ["as a whole", "(5,)", "(5, 4)"]),
    (lambda: ls.GIoULoss()(B, B, weight=torch.ones(4)), ValueError, ["weight must be (5,)", "got (4,)"]),
    (lambda: ls.GIoULoss()(B, B, weight=[1.0]), TypeError, ["weight must be a real tensor", "list"]),
    (lambda: ls.GIoULoss()(B, B, weight=-torch.ones(5)), ValueError, ["weights must be >= 0, got -1"]),
    (lambda: ls.GIoULoss()(B, B, denominator=-1), ValueError, ["denominator must be one number >= 0"]),
    (lambda: ls.GIoULoss(reduction="sum")(B, B, denominator=1), ValueError, ["belongs to reduction='mean'"]),
    (lambda: ls.GIoULoss(fmt="xyhw"), ValueError, ["fmt must be one of 'xyxy', 'xywh', 'cxcywh'", "'xyhw'"]),
    (lambda: ls.GIoULoss() + ls.DIoULoss(fmt="xywh"), ValueError, ["agree on fmt", "giou has 'xyxy'"]),
    (lambda: ls.GIoULoss(ignore_index=3), TypeError, ["GIoULoss has no setting 'ignore_index'"]),
    (lambda: (ls.GIoULoss() + ls.DiceLoss())(B, B), TypeError, ["reads 2 different inputs", "box=(input, target)"]),
    (lambda: ls.box.pairwise_iou(B, B, "eiou"), ValueError, ["pairwise_iou: kind must be one of 'iou'", "'eiou'"]),
    (lambda: ls.box.pairwise_iou(B, B.long()), TypeError, ["pairwise_iou: boxes must be floating", "torch.int64"]),
    (lambda: ls.box.pairwise_iou(B, B[:, :2]), ValueError, ["boxes must be (…, 4), got (5, 2)"]),
    (lambda: ls.box.pairwise_iou(B, B, fmt="a"), ValueError, ["fmt must be one of 'xyxy'", "'a'"]),
]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case[2][0][:40])
def test_wrong_call(case, engine):
    make, kind, words = case
    with pytest.raises(kind) as error:
        make()
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_fused_says_why_it_cannot():
    with ls.use_engine("fused"):
        with pytest.raises(RuntimeError, match=r"not torch\.float64"):
            ls.GIoULoss()(B.double(), B.double())
        with pytest.raises(RuntimeError, match="target boxes that require a gradient"):
            ls.GIoULoss()(B, B.clone().requires_grad_())


# ---- whatever comes -------------------------------------------------------------------------------------------------

coordinate = st.floats(-1e6, 1e6, width=32) | st.integers(-3, 3).map(float)
box = st.lists(coordinate, min_size=4, max_size=4)


@settings(deadline=None, max_examples=300)
@given(box, box)
@example([0.0] * 4, [0.0, -4.5e-43, 221623.0, 0.0])
@example([0.0, 0.0, 2e5, 3e-43], [0.0, -4.5e-43, 221623.0, 0.0])
def test_any_boxes_are_finite(a, b):
    boxes, target = torch.tensor([a]), torch.tensor([b])
    for row in ROWS:
        found = []
        for choice in ("plain", "fused"):
            with ls.use_engine(choice):
                value, gradient = valued(row.cls(reduction="none"), boxes, target)
            assert value.isfinite().all()
            assert gradient.isfinite().all()
            found.append(value)
        close(found[0], found[1], 1e-5)
        upright = corners(a, "xyxy")
        if upright[0] < upright[2] and upright[1] < upright[3]:
            assert value >= -1e-6
