"""Settings: the annotated fields of a loss become its keyword arguments, checked against their types.

    class FocalLoss(PixelLoss):
        gamma: NonNegative = 2.0

gives `FocalLoss(gamma=3.0)`, an error for `FocalLoss(gama=3)` or `FocalLoss(gamma=-1)`, a repr, a row in the catalogue
and the values that the tests try. To change an inherited default, annotate the field again.
"""

from __future__ import annotations

import copy
import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Interval:
    """The numbers a setting may take, both ends included."""

    low: float
    high: float

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"a number >= {self.low:g}" if self.high == math.inf else f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class OddSize:
    """The sizes of a window that has a middle."""

    def __contains__(self, value: Any) -> bool:
        return bool(value >= 1 and value % 2 == 1)

    def __str__(self) -> str:
        return "an odd number >= 1"


@dataclass(frozen=True)
class PerAxis:
    """A positive number for each spatial axis; how many axes there are, the call tells."""

    def __contains__(self, value: Any) -> bool:
        return all(0 < step < math.inf for step in value)

    def __str__(self) -> str:
        return "positive numbers, one per spatial axis"


@dataclass(frozen=True)
class Square:
    """A matrix over pairs of classes; how many classes there are, the call tells."""

    def __contains__(self, value: Any) -> bool:
        shape = torch.as_tensor(value).shape
        return len(shape) == 2 and shape[0] == shape[1]

    def __str__(self) -> str:
        return "a square matrix, (C, C)"


@dataclass(frozen=True)
class Ordered:
    """A lower and an upper bound of something positive."""

    def __contains__(self, value: Any) -> bool:
        return len(value) == 2 and bool(0 < value[0] <= value[1] < math.inf)

    def __str__(self) -> str:
        return "two numbers, 0 < low <= high"


NonNegative = Annotated[float, Interval(0.0, math.inf)]
Positive = Annotated[float, Interval(1e-3, math.inf)]
Fraction = Annotated[float, Interval(0.0, 1.0)]
Percent = Annotated[float, Interval(0.0, 100.0)]
Count = Annotated[int, Interval(0, math.inf)]
Levels = Annotated[int, Interval(1, 2**20)]  # float32 tells that many apart
BelowOne = Annotated[float, Interval(0.0, 1.0 - 1e-3)]
AboveOne = Annotated[float, Interval(1.0 + 1e-6, math.inf)]
Classes = tuple[int, ...]
Bounds = Annotated[tuple[float, float], Ordered()]
Window = Annotated[int, OddSize()]
Spacing = Annotated[tuple[float, ...], PerAxis()]
ClassPairs = Annotated[Tensor, Square()]


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the known word that was probably meant, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word.lower(), names, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"


def _problem(value: Any, hint: Any) -> str | None:
    """What is wrong with a value for a field of this type, as the words after "must be"; None if nothing is."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        wrong = _problem(value, args[0])
        return wrong or (None if value in args[1] else str(args[1]))
    if origin in (typing.Union, types.UnionType):
        wrongs = [_problem(value, option) for option in args]
        return None if None in wrongs else " or ".join(dict.fromkeys(w for w in wrongs if w))
    if origin is Literal:
        return None if value in args else f"one of {', '.join(map(repr, args))}"
    if origin is tuple:
        fits = isinstance(value, list | tuple) and all(_problem(v, args[0]) is None for v in value)
        return None if fits and len(value) > 0 else f"a list of {'integers' if args[0] is int else 'numbers'}"
    if hint is Tensor:
        listed = isinstance(value, Tensor | np.ndarray | list | tuple)
        return None if listed and _numeric(value) else "a list of finite numbers >= 0"
    if hint is type(None):
        return None if value is None else "None"
    if hint is bool:
        return None if isinstance(value, bool) else "True or False"
    if hint is int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return None if whole and -(2**63) <= value < 2**63 else "an integer"
    if hint is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool) and _numeric(value, -math.inf)
        return None if real else "a finite number"
    return None if isinstance(value, hint) else f"a {hint.__name__}"


def _takes_tensor(hint: Any) -> bool:
    return hint is Tensor or any(map(_takes_tensor, get_args(hint)))


def _kept(values: Any, device: torch.device) -> Tensor:
    """A tensor setting as it was given: float64, where the device has it."""
    return torch.tensor(values, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def _plain(value: Any) -> Any:
    """A value as Python writes it: what NumPy's scalars and lists become."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value


