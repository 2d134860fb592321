"""What a process has set for itself in torch is none of a loss's business: value, gradient and dtype stay the same.

Every loss of the catalogue, for every task, in every engine, is built and called under each state and without.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lossmith as ls
from problems import arguments, by_pair, kernels_serve


@pytest.fixture(params=["plain", "fused"])
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each engine, and no other; where there are no kernels, plain torch is all there is."""
    params = request.node.callspec.params
    if request.param == "fused" and not kernels_serve(params["row"].name, params["task"]):
        pytest.skip("there are no kernels for this call")
    with ls.use_engine(request.param):
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    """What is allocated but not written is NaN, or the largest number of its type."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, Callable[[], Any]] = {
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "in a device": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "deterministic": deterministic,
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
}
by_state = pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())


def answer(loss: ls.Loss, inputs: tuple[Any, ...], given: dict[str, Any]) -> list[Tensor]:
    """The value, and the gradient of the first input."""
    first = inputs[0].detach().clone().requires_grad_()
    value = loss(first, *inputs[1:], **given)
    value.backward()
    assert first.grad is not None
    return [value.detach(), first.grad]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.device == other.device
        assert torch.equal(one, other), float((one.double() - other.double()).abs().max())


# Anomaly detection says that it is on, once, in a warning.
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@by_pair
@by_state
@pytest.mark.one_in(3)
def test_the_answer_is_the_same(row, task, state, engine):
    """Built and called within; built outside and called within; built within and called outside."""
    build, inputs, given = arguments(row, task)
    expected = answer(build(), inputs, given)
    outside = build()
    with state():
        within = build()
        same(answer(within, inputs, given), expected)
        same(answer(outside, inputs, given), expected)
    same(answer(within, inputs, given), expected)


@by_pair
@pytest.mark.one_in(3)
def test_half_logits_under_autocast(row, task, engine):
    """What a network hands out there: the loss is in float32, the gradient in half."""
    build, inputs, given = arguments(row, task)
    half = [x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]
    expected = answer(build(), tuple(half), given)
    with torch.autocast("cpu", torch.bfloat16):
        found = answer(build(), tuple(half), given)
    same(found, expected)
    assert found[0].dtype == torch.float32
    assert found[1].dtype == torch.bfloat16


@by_pair
def test_without_gradients(row, task, engine):
    """No gradient mode and inference mode: the same value, without a graph; and what was built there can be trained."""
    build, inputs, given = arguments(row, task)
    expected = answer(build(), inputs, given)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            loss = build()
            value = loss(*inputs, **given)
            assert not value.requires_grad
            same([value.clone()], expected[:1])
        same(answer(loss, inputs, given), expected)
    with torch.inference_mode():
        copies = tuple(x.clone() if isinstance(x, Tensor) else x for x in inputs)
        same([build()(*copies, **given).clone()], expected[:1])


FACTORIES = [
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "ones",
    "rand",
    "randint",
]
FACTORIES += ["randn", "randperm", "scalar_tensor", "tensor", "zeros"]
SOURCE = Path(ls.__file__).parent
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if "lab" not in path.relative_to(SOURCE).parts]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_factory_takes_the_default_of_the_process(path):
    """Whoever makes a tensor says of which type and where."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{name}" for name in FACTORIES}:
            said = {keyword.arg for keyword in node.keywords}
            assert said >= {"dtype", "device"}, f"{path.name}:{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_products_are_made_in_one_place(path):
    """Where autocast cannot round them: `product`."""
    rounded = {"bmm", "mm", "matmul", "einsum", "linear", "addmm", "baddbmm", "mv", "tensordot"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        of_arrays = path.parent.name == "numba"
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Attribute) and not of_arrays and path.name != "tensors.py":
            assert node.attr not in rounded, f"{path.name}:{node.lineno}: {ast.unparse(node)}"
