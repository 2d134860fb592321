"""A callable of logits and a target that is checked: how it is called, and what it can be asked."""

from __future__ import annotations

import functools
import inspect
import types
import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Task = Literal["multiclass", "binary", "multilabel"]
Form = Literal["labels", "channel", "one-hot", "map", "real"]
FORMS: dict[Task, tuple[Form, ...]] = {  # in this order: integers first, which can mark ignored pixels
    "multiclass": ("labels", "channel", "one-hot"),
    "binary": ("channel", "labels", "real"),
    "multilabel": ("map", "real"),
}
WITHOUT_MARKS = ("one-hot", "real")


class Subject:
    """The loss with all that a call of it needs.

    Attributes:
        form: what it reads as target: "labels" (N, *S), a "channel" (N, 1, *S) of labels, "one-hot" (N, C, *S) in the
            logits' dtype; of a yes or no in each channel a "map" of integers, or a "real" one.
        ignored: the label of ignored pixels; None if it cannot be told any.
        weight: the keyword of a call that takes a weight for each sample; None if there is none.
        last: the logits and the target of the last call, in that form.
    """

    form: Form
    last: tuple[Tensor, Tensor]

    def __init__(self, loss: Any, ignore_index: int | None, weight: str | None) -> None:
        self.loss, self.name = loss, name_of(loss)
        self.ignored, self.keywords = _ignored(loss, ignore_index)
        self.weight = weight or ("weight" if "weight" in getattr(loss, "takes", ()) else None)
        self.stateless = isinstance(loss, types.FunctionType | types.BuiltinFunctionType | functools.partial)

    def target(self, y: Tensor, z: Tensor) -> Tensor:
        """Labels (N, *S), or a yes or no per channel (N, C, *S), in the form that the loss reads."""
        if self.form == "one-hot":
            return torch.nn.functional.one_hot(y, z.shape[1]).movedim(-1, 1).to(z.dtype)
        shaped = y if self.form == "labels" or y.ndim == z.ndim else y.unsqueeze(1)
        return shaped.to(z.dtype) if self.form == "real" else shaped

    def raw(self, z: Tensor, target: Tensor, **more: Any) -> Any:
        """What a call gives, whatever that is."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.loss(z, target, **self.keywords, **more)

    def value(self, z: Tensor, y: Tensor, **more: Any) -> Tensor:
        target = self.target(y, z)
        self.last = z.detach(), target
        value: Tensor = self.raw(z, target, **more)
        return value.reshape(())

    def both(self, z: Tensor, y: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        """The value, and its gradient: of zeros where it does not depend on the logits."""
        z = z.detach().requires_grad_()
        value = self.value(z, y, **more)
        return value.detach(), gradient_of(value, z)

    def code(self, z: str = "z", y: str = "y", **more: str) -> str:
        """A call as one writes it."""
        given = {**{key: repr(value) for key, value in self.keywords.items()}, **more}
        return f"loss({', '.join([z, y, *(f'{key}={value}' for key, value in given.items())])})"

    def settle(self, z: Tensor, y: Tensor, forms: tuple[Form, ...]) -> None:
        """Finds the form of target that it reads. Raises ValueError, in one line, if no call gives a number."""
        faults = []
        for form in forms:
            self.form = form
            target = self.target(y, z)
            self.last = z, target
            try:
                found = self.raw(z.clone().requires_grad_(), target.clone())
            except Exception as error:  # whatever the code of the loss raises
                said = f"{type(error).__name__}: {first_line(error)}"
                kind, shape = "integers" if not target.is_floating_point() else "real numbers", tuple(target.shape)
                faults.append(f"cannot be called with logits {tuple(z.shape)} and {kind} {shape} ({said})")
                continue
            fault = _no_loss(found)
            if not fault:
                if form in WITHOUT_MARKS:
                    self.ignored = None
                return
            faults.insert(0, fault)
        tried = f"; forms of target that were tried: {', '.join(forms)}" if len(forms) > 1 else ""
        raise ValueError(f"check: {self.name} {faults[0]}{tried}")


def gradient_of(value: Tensor, z: Tensor, create_graph: bool = False) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(z)
    (found,) = torch.autograd.grad(value.sum(), z, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(z) if found is None else found


def name_of(loss: Any) -> str:
    """The name of a function, or what a module says it is, if that is one short line."""
    name: str | None = getattr(loss, "__name__", None)
    if name is None and isinstance(loss, functools.partial):
        settings = ", ".join(f"{key}={value!r}" for key, value in loss.keywords.items())
        name = f"{name_of(loss.func)}({settings})"
    text = name or repr(loss)
    return text if len(text) <= 120 and "\n" not in text and " at 0x" not in text else type(loss).__name__


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = (lines or [""])[0]
    return line if len(line) <= 160 else f"{line[:160]}…"


def _no_loss(found: Any) -> str:
    if not isinstance(found, Tensor):
        return f"returns {type(found).__name__}, not a tensor"
    if found.numel() != 1:
        return f"returns values {tuple(found.shape)}, not one number: build it with a mean or a sum"
    if not found.requires_grad:
        return "gives a value that has no gradient: nothing learns from it"
    return ""


def _ignored(loss: Any, given: int | None) -> tuple[int | None, dict[str, int]]:
    """The label of ignored pixels, and how a call is told: a function by a keyword, a module when it was built."""
    sources = [loss, *(term for _, term in getattr(loss, "terms", ()))]  # a sum of ours has what its terms have
    held = next((x for x in (getattr(source, "ignore_index", None) for source in sources) if isinstance(x, int)), None)
    if held is not None and given not in (None, held):
        raise ValueError(f"check: {name_of(loss)} was built with ignore_index={held}; build it with {given}")
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):  # written in C
        return (held if given is None else given), {}
    named = parameters.get("ignore_index")
    open_ended = isinstance(loss, types.FunctionType) and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if given is not None:
        return given, {"ignore_index": given} if named or open_ended else {}
    if held is None and named is not None and isinstance(named.default, int):
        held = named.default
    return held, {}


def known_task(task: Any) -> Task:
    if task not in get_args(Task):
        raise ValueError(f"check: task must be one of {', '.join(get_args(Task))}, got {task!r}")
    found: Task = task
    return found
