"""Sums over a map: the kernels against plain torch in float64, for every error, target and layout."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

import lossmith as ls
from lossmith.engine.contract import Error, MapSums
from lossmith.engine.numba import maps as by_numba
from lossmith.engine.plain import maps as plain
from lossmith.engine.problem import Problem, Task
from lossmith.engine.triton import maps as by_triton
from problems import IGNORED, labels_of, logits_of, shares_of

KERNELS = pytest.mark.parametrize("kernels", [by_numba, by_triton], ids=["numba", "triton"])
TARGETS: dict[str, tuple[Task, int, Tensor]] = {
    "labels": ("multiclass", 3, labels_of(3, 2, 5, 61)),
    "shares": ("multiclass", 3, shares_of(2, 3, 5, 61).float()),
    "certain shares": ("multiclass", 3, torch.eye(3)[labels_of(3, 2, 5, 61, ignore=False)].movedim(-1, 1)),
    "masks": ("multilabel", 3, labels_of(2, 2, 3, 5, 61)),
    "one of several": ("multilabel", 3, labels_of(4, 2, 5, 61)),
    "soft mask": ("binary", 1, logits_of(2, 1, 5, 61, seed=5).sigmoid().float()),
}


def asked(kernels, z, price, error: Error, name, weight=None, sample=None):
    """The sums, and the gradient of their product with an upstream one."""
    task, channels, target = TARGETS[name]
    z = z.detach().requires_grad_()
    problem = Problem(z, target, weight, sample, task, IGNORED)
    sums = kernels.summed(MapSums(problem, price.to(z.dtype if z.dtype == torch.float64 else price.dtype), error))
    up = logits_of(2, channels, seed=4).to(sums.dtype)
    return sums.detach().double(), torch.autograd.grad(sums, z, up)[0].double()


def assert_same(found, expected, step):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=step, atol=step * float(b.abs().nan_to_num().max()), equal_nan=True)


@KERNELS
@pytest.mark.parametrize("error", ["chance", "residual", "square"])
@pytest.mark.parametrize("name", list(TARGETS))
@pytest.mark.parametrize("weights", ["none", "pixel", "sample"])
def test_kernels_sum_as_torch_does(kernels, error, name, weights):
    z = logits_of(2, TARGETS[name][1], 5, 61)
    weight = logits_of(2, 5, 61, seed=3).clamp(min=0).float() if weights == "pixel" else None
    sample = torch.tensor([0.0, 2.0]) if weights == "sample" else None
    price = logits_of(*z.shape, seed=3)
    found = asked(kernels, z.float(), price.float(), error, name, weight, sample)
    assert_same(found, asked(plain, z, price, error, name, weight, sample), 3e-6)


@KERNELS
@pytest.mark.parametrize("name", ["labels", "masks"])
@pytest.mark.parametrize("layout", ["channels last", "every other", "half", "a map for all", "transposed map"])
def test_layouts(kernels, name, layout):
    z, price = logits_of(2, 3, 5, 61).float(), logits_of(2, 3, 5, 61, seed=3).float()
    if layout == "channels last":
        z, price = (x.contiguous(memory_format=torch.channels_last) for x in (z, price))
    elif layout == "every other":
        z, price = (x.repeat_interleave(2, 3)[..., ::2] for x in (z, price))
    elif layout == "half":
        z, price = z.bfloat16(), price.half()
    elif layout == "a map for all":
        price = price[:1, :1].expand(z.shape)
    else:
        price = price.mT.contiguous().mT
    step = 2**-7 if z.dtype == torch.bfloat16 else 3e-6
    assert_same(
        asked(kernels, z, price, "residual", name), asked(plain, z.double(), price.double(), "residual", name), step
    )


@KERNELS
@pytest.mark.parametrize("name", ["labels", "masks", "shares"])
def test_what_does_not_count_may_be_anything(kernels, name):
    """NaN in the logits and the map where a pixel is ignored; where it counts, NaN stays."""
    target = TARGETS[name][2]
    z, price = logits_of(2, 3, 5, 61).float(), logits_of(2, 3, 5, 61, seed=3).float()
    weight = (logits_of(2, 5, 61, seed=6) > 0).float()
    hidden = weight.unsqueeze(1).expand(z.shape) == 0
    if name == "masks":
        hidden = hidden | (target == IGNORED)
    elif name == "labels":
        hidden = hidden | (target == IGNORED).unsqueeze(1)
    spoilt = z.masked_fill(hidden, torch.nan), price.masked_fill(hidden, torch.inf)
    sums, gradient = asked(kernels, *spoilt, "square", name, weight)
    assert_same((sums, gradient), asked(plain, z.double(), price.double(), "square", name, weight), 3e-6)
    assert (gradient[hidden] == 0).all()
    seen = (~hidden).nonzero()[0].tolist()
    price[tuple(seen)] = torch.nan
    sums, _ = asked(kernels, z, price, "square", name, weight)
    assert sums[seen[0], seen[1]].isnan()


@KERNELS
@pytest.mark.parametrize("name", ["labels", "masks", "certain shares"])
def test_a_small_error_keeps_its_digits(kernels, name):
    """p − r of a label that is all but certain: −(1 − p), not 1 less than 1."""
    target = TARGETS[name][2]
    z = torch.full((2, 3, 5, 61), -30.0)
    z = z.scatter(1, (target % 3).unsqueeze(1), 30.0) if name == "labels" else z.masked_fill(target == 1, 30.0)
    price = torch.ones_like(z)
    assert_same(
        asked(kernels, z, price, "residual", name), asked(plain, z.double(), price.double(), "residual", name), 3e-6
    )


def test_no_pixel_and_no_image():
    for shape in ((0, 3, 4), (2, 3, 0)):
        z = torch.zeros(shape, requires_grad=True)
        target = torch.zeros(shape[0], shape[2], dtype=torch.long)
        problem = Problem(z, target, None, None, "multiclass", IGNORED)
        sums = by_numba.summed(MapSums(problem, torch.zeros(shape), "chance"))
        assert sums.tolist() == [[0.0] * 3] * shape[0]
        assert torch.autograd.grad(sums.sum(), z)[0].shape == shape


def test_logits_are_let_go_after_the_gradient():
    z = logits_of(2, 3, 5, 61).float().requires_grad_()
    logits = z * 1.0
    problem = Problem(logits, TARGETS["labels"][2], None, None, "multiclass", IGNORED)
    sums = by_numba.summed(MapSums(problem, torch.ones(2, 3, 5, 61), "chance"))
    known = weakref.ref(logits)
    del logits, problem
    sums.sum().backward()
    assert known() is None
    assert z.grad is not None


def test_the_derivative_of_the_gradient_is_that_of_torch():
    z, price = logits_of(1, 3, 9).float().requires_grad_(), logits_of(1, 3, 9, seed=3).float()
    found = []
    for kernels in (by_numba, plain):
        problem = Problem(z, labels_of(3, 1, 9), None, None, "multiclass", IGNORED)
        sums = kernels.summed(MapSums(problem, price, "square"))
        (slope,) = torch.autograd.grad(sums.sum(), z, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), z)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("text", ["boundary", "boundary(shifted=true)", "hausdorff(one_sided=true)", "dice + boundary"])
def test_losses_on_maps_are_served_by_the_kernels(answered, text):
    with ls.use_engine("numba"):
        ls.parse(text)(logits_of(2, 3, 5, 61).float(), labels_of(3, 2, 5, 61, ignore=False))
    assert ("numba", MapSums) in answered
    assert {engine for engine, _ in answered} == {"numba"}


def test_a_map_that_learns_is_refused():
    problem = Problem(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long), None, None, "multiclass", IGNORED)
    question = MapSums(problem, torch.zeros(1, 2, 3, requires_grad=True), "chance")
    assert by_numba.refuses(question) == by_triton.refuses(question) == "a map that requires a gradient"


@KERNELS
@pytest.mark.parametrize("name", ["labels", "shares"])
def test_a_price_that_all_classes_share_pulls_nowhere(kernels, name):
    """Σ p is 1: nothing of it is left over by rounding, however large the price."""
    price = (1000.0 + logits_of(2, 1, 5, 61, seed=3).float()).expand(2, 3, 5, 61)
    task, _, target = TARGETS[name]
    z = logits_of(2, 3, 5, 61).float().requires_grad_()
    sums = kernels.summed(MapSums(Problem(z, target, None, None, task, IGNORED), price, "chance"))
    assert (torch.autograd.grad(sums.sum(), z)[0] == 0).all()