def _numeric(value: Any, low: float = 0.0) -> bool:
    """Whether these are finite numbers from `low` on."""
    try:
        given = torch.as_tensor(value).double()
        return given.numel() > 0 and bool((given.isfinite() & (given >= low)).all())
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False


def _same(value: Any, default: Any) -> bool:
    """Whether a setting has its default; modules are the same if they are written the same."""
    return repr(value) == repr(default) if isinstance(value, nn.Module) else bool(value == default)


@dataclass_transform(kw_only_default=True)
class Settings(nn.Module):
    """Turns the annotated class attributes of its subclasses into settings; tensor-valued ones become buffers."""

    fields: ClassVar[dict[str, Any]] = {}
    hints: ClassVar[dict[str, Any]] = {}
    without: ClassVar[dict[str, str]] = {}  # an inherited setting that a class cannot honour, and why

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own: dict[str, Any] = {}
        hints = dict(cls.hints)
        resolved = typing.get_type_hints(cls, include_extras=True)
        for name in vars(cls).get("__annotations__", {}):
            if get_origin(resolved[name]) is not ClassVar:
                own[name], hints[name] = vars(cls)[name], resolved[name]
                delattr(cls, name)  # a class attribute would hide the buffer of the same name
        for name in cls.fields:
            if name in vars(cls) and not isinstance(vars(cls)[name], property):
                raise TypeError(f"{cls.__name__}.{name}: annotate the setting again to change its default")
        merged = {**own, **cls.fields, **own}  # a class's own settings come first, with its own defaults
        cls.fields = {k: v for k, v in merged.items() if k not in cls.without}
        cls.hints = {k: hints[k] for k in cls.fields}

    def __init__(self, **given: Any) -> None:
        super().__init__()
        who = type(self).__name__
        for name in given:
            if name in self.without:
                raise TypeError(f"{who} takes no {name}: {self.without[name]}")
            if name not in self.fields:
                raise TypeError(f"{who} has no setting {name!r}; {nearest(name, self.fields)}")
        for name in self.without:
            setattr(self, name, None)
        self._given: dict[str, Any] = {}
        for name, default in self.fields.items():
            value = given.get(name, default)
            if value is default and isinstance(default, nn.Module):
                value = copy.deepcopy(default)  # a module belongs to one owner
            wrong = _problem(value, self.hints[name])
            if wrong:
                raise TypeError(f"{who}: {name} must be {wrong}, got {value!r}")
            if isinstance(value, Tensor | np.ndarray | list | tuple) and _takes_tensor(self.hints[name]):
                tensor = torch.as_tensor(value, dtype=torch.float64).detach()
                self._given[name] = tensor.tolist()
                self.register_buffer(name, _kept(self._given[name], tensor.device), persistent=False)
            else:
                self._given[name] = _plain(value)
                if not hasattr(nn.Module, name):  # `half` is the name of a setting, and of a method that must survive
                    setattr(self, name, self._given[name])

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Settings follow the module to its device, but `.half()` does not round them."""
        own, self._buffers = self._buffers, {}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(torch.zeros(1)).device
        self._buffers = {name: _kept(self._given[name], device) for name in own}
        return self

    def settings(self) -> dict[str, Any]:
        """The settings as plain values, tensors as lists, in the order of the fields."""
        return dict(self._given)

    def __repr__(self) -> str:
        said = [f"{k}={v!r}" for k, v in self._given.items() if not _same(v, self.fields[k])]
        return f"{type(self).__name__}({', '.join(said)})"
