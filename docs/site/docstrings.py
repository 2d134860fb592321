"""What a docstring of this library says, in its parts, and those as Markdown."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SECTIONS = ("Args", "Returns", "Raises", "Shapes", "Range", "Limits", "Paper")


class NotDocumented(Exception):
    """A public name without a word on what it is."""


@dataclass
class Doc:
    """`text` is all that stands in no section; `args` has what stands under Args, by name."""

    summary: str
    text: str
    sections: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    examples: list[doctest.Example] = field(default_factory=list)


def read(thing: Any, name: str) -> Doc:
    raw = own(thing)
    if not raw:
        raise NotDocumented(f"{name} is public and has no docstring: say in it what it is, or make it private")
    prose = re.split(r"^ *>>> ", raw, maxsplit=1, flags=re.M)[0]
    blocks = [block for block in re.split(r"\n\s*\n", prose.strip("\n")) if block.strip()]
    summary, *more = _joined(blocks[0]).split("\n")
    doc = Doc(summary, "", examples=doctest.DocTestParser().get_examples(raw, name))
    text, at = [*more], ""
    for block in blocks[1:]:
        for part in re.split(rf"\n(?=(?:{'|'.join(SECTIONS)}):)", block):
            begun = re.match(rf"({'|'.join(SECTIONS)}):[ \n]?", part)
            if begun:
                at = begun[1]
                doc.sections[at] = part[begun.end() :]
            elif at and part.startswith(" "):
                doc.sections[at] += f"\n\n{part}"
            else:
                text.append(part)
    doc.text = "\n\n".join(text)
    doc.args = dict(_named(doc.sections.get("Args", "")))
    return doc


def own(thing: Any) -> str:
    """The docstring that a thing has itself, not that of what it inherits from or is an instance of."""
    if inspect.isclass(thing) and "__doc__" not in vars(thing):
        return ""
    return inspect.cleandoc(thing.__doc__ or "")


def _joined(block: str) -> str:
    """The first block, its summary on one line: up to the first end of a sentence at the end of a line."""
    lines = block.split("\n")
    for i, line in enumerate(lines):
        if line.endswith((".", ":", "?")):
            return "\n".join([" ".join(lines[: i + 1]), *([" ".join(lines[i + 1 :])] if lines[i + 1 :] else [])])
    return " ".join(lines)


def _named(section: str) -> Iterator[tuple[str, str]]:
    """Names and what is said of them: "fp_weight, smooth: see there" is two."""
    for entry in re.split(r"\n(?=\S)", inspect.cleandoc(section)):
        names, _, words = entry.partition(":")
        for name in names.split(","):
            if name.strip():
                yield name.strip(), " ".join(words.split())


def markdown(text: str) -> str:
    """Prose of a docstring: blocks that are set in are taken as they stand, the rest is no markup but for `code`."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if not block.strip():
            continue
        if all(line.startswith(" ") for line in block.split("\n")):
            blocks.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            blocks.append(" ".join(escaped(block).split()))
    return "\n\n".join(blocks)


def section(words: str) -> str:
    """What stands in a section: a list where each entry has its line, else prose."""
    if not words.startswith(" "):
        return markdown(words)
    return "\n".join(
        f"* {' '.join(escaped(entry).split())}" for entry in re.split(r"\n(?=\S)", inspect.cleandoc(words))
    )


def escaped(text: str) -> str:
    """No markup but for `code`."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if i % 2 else re.sub(r"([\\*_\[\]<>$#|~{}])", r"\\\1", part) for i, part in enumerate(parts))


def example(examples: list[doctest.Example]) -> str:
    """Examples as a reader would copy them, what they print as comments."""
    lines = []
    for each in examples:
        lines += each.source.rstrip("\n").split("\n")
        lines += [f"# {line}".rstrip() for line in each.want.rstrip("\n").split("\n") if each.want]
    return "\n".join(lines)


def run(examples: list[doctest.Example], space: dict[str, Any], name: str) -> None:
    """Raises where an example prints something else than it says."""
    test = doctest.DocTest(examples, space, name, None, None, None)
    said: list[str] = []
    if doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed:
        raise RuntimeError("".join(said))
