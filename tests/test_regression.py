"""The properties of every regression loss of the catalogue."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import golden_boxes as golden
import lossmith as ls
from lossmith.names import SHARED
from problems import nudges
from reference_boxes import RESIDUALS

ROWS = [row for row in ls.catalogue() if row.family == "regression"]
by_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def valued(loss: ls.Loss, x: Tensor, y: Tensor, **call: Any) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    value = loss(x, y, **call)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def close(a: Tensor, b: Any, tolerance: float = 1e-12) -> None:
    b = torch.as_tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def numbers(*shape: int) -> tuple[Tensor, Tensor]:
    x, y = 2 * torch.randn(2, *shape, dtype=torch.float64)
    return x, y


def test_every_loss_has_a_reference():
    assert {row.name for row in ROWS} <= RESIDUALS.keys()


@by_row
@pytest.mark.parametrize("shape", [(7,), (5, 4), (2, 3, 4), ()])
def test_value_is_the_reference(row, shape):
    x, y = numbers(*shape)
    for more in [{}, *nudges(row.cls, "binary", 2)]:
        found = [RESIDUALS[row.name](r, **more) for r in (x - y).flatten().tolist()]
        loss = row.cls(reduction="none", **more)
        close(loss(x, y).flatten(), found)
        close(
            loss(x.float(), y.float()).flatten(),
            [RESIDUALS[row.name](r, **more) for r in (x.float() - y.float()).flatten().tolist()],
            2e-6,
        )
        close(row.cls(**more)(x, y), sum(found) / len(found))
        close(row.cls(reduction="sum", **more)(x, y), sum(found))


@pytest.mark.parametrize("case", golden.RESIDUALS, ids=lambda case: case[0])
def test_golden(case):
    text, residuals, values = case
    x = torch.tensor(residuals, dtype=torch.float64)
    close(ls.parse(text, reduction="none")(x, torch.zeros_like(x)), values)
    close(ls.parse(text)(x, torch.zeros_like(x)), sum(values) / len(values))


def test_they_are_torch():
    x, y = numbers(50)
    close(ls.L1Loss()(x, y), F.l1_loss(x, y))
    close(ls.L2Loss(half=False)(x, y), F.mse_loss(x, y))
    for size in (0.3, 1.0, 2.5):
        close(ls.SmoothL1Loss(beta=size)(x, y), F.smooth_l1_loss(x, y, beta=size))
        close(ls.HuberLoss(delta=size)(x, y), F.huber_loss(x, y, delta=size))
        close(ls.HuberLoss(delta=size)(x, y), size * ls.SmoothL1Loss(beta=size)(x, y))


def test_no_parabola_is_l1():
    x, y = numbers(20)
    x[0] = y[0]
    for beta in (0.0, 1e-7, 1e-300):
        value, gradient = valued(ls.SmoothL1Loss(beta=beta), x, y)
        expected, slope = valued(ls.L1Loss(), x, y)
        close(value, expected)
        close(gradient, slope)
    assert valued(ls.L1Loss(), x, y)[1][0] == 0


@by_row
def test_slope(row):
    """clip(r / β, −1, 1), and so on: by torch's own derivative of the reference's cases, and by differences."""
    x, y = numbers(6, 4)
    for more in [{}, *nudges(row.cls, "binary", 2)]:
        assert torch.autograd.gradcheck(lambda v, m=more: row.cls(**m)(v, y), x.clone().requires_grad_())
        assert torch.autograd.gradcheck(lambda v, m=more: row.cls(**m)(y, v), x.clone().requires_grad_())
    _, gradient = valued(row.cls(reduction="sum"), x, x.clone())
    assert (gradient == 0).all()


@by_row
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extremes(row, dtype):
    large = 3e4 if dtype == torch.float16 else 1e15
    x = torch.tensor([0.0, large, -large, 1e-7, 1.0]).to(dtype)
    for more in [{}, *nudges(row.cls, "binary", 2)]:
        value, gradient = valued(row.cls(reduction="none", **more), x, torch.zeros_like(x))
        assert value.isfinite().all()
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()
    for call in ({}, {"weight": torch.zeros(0)}, {"denominator": 0}):
        value, _ = valued(row.cls(), x[:0], x[:0], **call)
        assert value == 0
    x[2] = math.nan
    assert row.cls()(x, torch.zeros_like(x)).isnan()


@by_row
def test_weights(row):
    x, y = numbers(6, 4)
    each = row.cls(reduction="none")(x, y)
    rows, elements = torch.arange(6.0).double(), torch.arange(24.0).double().reshape(6, 4)
    for weight in (rows, elements):
        full = weight.unsqueeze(1).expand(6, 4) if weight.ndim == 1 else weight
        close(row.cls()(x, y, weight=weight), (each * full).sum() / full.sum())
        close(row.cls()(x, y, weight=weight, denominator=5.0), (each * full).sum() / 5)
        close(row.cls(reduction="none")(x, y, weight=weight), each * full)
        broken = x.masked_fill(full == 0, math.nan)
        value, gradient = valued(row.cls(), broken, y.masked_fill(full == 0, math.inf), weight=weight)
        close(value, (each * full).sum() / full.sum())
        assert (gradient[full == 0] == 0).all()


@by_row
def test_torch_transforms(row):
    x, y = numbers(6, 4)
    found = torch.func.vmap(torch.func.grad(lambda a, b: row.cls()(a, b)))(x, y)
    close(found, valued(row.cls(reduction="sum"), x, y)[1] / 4)
    assert torch.autograd.gradgradcheck(lambda a: row.cls()(a, y), x.clone().requires_grad_())


@by_row
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo does it to itself
def test_compile_without_graph_breaks(row):
    x, y = (v.float() for v in numbers(6, 4))
    torch._dynamo.reset()
    compiled = torch.compile(row.cls(), fullgraph=True, backend="aot_eager")
    for a, b in zip(valued(compiled, x, y), valued(row.cls(), x, y), strict=True):
        close(a, b, 2e-6)


@by_row
def test_it_is_a_module_with_a_name(row):
    x, y = numbers(5)
    for more in [{}, *nudges(row.cls, "binary", 2)]:
        loss = row.cls(**more)
        for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), ls.parse(repr(loss)), loss.half()):
            close(other(x, y), loss(x, y), 0.0)
        if more:
            assert loss(x, y) != row.cls()(x, y)
    text = row.cls.__doc__ or ""
    for section in ("Range:", "Limits:", "Paper:", ">>>", *(f"{k}:" for k in row.cls.fields.keys() - SHARED)):
        assert section in text, section
    assert ls.parse("ce + l1")(score=(torch.zeros(1, 2), torch.tensor([0])), box=(x, x)) == pytest.approx(math.log(2))


def test_wrong_calls():
    x = torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"L1Loss: predictions \(5, 4\) and target \(5,\) must have the same shape"):
        ls.L1Loss()(x, x[:, 0])
    with pytest.raises(
        ValueError, match=r"weight must be \(5,\), one per row, or \(5, 4\), one per element, got \(4,\)"
    ):
        ls.L1Loss()(x, x, weight=torch.ones(4))
    with pytest.raises(ValueError, match="beta must be a number >= 0, got -1"):
        ls.SmoothL1Loss(beta=-1)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 10))
def test_any_number(a, b, size):
    x, y = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    for name, knob in (("smooth_l1", "beta"), ("huber", "delta")):
        value = ls.parse(name, **{knob: size})(x, y)
        close(value, RESIDUALS[name](a - b, size), 1e-10)
