"""The smallest input that still shows a fault: found by a plain loop, written as code that can be pasted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_MOST_TRIALS = 150


@dataclass(frozen=True)
class Fault:
    """What was seen, and a call that shows it: code, and the tensors that it names."""

    seen: str
    code: str
    given: dict[str, Tensor] = field(default_factory=dict)
    kind: str = "value"  # or the name of an exception

    def example(self) -> str:
        """Lines of Python, in which `loss` is the loss."""
        return "\n".join([*(f"{name} = {literal(x)}" for name, x in self.given.items()), self.code])


Probe = Callable[[Tensor, Tensor], Fault | None]


def smallest(probe: Probe, fault: Fault, z: Tensor, y: Tensor) -> Fault:
    """The same fault on logits and labels of which nothing can be left out, or made simpler."""
    trials, going = 0, True
    while going:
        going = False
        for smaller_z, smaller_y in smaller(z, y):
            trials += 1
            if trials > _MOST_TRIALS:
                return fault
            found = probe(smaller_z, smaller_y)
            if found is not None and found.kind == fault.kind:
                fault, z, y, going = found, smaller_z, smaller_y, True
                break
    return fault


def smaller(z: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs that are one step simpler: half of an axis, one less, a class less, rounder logits, fewer labels."""
    shift = z.ndim - y.ndim  # labels have no axis of classes
    for axis in (0, *range(2, z.ndim)):
        n, of_y = z.shape[axis], axis - shift if axis else 0
        for start, length in [(0, n // 2), (n // 2, n - n // 2), (0, n - 1), (1, n - 1)]:
            if 0 < length < n:
                yield z.narrow(axis, start, length).contiguous(), y.narrow(of_y, start, length).contiguous()
    last = z.shape[1] - 1
    if last > 1:
        if not shift:
            yield z[:, :last].contiguous(), y[:, :last].contiguous()
        elif not (y == last).any():
            yield z[:, :last].contiguous(), y
    simpler = [torch.zeros_like(z), z.round() + 0.0, z.mul(10).round().div(10) + 0.0]  # no -0.0
    for i, round_z in enumerate(simpler):
        if all(not torch.equal(z, simple) for simple in simpler[: i + 1]):
            yield round_z, y
    if y.any():
        yield z, torch.zeros_like(y)


def literal(x: Tensor) -> str:
    """A tensor as one writes it, exactly."""
    wanted = x.dtype not in (torch.float32, torch.int64, torch.bool)
    dtype = f", dtype={x.dtype}" if wanted else ""
    if not x.numel():
        return f"torch.zeros({tuple(x.shape)}, dtype={x.dtype})"
    if x.numel() > 4 and bool((x == x.flatten()[0]).all()):
        return f"torch.full({tuple(x.shape)}, {_numbers(x.flatten()[0].item())}{dtype})"
    return f"torch.tensor({_numbers(x.tolist())}{dtype})"


def _numbers(x: Any) -> str:
    if isinstance(x, list):
        return f"[{', '.join(map(_numbers, x))}]"
    text = repr(x)
    return text.replace("nan", "torch.nan").replace("inf", "torch.inf") if isinstance(x, float) else text
