"""Settings: the annotated fields of a loss become its keyword arguments, checked against their types.

    class FocalLoss(PixelLoss):
        gamma: NonNegative = 2.0

gives `FocalLoss(gamma=3.0)`, an error for `FocalLoss(gama=3)` or `FocalLoss(gamma=-1)`, a signature for editors and
command lines, a repr, a row in the catalogue and the values that the tests try. To change an inherited default,
annotate the field again.

Numbers, and lists of them, may come as anything that holds such: Python's, NumPy's, a tensor on any device, a pandas
Series, a list out of a configuration file. They are read once, here, and become plain Python.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import numbers
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, dataclass_transform, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from .bounds import ClassPairs
from .engine.tensors import widest


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the known word that was probably meant, or all of them."""
    names = sorted(known)
    word = {"weight": "class_weight"}.get(word, word)  # torch's word, which is nearer to others by its letters
    close = difflib.get_close_matches(word.lower(), names, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"


def elsewhere(word: str) -> str | None:
    """The same for a setting that another library has under this name, and another loss here."""
    if word == "pos_weight":
        return "CrossEntropyLoss has it, alone or in a sum: CrossEntropyLoss(pos_weight=...)"
    return None


class Wrong(NamedTuple):
    """Why a value does not do: as the words after "must be", and whether its type is wrong or just its value."""

    text: str
    error: type[Exception] = TypeError


def _problem(value: Any, hint: Any) -> Wrong | None:
    """What is wrong with a plain value for a field of this type; None if nothing is."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _problem(value, args[0]) or (None if value in args[1] else Wrong(str(args[1]), ValueError))
    if origin in (typing.Union, types.UnionType):
        wrongs = [_problem(value, option) for option in args]
        found = [wrong for wrong in wrongs if wrong]
        if len(found) < len(wrongs):
            return None
        text = " or ".join(dict.fromkeys(wrong.text for wrong in found))
        return Wrong(text, ValueError if any(wrong.error is ValueError for wrong in found) else TypeError)
    if origin is Literal:
        kind = ValueError if type(value) in map(type, args) else TypeError
        return None if value in args else Wrong(f"one of {', '.join(map(repr, args))}", kind)
    if origin is tuple:
        text = f"a list of {'integers' if args[0] is int else 'numbers'}"
        if not isinstance(value, list):
            return Wrong(text)
        wrongs = [_problem(entry, args[0]) for entry in value] or [Wrong(text, ValueError)]
        return next((Wrong(text, wrong.error) for wrong in wrongs if wrong), None)
    if hint is Tensor:
        return _numeric(value)
    if hint is type(None):
        return None if value is None else Wrong("None")
    if hint is bool:
        return None if isinstance(value, bool) else Wrong("True or False")
    if hint is int:
        if not isinstance(value, int) or isinstance(value, bool):
            return Wrong("an integer")
        return None if -(2**63) <= value < 2**63 else Wrong("an integer of 64 bits", ValueError)
    if hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return Wrong("a finite number")
        return None if _finite(value) else Wrong("a finite number", ValueError)
    return None if isinstance(value, hint) else Wrong(f"a {hint.__name__}")


def _numeric(value: Any) -> Wrong | None:
    """What is wrong with nested lists that should be a tensor of finite numbers >= 0."""
    text = "a list of finite numbers >= 0"
    if not isinstance(value, list):
        return Wrong(text)
    flat = list(_leaves(value))
    if not all(isinstance(x, int | float) for x in flat):
        return Wrong(text)
    if not flat or not all(_finite(x) and x >= 0 for x in flat):
        return Wrong(text, ValueError)
    try:
        np.array(value, np.float64)
    except ValueError:
        return Wrong(f"{text} of equal lengths", ValueError)
    return None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for entry in value:
            yield from _leaves(entry)
    else:
        yield value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def plain(value: Any) -> Any:
    """A value as Python writes it: numbers, strings and lists, whatever brought them."""
    if isinstance(value, Tensor):
        if value.is_meta:
            raise ValueError("it is on the meta device, where tensors hold no values; give a list of numbers")
        return value.detach().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration or NumPy too
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(entry) for entry in value]
    if hasattr(value, "__array__") and not isinstance(value, type):
        return plain(np.asarray(value))
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _takes_tensor(hint: Any) -> bool:
    return hint is Tensor or any(map(_takes_tensor, get_args(hint)))


def _kept(values: Any, device: torch.device) -> Tensor:
    """A tensor setting as it was given: float64, where the device has it."""
    with torch.inference_mode(False):  # a loss built for evaluation may be trained with later
        return torch.tensor(values, dtype=widest(device), device=device)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _floats(value: Any) -> Any:
    return [_floats(entry) for entry in value] if isinstance(value, list) else float(value)


def _same(value: Any, default: Any) -> bool:
    """Whether a setting has its default; modules are the same if they are written the same."""
    return repr(value) == repr(default) if isinstance(value, nn.Module) else bool(value == default)


def _shown(value: Any) -> str:
    """A value in one line of an error."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _spelt(hint: Any) -> Any:
    """A type for tools that read signatures: without our bounds, and with the lists that stand for a tensor."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return list[list[float]] | Tensor if hint == ClassPairs else _spelt(args[0])
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_spelt, args))]  # noqa: UP007  # of a number of types that is not known
    return list[float] | Tensor if hint is Tensor else hint


_changes = 0


def changes() -> int:
    """How often a setting was assigned in this process: what was worked out from settings is good until then."""
    return _changes


@dataclass_transform(kw_only_default=True)
class Settings(nn.Module):
    """Turns the annotated class attributes of its subclasses into settings; tensor-valued ones become buffers."""

    fields: ClassVar[dict[str, Any]] = {}  # the settings that say what is computed
    keywords: ClassVar[dict[str, Any]] = {}  # those, and in how_it_is_run those that say nothing of it
    hints: ClassVar[dict[str, Any]] = {}
    how_it_is_run: ClassVar[frozenset[str]] = frozenset()
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
        for name in cls.keywords:
            if name in vars(cls) and not isinstance(vars(cls)[name], property):
                raise TypeError(f"{cls.__name__}.{name}: annotate the setting again to change its default")
        merged = {**own, **cls.keywords, **own}  # a class's own settings come first, with its own defaults
        cls.keywords = {k: v for k, v in merged.items() if k not in cls.without}
        cls.fields = {k: v for k, v in cls.keywords.items() if k not in cls.how_it_is_run}
        cls.hints = {k: hints[k] for k in cls.keywords}
        cls._sign()

    @classmethod
    def _sign(cls) -> None:
        """Says in the constructor's signature which settings there are: help texts, editors and command lines read it.

        A constructor takes any keyword, so that an error can name the one that was meant. A signature belongs to a
        function, so every class needs a constructor of its own; it hands over to the next in line.
        """
        init: Any = cls.__init__
        if not isinstance(init, types.FunctionType) or not init.__code__.co_flags & inspect.CO_VARKEYWORDS:
            return  # a constructor of another kind, which says itself what it takes
        own = [p for p in inspect.signature(init).parameters.values() if p.name not in cls._settings_so_far()]
        own = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if "__init__" not in vars(cls):

            def handing_over(self: Any, *unnamed: Any, **given: Any) -> None:
                super(cls, self).__init__(*unnamed, **given)

            handing_over.__name__, handing_over.__qualname__ = "__init__", f"{cls.__qualname__}.__init__"
            cls.__init__ = init = handing_over  # type: ignore[method-assign]
        settings = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=_spelt(cls.hints[name]))
            for name, value in cls.keywords.items()
            if name not in {p.name for p in own}
        ]
        init.__signature__ = inspect.Signature([*own, *settings], return_annotation=None)

    @classmethod
    def _settings_so_far(cls) -> set[str]:
        """The settings of all classes that this one is made of."""
        return {name for parent in cls.__mro__ for name in getattr(parent, "keywords", {})}

    def __init__(self, *unnamed: Any, **given: Any) -> None:
        super().__init__()
        who = type(self).__name__
        if unnamed:
            raise TypeError(f"{who} takes its settings by name ({', '.join(self.fields)}), got {_shown(unnamed[0])}")
        for name in given:
            if name in self.without:
                raise TypeError(f"{who} takes no {name}: {self.without[name]}")
            if name not in self.keywords:
                raise TypeError(f"{who} has no setting {name!r}; {elsewhere(name) or nearest(name, self.fields)}")
        for name in self.without:
            setattr(self, name, None)
        self._given: dict[str, Any] = {}
        for name, default in self.keywords.items():
            value = given.get(name, default)
            if value is default and isinstance(default, nn.Module):
                value = copy.deepcopy(default)  # a module belongs to one owner
            self._set(name, value)
        self.derive()

    def derive(self) -> None:
        """What settings have to be to each other, and what is made of them: once all are there, and when one is
        assigned.
        """

    def _set(self, name: str, value: Any) -> None:
        """Read a setting, check it by itself, keep it."""
        who = type(self).__name__
        try:
            read = plain(value)
        except Exception as error:  # whoever brought the value may raise anything when it is read
            raise ValueError(f"{who}: {name} cannot be read: {next(iter(str(error).splitlines()), error)}") from error
        hint = self.hints[name]
        wrong = _problem(read, hint)
        if wrong and isinstance(value, Tensor) and value.ndim == 0 and _problem(0.5, hint) is None:
            wrong = _numeric([read])  # a number or a list, and a tensor is checked as a list is: by the call
        if wrong:
            raise wrong.error(f"{who}: {name} must be {wrong.text}, got {_shown(value)}")
        before = self._buffers.pop(name, None)
        if isinstance(read, list) and _takes_tensor(hint):
            self._given[name] = _floats(read)
            vars(self).pop(name, None)
            near = value if isinstance(value, Tensor) else before
            device = torch.device("cpu") if near is None else near.device
            self.register_buffer(name, _kept(self._given[name], device), persistent=False)
        else:
            self._given[name] = _tuples(read)
            if not hasattr(nn.Module, name):  # `half` is the name of a setting, and of a method that must survive
                super().__setattr__(name, self._given[name])

    def __setattr__(self, name: str, value: Any) -> None:
        """A setting that is assigned is checked as in the constructor; one that does not do leaves all as it was."""
        global _changes
        if name not in self.keywords or "_given" not in vars(self):
            super().__setattr__(name, value)
            return
        before = {key: copy.copy(held) if isinstance(held, dict) else held for key, held in vars(self).items()}
        device = next((buffer.device for buffer in self.buffers()), None)
        try:
            self._set(name, value)
            self.derive()
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise
        if device is not None:
            self.to(device)
        _changes += 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What was pickled before there were these settings has their defaults."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for name in self.how_it_is_run & self.keywords.keys() - self._given.keys():
            self._set(name, self.keywords[name])

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Settings follow the module to its device, but `.half()` does not round them."""
        own = {
            name: x for name, x in self._buffers.items() if x is not None and isinstance(self._given.get(name), list)
        }
        self._buffers = {name: x for name, x in self._buffers.items() if name not in own}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in own.items():
            self._buffers[name] = _kept(self._given[name], fn(torch.empty_like(buffer)).device)
        return self

    def settings(self) -> dict[str, Any]:
        """The settings as plain values, tensors as lists, in the order of the fields; how it is run, if it was said."""
        return {k: v for k, v in self._given.items() if k in self.fields or not _same(v, self.keywords[k])}

    def __repr__(self) -> str:
        said = [f"{k}={v!r}" for k, v in self._given.items() if not _same(v, self.keywords[k])]
        return f"{type(self).__name__}({', '.join(said)})"
