"""Settings: the annotated fields of a loss become its keyword arguments, checked against their types.

    class FocalLoss(PixelLoss):
        gamma: NonNegative = 2.0

gives `FocalLoss(gamma=3.0)`, an error for `FocalLoss(gama=3)` or `FocalLoss(gamma=-1)`, a repr, a row in the catalogue
and the values that the tests try. To change an inherited default, annotate the field again.
"""

from __future__ import annotations

import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform, get_args, get_origin

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Interval:
    """The numbers a setting may take, both ends included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f">= {self.low:g}" if self.high == math.inf else f"in [{self.low:g}, {self.high:g}]"


NonNegative = Annotated[float, Interval(0.0, math.inf)]
Fraction = Annotated[float, Interval(0.0, 1.0)]
Classes = tuple[int, ...]


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
        return wrong or (None if args[1].low <= value <= args[1].high else f"a number {args[1]}")
    if origin in (typing.Union, types.UnionType):
        wrongs = [_problem(value, option) for option in args]
        return None if None in wrongs else " or ".join(dict.fromkeys(w for w in wrongs if w))
    if origin is Literal:
        return None if value in args else f"one of {', '.join(map(repr, args))}"
    if origin is tuple:
        fits = isinstance(value, list | tuple) and all(_problem(v, args[0]) is None for v in value)
        return None if fits else "a list of integers"
    if hint is Tensor:
        listed = isinstance(value, Tensor) or (isinstance(value, list | tuple) and len(value) > 0)
        if listed and _numeric(value):
            return None
        return "a list of finite numbers"
    if hint is type(None):
        return None if value is None else "None"
    if hint is bool:
        return None if isinstance(value, bool) else "True or False"
    if hint is int:
        return None if isinstance(value, numbers.Integral) and not isinstance(value, bool) else "an integer"
    if hint is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        return None if real else "a finite number"
    return None if isinstance(value, hint) else f"a {hint.__name__}"


def _numeric(value: Any) -> bool:
    try:
        return bool(torch.as_tensor(value).double().isfinite().all())
    except (TypeError, ValueError, RuntimeError):
        return False


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
            wrong = _problem(value, self.hints[name])
            if wrong:
                raise TypeError(f"{who}: {name} must be {wrong}, got {value!r}")
            if isinstance(value, Tensor | list | tuple) and Tensor in (self.hints[name], *get_args(self.hints[name])):
                tensor = torch.as_tensor(value).detach()
                self._given[name] = tensor.tolist() if isinstance(value, Tensor) else list(value)
                tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
                self.register_buffer(name, tensor.clone(), persistent=False)
            else:
                value = tuple(value) if isinstance(value, list) else value
                self._given[name] = value
                setattr(self, name, value)

    def settings(self) -> dict[str, Any]:
        """The settings as plain values, tensors as lists, in the order of the fields."""
        return dict(self._given)

    def __repr__(self) -> str:
        said = [f"{k}={v!r}" for k, v in self._given.items() if v != self.fields[k]]
        return f"{type(self).__name__}({', '.join(said)})"
