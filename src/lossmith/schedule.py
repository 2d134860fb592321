"""Weights of a sum that change from epoch to epoch."""

from __future__ import annotations

import math
import numbers
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Any, ClassVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from .engine.tensors import widest


def number(weight: Any) -> float | None:
    """A real number as Python writes it, also NumPy's and that of a tensor without axes; None if it is no number."""
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise TypeError(
            "a weight is a number: a tensor that requires a gradient would get none; multiply the value of the loss"
        )
    if isinstance(weight, Tensor | np.ndarray) and weight.ndim == 0:
        weight = weight.item()
    if not isinstance(weight, numbers.Real):
        return None
    try:
        return float(weight)
    except OverflowError:  # an integer past all floats
        return -math.inf if weight < 0 else math.inf


class Ramp(nn.Module):
    """Moves from `start` by `step` an epoch and stays at `stop`. Its epoch lives in the state_dict, as a tensor."""

    epoch: Tensor

    def __init__(self, start: float, step: float, stop: float) -> None:
        super().__init__()
        self.start, self.stride, self.stop = map(_finite, (start, step, stop))
        if (self.stop - self.start) * self.stride < 0 or (self.stride == 0 and self.start != self.stop):
            raise ValueError(
                f"ramp(start={self.start:g}, step={self.stride:g}, stop={self.stop:g}) never reaches its stop"
            )
        self.register_buffer("epoch", _beginning())

    @property
    def value(self) -> float:
        """Where the ramp stands in this epoch."""
        at = self.start + self.stride * self.epoch.item()
        return min(at, self.stop) if self.stride >= 0 else max(at, self.stop)

    def step(self) -> None:
        """One epoch further."""
        self.epoch.add_(1)

    def _apply(self, fn: Any, recurse: bool = True) -> Ramp:
        """The epoch follows the module to its device; `.half()` does not round it, and `to_empty` does not lose it."""
        with torch.inference_mode(False):
            device = fn(self.epoch).device
            self.epoch = (_beginning() if self.epoch.is_meta else self.epoch).to(device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}epoch" in state_dict:
            super()._load_from_state_dict(state_dict, prefix, *rest)
            self.epoch = self.epoch.float()  # a checkpoint that is assigned may have been rounded
            return
        warnings.warn(f"the checkpoint has no '{prefix}epoch': this ramp begins at its start", stacklevel=2)
        with torch.inference_mode(False):
            self.epoch = _beginning().to("cpu" if self.epoch.is_meta else self.epoch.device)


def _finite(given: Any) -> float:
    value = number(given)
    if value is None:
        raise TypeError(f"a ramp is made of numbers, got {given!r}")
    if not math.isfinite(value):
        raise ValueError(f"a ramp is made of finite numbers, got {given!r}")
    return value


def _beginning() -> Tensor:
    """Epoch 0: a tensor that training can use, whatever mode, device or dtype the ramp is made under."""
    with torch.inference_mode(False):
        return torch.zeros((), dtype=torch.float32, device="cpu")


