"""The reference: every public name of lossmith and of its lab. One that is not documented is an error."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import docstrings

MODULES = ("lossmith", "lossmith.lab")
SHORT = {"lossmith": "ls", "lossmith.lab": "lab"}


def page() -> str:
    """All of it, in the order of the names; losses by the pages that they have."""
    text = [
        "# API",
        "",
        "Every public name. `import lossmith as ls`; `from lossmith import lab` needs the extra `lab`.",
        "",
    ]
    for module in MODULES:
        text += [f"## {module}", ""]
        if module == "lossmith":
            text += ["The losses have a page each:", "", *losses(), ""]
        for name, thing in public(module):
            if loss(thing) is None:
                text += entry(f"{SHORT[module]}.{name}", thing, 3)
    return "\n".join(text)


def public(module: str) -> Iterator[tuple[str, Any]]:
    found = import_module(module)
    for name in sorted(found.__all__, key=str.lower):
        yield name, getattr(found, name)


def loss(thing: Any) -> Any:
    """The row of the catalogue that a class is, or None."""
    import lossmith as ls

    return next((row for row in ls.catalogue() if row.cls is thing), None)


def losses() -> Iterator[str]:
    for name, thing in public("lossmith"):
        row = loss(thing)
        if row is not None:
            yield f"* [`ls.{name}`](losses/{row.name}.md)"


def entry(name: str, thing: Any, level: int) -> Iterator[str]:
    """A heading, the signature and what the docstring says; then the same of what it holds."""
    doc = docstrings.read(thing, name)
    yield from (f"{'#' * level} {name}", "")
    if (callable(thing) and not inspect.isclass(thing)) or (inspect.isclass(thing) and takes(thing)):
        yield from ("```python", signature(name, thing), "```", "")
    yield from (docstrings.escaped(doc.summary), "", docstrings.markdown(doc.text), "")
    if doc.args:
        yield from ("| argument | what it is |", "|---|---|")
        yield from (f"| `{arg}` | {docstrings.escaped(words)} |" for arg, words in doc.args.items())
        yield ""
    for section, words in doc.sections.items():
        if section != "Args":
            yield from (f"**{section}**", "", docstrings.section(words), "")
    if doc.examples:
        yield from ("```python", docstrings.example(doc.examples), "```", "")
    own_entry = {id(held) for module in MODULES for _, held in public(module)}
    for member, held in sorted(members(thing)):
        if id(held) not in own_entry:
            yield from entry(f"{name}.{member}", held, min(level + 1, 5))


def members(thing: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a module, and the public methods that a class has itself."""
    if isinstance(thing, ModuleType):
        names = getattr(thing, "__all__", None) or [
            name for name, x in vars(thing).items() if callable(x) and getattr(x, "__module__", "") == thing.__name__
        ]
        yield from ((name, getattr(thing, name)) for name in names if not name.startswith("_"))
    elif inspect.isclass(thing):
        for name, x in vars(thing).items():
            method = x.__func__ if isinstance(x, classmethod | staticmethod) else x
            inherited = not x.__doc__ and inspect.getdoc(getattr(thing, name))  # it says what the method is, elsewhere
            if not name.startswith("_") and (inspect.isfunction(method) or isinstance(x, property)) and not inherited:
                yield name, method


def takes(cls: type) -> bool:
    return cls.__init__ is not object.__init__ and not issubclass(cls, BaseException)


def signature(name: str, thing: Any) -> str:
    """As it is called; on several lines where one is too long."""
    found = inspect.signature(thing)
    given = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    text = [re.sub(r"<.*?>", "...", str(p)) for p in given]
    if any(p.kind is p.KEYWORD_ONLY for p in given) and not any(p.kind is p.VAR_POSITIONAL for p in given):
        text.insert(next(i for i, p in enumerate(given) if p.kind is p.KEYWORD_ONLY), "*")
    line = f"{name}({', '.join(text)})"
    return line if len(line) <= 88 else f"{name}(\n    " + ",\n    ".join(text) + ",\n)"
