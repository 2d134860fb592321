"""The network that trains, where it is not the kind's own: what its text means, how it is built, whether it fits.

    monai:SegResNet(init_filters=16)    a network of MONAI
    my.module:make                      a function or class of a module, found as Python finds modules, or here

It is called with `in_channels`, `out_channels` and `spatial_dims`, as far as it takes them, and with what stands in
brackets: numbers, texts, lists and the like, which are read and never run. PyTorch's random state is set before each
call, so that a seed fixes the first weights.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lossmith.lab import UserError
from lossmith.lab.run.crops import checksum

Factory = Callable[..., nn.Module]
_MONAI = "monai"


def from_text(text: str) -> Factory:
    """The factory that the text of a model means. Raises `UserError` in one line if there is none."""
    module, _, call = text.partition(":")
    try:
        node = ast.parse(call.strip(), mode="eval").body
        name, positional, named = _read(node)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise UserError(
            f"--model {text}: {_first_line(error)}; write MODULE:NAME or MODULE:NAME(setting=value), "
            "for example monai:SegResNet(init_filters=16)"
        ) from error
    try:
        found = import_module("monai.networks.nets") if module == _MONAI else module_here(module)
    except Exception as error:  # whatever the code of the module raises
        raise UserError(f"--model {text}: the module {module} cannot be imported ({_first_line(error)})") from error
    factory = getattr(found, name, None)
    if not callable(factory):
        known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"--model {text}: {module} has no {name}{hint}")
    return lambda **given: factory(*positional, **{**_accepted(factory, given, len(positional)), **named})


def _read(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    """The name, and the arguments by place and by name."""
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ValueError("is no name of a model")
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("** means nothing here")
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return node.func.id, [ast.literal_eval(argument) for argument in node.args], named


def module_here(name: str) -> Any:
    """A module, looked for in the working directory too, as `python -m` does."""
    if not name:
        raise ValueError("it has no name")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return import_module(name)
    finally:
        sys.path.remove(here)


def _accepted(factory: Factory, given: dict[str, Any], placed: int = 0) -> dict[str, Any]:
    """Those of some settings that a factory takes by name, and that are not given by place."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())[placed:]
    except ValueError:  # no signature to be had
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    return {p.name: given[p.name] for p in parameters if p.name in given and p.kind is not p.POSITIONAL_ONLY}


def build(factory: Factory, name: str, channels: int, out: int | None, dimensions: int) -> nn.Module:
    """What a factory makes; `out` is None if that is not known. Raises `UserError` in one line if it is no network."""
    given = {"in_channels": channels, "out_channels": out, "spatial_dims": dimensions}
    given = {key: value for key, value in given.items() if value is not None}
    try:
        model = factory(**_accepted(factory, given))
    except Exception as error:  # whatever the code of the factory raises
        said = f"{type(error).__name__}: {_first_line(error)}"
        raise UserError(f"{name}: cannot be built with {_listed(given)} ({said})") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}: gives a {type(model).__name__}, not a torch.nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"{name}: has no weights to train")
    return model


def check(make: Callable[[], nn.Module], name: str, image: Tensor, expected: Sequence[int] | None) -> tuple[int, ...]:
    """Whether a network can take part; returns the shape of its output for some images.

    `make` builds one. Raises `UserError` in one line if two calls give the same module, or other weights from one
    seed, or if the output has not the shape that is `expected` (None: any).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = make()
        torch.manual_seed(0)
        second = make()
    if first is second or {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}:
        raise UserError(
            f"{name}: gives the same weights to every trial, which would then train one after the other; "
            "give a function that builds a new network at each call"
        )
    if weights_of(first) != weights_of(second):
        raise UserError(
            f"{name}: builds other weights at each call, although torch's seed is the same; "
            "draw them with torch's random numbers, so that all losses start alike"
        )
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = first(image)
    except Exception as error:  # whatever the code of the network raises
        said = f"{type(error).__name__}: {_first_line(error)}"
        raise UserError(f"{name}: fails on images {tuple(image.shape)} ({said})") from error
    if not isinstance(output, Tensor):
        raise UserError(f"{name}: gives a {type(output).__name__}; it must give one tensor of logits (N, C, *S)")
    if expected is not None and tuple(output.shape) != tuple(expected):
        raise UserError(
            f"{name}: gives {tuple(output.shape)} for images {tuple(image.shape)}, "
            f"but these labels need {tuple(expected)}"
        )
    return tuple(output.shape)


def weights_of(model: nn.Module) -> str:
    """A short fingerprint of the weights of a network."""
    return checksum(*(p.detach().cpu().float().numpy() for p in model.parameters()))


def _listed(given: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items())


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