@dataclass(frozen=True)
class Schedule:
    """scale · ramp + offset: what `1 - a` or `0.5 * a` of a ramp `a` is. Several may share one ramp."""

    __array_ufunc__: ClassVar[None] = None  # NumPy's numbers leave the arithmetic to us

    ramp: Ramp
    scale: float = 1.0
    offset: float = 0.0

    @property
    def value(self) -> float:
        """The weight in this epoch."""
        return self.scale * self.ramp.value + self.offset

    def beside(self, value: Tensor) -> Tensor:
        """The weight in this epoch as a tensor for a value to be multiplied by. It is worked out in the graph, so that
        compiled code need not be compiled again and no accelerator is waited for; in float64, as `value` is."""
        ramp = self.ramp
        at = ramp.start + ramp.stride * ramp.epoch.to(value.device, widest(value.device))
        at = at.clamp(max=ramp.stop) if ramp.stride >= 0 else at.clamp(min=ramp.stop)
        return (self.scale * at + self.offset).to(value)

    def ends(self) -> tuple[float, float]:
        """The weight at the ramp's start and at its stop; all others lie between."""
        return self.scale * self.ramp.start + self.offset, self.scale * self.ramp.stop + self.offset

    @overload
    def __mul__(self, other: float) -> Schedule: ...
    @overload
    def __mul__(self, other: Any) -> Any: ...
    def __mul__(self, other: Any) -> Any:
        by = number(other)
        if by is None:
            return NotImplemented  # a loss takes over in its __rmul__
        return replace(self, scale=self.scale * by, offset=self.offset * by)

    __rmul__ = __mul__

    def __add__(self, other: float) -> Schedule:
        by = number(other)
        return NotImplemented if by is None else replace(self, offset=self.offset + by)

    __radd__ = __add__

    def __neg__(self) -> Schedule:
        return self * -1.0

    def __sub__(self, other: float) -> Schedule:
        by = number(other)
        return NotImplemented if by is None else replace(self, offset=self.offset - by)

    def __rsub__(self, other: float) -> Schedule:
        return -self + other

    def __repr__(self) -> str:
        return self.written()

    def written(self, name: str | None = None) -> str:
        """As `parse` reads it. The name is that of a ramp which several weights of one text share."""
        r = self.ramp
        named = "" if name is None else f", name={name!r}"
        text = f"ramp(start={r.start!r}, step={r.stride!r}, stop={r.stop!r}{named})"
        text = text if self.scale == 1 else f"{self.scale!r} * {text}"
        return text if self.offset == 0 else f"({self.offset!r} + {text})"


def ramp(start: float, step: float, stop: float) -> Schedule:
    """A weight that moves from `start` by `step` an epoch until `stop`; `loss.step()` advances it.

    >>> import lossmith as ls
    >>> a = ls.ramp(0.01, 0.01, 0.5)
    >>> loss = (1 - a) * ls.DiceLoss() + a * ls.CrossEntropyLoss()  # one ramp, shared: "rebalance"
    >>> loss.step()
    >>> round(a.value, 2)
    0.02
    """
    return Schedule(Ramp(start, step, stop))


Weight = float | Schedule


def weighed(weight: Weight, value: Tensor) -> Tensor:
    """A value times the weight that it has today."""
    if isinstance(weight, Schedule):
        return weight.beside(value) * value
    return value if weight == 1 else weight * value


def product(a: Weight, b: Weight, of: object) -> Weight:
    """The weight of what has the weight b in something that has the weight a."""
    if isinstance(a, Schedule) and isinstance(b, Schedule):
        raise TypeError(f"{of!r} already has a scheduled weight; a schedule times a schedule is not supported")
    return a * b if isinstance(a, Schedule) or isinstance(b, Schedule) else float(a) * float(b)


def named(ramps: Iterable[Ramp]) -> dict[str, Ramp]:
    """Each ramp once, by what a sum calls it in its state: ramp, ramp_2, ramp_3, ..."""
    return {"ramp" if k == 1 else f"ramp_{k}": ramp for k, ramp in enumerate(dict.fromkeys(ramps), start=1)}


def names_of_shared(ramps: Iterable[Ramp]) -> dict[Ramp, str]:
    """The ramps that are used more than once, with what a text calls them: a, b, ..., z, ramp26, ..."""
    shared = [ramp for ramp, uses in Counter(ramps).items() if uses > 1]
    return {ramp: ascii_lowercase[k] if k < len(ascii_lowercase) else f"ramp{k}" for k, ramp in enumerate(shared)}


def leave_out_ramps(state_dict: dict[str, Any], prefix: str, loss: nn.Module) -> None:
    """Takes from a checkpoint the ramps of the loss it was made with where the one that loads it has none."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        ramp = re.fullmatch(r"(ramp(?:_\d+)?)\.epoch", key.removeprefix(prefix))
        if ramp and ramp[1] not in loss._modules:
            warnings.warn(f"the checkpoint has {key!r}, but {loss!r} has no such ramp: it is ignored", stacklevel=3)
            del state_dict[key]
