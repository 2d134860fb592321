"""Weights of a sum that change from epoch to epoch."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any, overload

from torch import nn


class Ramp(nn.Module):
    """Moves from `start` by `step` an epoch and stays at `stop`. Its epoch lives in the state_dict."""

    def __init__(self, start: float, step: float, stop: float) -> None:
        super().__init__()
        for value in (start, step, stop):
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise TypeError(f"a ramp is made of finite numbers, got {value!r}")
        if (stop - start) * step < 0 or (step == 0 and start != stop):
            raise ValueError(f"ramp(start={start:g}, step={step:g}, stop={stop:g}) never reaches its stop")
        self.start, self.stride, self.stop, self.epoch = float(start), float(step), float(stop), 0

    @property
    def value(self) -> float:
        """Where the ramp stands in this epoch."""
        at = self.start + self.stride * self.epoch
        return min(at, self.stop) if self.stride >= 0 else max(at, self.stop)

    def step(self) -> None:
        """One epoch further."""
        self.epoch += 1

    def get_extra_state(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def set_extra_state(self, state: Any) -> None:
        self.epoch = state["epoch"]


@dataclass(frozen=True)
class Schedule:
    """scale · ramp + offset: what `1 - a` or `0.5 * a` of a ramp `a` is. Several may share one ramp."""

    ramp: Ramp
    scale: float = 1.0
    offset: float = 0.0

    @property
    def value(self) -> float:
        """The weight in this epoch."""
        return self.scale * self.ramp.value + self.offset

    @overload
    def __mul__(self, other: float) -> Schedule: ...
    @overload
    def __mul__(self, other: Any) -> Any: ...
    def __mul__(self, other: Any) -> Any:
        if isinstance(other, numbers.Real):
            return replace(self, scale=self.scale * float(other), offset=self.offset * float(other))
        return NotImplemented  # a loss takes over in its __rmul__

    __rmul__ = __mul__

    def __add__(self, other: float) -> Schedule:
        if isinstance(other, numbers.Real):
            return replace(self, offset=self.offset + float(other))
        return NotImplemented

    __radd__ = __add__

    def __neg__(self) -> Schedule:
        return self * -1.0

    def __sub__(self, other: float) -> Schedule:
        if isinstance(other, numbers.Real):
            return replace(self, offset=self.offset - float(other))
        return NotImplemented

    def __rsub__(self, other: float) -> Schedule:
        if isinstance(other, numbers.Real):
            return replace(self, scale=-self.scale, offset=float(other) - self.offset)
        return NotImplemented

    def __repr__(self) -> str:
        r = self.ramp
        text = f"ramp(start={r.start!r}, step={r.stride!r}, stop={r.stop!r})"
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
