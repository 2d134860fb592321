"""`lossmith check`: what a loss should keep, asked of ours or anybody's."""

from __future__ import annotations

import ast
import functools
from json import dumps
from typing import Annotated, Any

import typer

import lossmith as ls
from lossmith.check.subject import Form, Task, first_line
from lossmith.lab import UserError
from lossmith.lab.commands.terminal import Json, app, printable

_WORDS = {"true": True, "false": False, "none": None}


@app.command()
def check(
    loss: Annotated[str, typer.Argument(help='MODULE:NAME of a class or a function, or a text of ours: "dice + ce".')],
    settings: Annotated[list[str] | None, typer.Argument(help="Of the loss: softmax=true gamma=2.")] = None,
    task: Annotated[Task, typer.Option(help="What the loss is asked to learn.")] = "multiclass",
    classes: Annotated[int, typer.Option(min=2, help="Channels of the logits, unless the task is binary.")] = 3,
    size: Annotated[str, typer.Option(help="Of the images: 6,5 or 4,4,4; none for one label a sample.")] = "6,5",
    target: Annotated[Form | None, typer.Option(help="The form of target it reads: found if not given.")] = None,
    ignore_index: Annotated[
        int | None, typer.Option(help="The label of ignored pixels, as a function's keyword, or as the loss has it.")
    ] = None,
    weight: Annotated[str | None, typer.Option(help="The keyword of a call that takes weights of samples.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Ask for this property alone; may be repeated.")] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Compile it too, which takes seconds.")] = False,
    json: Json = False,
) -> int:
    """Check what any loss keeps: half precision, ±10,000, nothing to find, ignored pixels, derivatives, vmap, pickling.

    Prints what holds, what does not with the smallest input that shows it, and what cannot be asked. The exit code is 1
    if something does not hold.
    """
    try:
        found = ls.check(
            _loss(loss, settings or []),
            task=task,
            classes=classes,
            size=() if size == "none" else [int(n) for n in size.split(",")],
            target=target,
            ignore_index=ignore_index,
            weight=weight,
            only=only or None,
            slow=slow,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{loss}: {first_line(error)}") from error
    text = dumps(found.to_dict(), indent=1, ensure_ascii=False) if json else printable(str(found), keep="\n")
    typer.echo(text)
    return int(not found.holds)


def _loss(text: str, settings: list[str]) -> Any:
    """What a text means: of another module a class that is built, or a function with its keywords."""
    from lossmith.lab.run.model import module_here

    given = dict(map(_setting, settings))
    module, colon, name = text.partition(":")
    if not colon:
        return ls.parse(text, **given)
    try:
        found = functools.reduce(getattr, name.split("."), module_here(module))
    except Exception as error:  # whatever the code of the module raises
        raise UserError(f"{text}: cannot be imported ({type(error).__name__}: {first_line(error)})") from error
    if not isinstance(found, type):
        return functools.partial(found, **given) if given else found
    try:
        return found(**given)
    except Exception as error:  # whatever the code of the class raises
        raise UserError(f"{text}: cannot be built ({type(error).__name__}: {first_line(error)})") from error


def _setting(text: str) -> tuple[str, Any]:
    """name=value, where a value that is no number, list or constant is a text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise UserError(f"{text}: settings of the loss are name=value")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
