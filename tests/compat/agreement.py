"""Whether a loss of a peer and what stands for it here give the same on the same call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from draws import Draw
from torch import Tensor

from lossmith.compat.peer import Row


def outcome(build: Callable[..., Any], draw: Draw) -> tuple[Tensor, Tensor]:
    """The value, and the gradient of a sum of its elements that tells them apart."""
    x = draw.input.detach().clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of arguments without effect: both warn
        value = build(**draw.settings)(draw.before(x), draw.target, *draw.more)
    weighed = value * torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view(value.shape)
    (gradient,) = torch.autograd.grad(weighed.sum(), x)
    return value.detach().double(), gradient


def disagreement(theirs: Callable[..., Any], ours: Callable[..., Any], draw: Draw) -> str:
    """What differs by more than float32 would explain, in which some of theirs compute; "" if nothing does."""
    (value, gradient), (value_here, gradient_here) = outcome(theirs, draw), outcome(ours, draw)
    if value.shape != value_here.shape:
        return f"shapes {tuple(value.shape)}, here {tuple(value_here.shape)}"
    for what, a, b, most in (("values", value, value_here, 1e-5), ("gradients", gradient, gradient_here, 2e-5)):
        apart, largest = float((a - b).abs().max()), float(a.abs().max())
        if not apart <= most * max(largest, 0.1):  # a NaN differs
            return f"{what} differ by {apart:g} of {largest:g}"
    return ""


def faults_of(rows: dict[str, Row]) -> set[tuple[str, str]]:
    """The faults of a library as its table has them: of which loss, and where."""
    return {(row.name, fault.where) for row in rows.values() for fault in row.faults}


def assert_only_theirs(
    case: Callable[[Any], tuple[Tensor, Tensor]], theirs: Any, ours: Any, rtol: float = 1e-6
) -> None:
    """What a case gives and what it should: not the same there, the same here."""
    found, right = case(theirs)
    assert float((found - right).abs()) > 1e-4, "mended there: take it out of the table"
    found, right = case(ours)
    torch.testing.assert_close(found, right, rtol=rtol, atol=1e-6)
