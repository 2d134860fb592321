"""The pages of the losses, one from each class by one template, and the table of all."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import docstrings
import figures
import formulas
import measured
import rivals
import torch
from kept import Kept
from tables import cells, number, table_head
from template import template

import lossmith as ls
from compat import instead
from lossmith.lab.page import curve_charts
from lossmith.lab.say import curves
from lossmith.losses.dense import Dense
from lossmith.names import ALIASES, Row
from lossmith.papers import PAPERS, UNSTATED

FAMILIES = {
    "pixel": "One number per pixel, a formula over −ln p_t.",
    "information": "The distributions at the pixels.",
    "region": "Soft counts of hits and misses per class.",
    "sorted": "The errors in order, largest first.",
    "map": "The prediction times a distance map.",
    "field": "Neighbouring pixels.",
    "box": "The overlap of two boxes.",
    "distribution": "Scores that hold a quality, and edges that are distributions.",
    "regression": "Differences of numbers.",
    "sum": "Sums that have a name, in one pass.",
}
COMMON = {
    "reduction": '`"mean"`, `"sum"` or `"none"`, a value for each pixel, class or element.',
    "ignore_index": "pixels with this label count nowhere, whatever stands there.",
    "class_weight": "a number for each class; pixel losses divide by the sum of the weights, region losses weigh the "
    "mean over the classes.",
    "task": '`"multiclass"`, `"binary"` or `"multilabel"`, where the shapes do not say it.',
    "per_image": "one value for each image and then the mean, or one for the whole batch.",
    "classes": "the classes that enter the mean; `None`: all.",
    "include_background": "`False` leaves class 0 out of the mean over the classes.",
    "absent": 'a class that the target lacks: `"smooth"` keeps it in the mean with ε, `"skip"` leaves it out.',
    "fmt": '`"xyxy"` (corners), `"xywh"` (a corner and the size) or `"cxcywh"` (the centre and the size).',
}
CASES = ("perfect", "uniform", "worst")


def pages(kept: Kept) -> Iterator[tuple[str, str]]:
    """The path and the text of each page."""
    page = template("loss.md")
    for row in ls.catalogue():
        yield f"losses/{row.name}.md", page.render(about(row, kept))


def title(row: Row) -> str:
    """What its docstring calls it."""
    name = re.split(r"[:.,]| from | of the ", row.summary)[0].removeprefix("The ")
    return name[0].upper() + name[1:]


def what(row: Row) -> str:
    """What its docstring says of it first, without the title again."""
    return sentence(row.summary.removeprefix(f"{title(row)}:").strip())


def overview() -> str:
    """A table for each family, with the pages behind the names."""
    text = ['<div class="names">', ""]
    for family, words in FAMILIES.items():
        rows = [row for row in ls.catalogue() if row.family == family]
        text += [f"## {family.capitalize()}", "", words, "", *table_head("loss", "in `parse`", "what it is", "range")]
        for row in rows:
            names = ", ".join(f"`{name}`" for name in [row.name, *aliases(row)])
            text.append(
                cells(f"[{title(row)}](losses/{row.name}.md)", names, docstrings.escaped(what(row)), span(row.range))
            )
        text.append("")
    listed = "\n".join(f"losses/{row.name}" for family in FAMILIES for row in ls.catalogue() if row.family == family)
    return "\n".join(text) + f"\n</div>\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def common() -> str:
    """The settings that losses share."""
    return "\n".join([*table_head("setting", "what it says"), *(cells(f"`{k}`", v) for k, v in COMMON.items())])


def sentence(text: str) -> str:
    """With a capital, where it begins with a word."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+\b(?! [=≥])", text) else text


def aliases(row: Row) -> list[str]:
    return [alias for alias, name in ALIASES.items() if name == row.name]


def span(ends: tuple[float, float]) -> str:
    low, high = (("∞" if x > 0 else "−∞") if math.isinf(x) else f"{x:.4g}".replace("-", "−") for x in ends)
    return f"{'(' if math.isinf(ends[0]) else '['}{low}, {high}{')' if math.isinf(ends[1]) else ']'}"


# ---- one page -------------------------------------------------------------------------------------------------------


def about(row: Row, kept: Kept) -> dict[str, Any]:
    """Everything that the template asks for."""
    doc = docstrings.read(row.cls, f"ls.{row.cls.__name__}")
    docstrings.run(doc.examples, dict(vars(inspect.getmodule(row.cls)) or {}), row.name)
    numbers = kept.get(f"losses/{row.name}", functools.partial(measure, row))
    papers = {name: shown(value) for name, value in PAPERS[row.name].settings.items()} if row.name in PAPERS else {}
    settings = []
    for name, default in row.fields.items():
        words = docstrings.escaped(doc.args.get(name, "")) or COMMON.get(name)
        if not words:
            raise docstrings.NotDocumented(f"{row.cls.__name__}.{name}: say under Args of the docstring what it is")
        settings.append({"name": name, "default": shown(default), "words": words, "paper": papers.get(name, "")})
    ours = [rival for rival in rivals.known() if mine(rival) == row.name]
    compared = [theirs(rival, kept.get(f"rivals/{slug(rival)}", functools.partial(compare, rival))) for rival in ours]
    return {
        "row": row,
        "title": title(row),
        "names": [row.name, *aliases(row)],
        "summary": docstrings.escaped(what(row)),
        "text": docstrings.markdown(doc.text),
        "section": {key: docstrings.section(doc.sections.get(key, "")) for key in docstrings.SECTIONS},
        "formulas": formulas.FORMULAS[row.name],
        "letters": formulas.letters(row.name),
        "whole": formulas.WHOLE.get(row.family, ""),
        "settings": settings,
        "span": span(row.range),
        "example": docstrings.example(doc.examples),
        "preset": PAPERS.get(row.name),
        "unstated": UNSTATED.get(row.name, ""),
        "rivals": compared,
        "imports": instead(row.cls.__name__),
        "experiments": seen_in(row),
        "number": number,
        "shown": shown,
        "sentence": sentence,
        "escaped": docstrings.escaped,
        **numbers,
    }


def shown(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, torch.Tensor) else value)
    return f"`{text}`"


def seen_in(row: Row) -> list[tuple[str, str]]:
    """The experiments that compute something of a loss: name and title."""
    from lossmith.lab.experiments import experiments

    word = re.compile(rf"\bls\.{row.cls.__name__}\b")
    return [(it.name, it.title) for it in experiments() if word.search(inspect.getsource(inspect.getmodule(type(it))))]


# ---- what is measured, and kept -------------------------------------------------------------------------------------


def measure(row: Row) -> dict[str, Any]:
    """The numbers and the curve of a page; what does not apply to a family is empty."""
    dense = issubclass(row.cls, Dense)
    with ls.use_engine("plain"):
        with torch.no_grad():
            levels = [[case, *(measured.levels(row, n, case) for n in (2, 3))] for case in CASES] if dense else []
            absent = measured.absent(row) if dense else []
            knobs = list(measured.knobs(row)) if dense else []
            values = "" if dense else measured.examples(row)
        curve = drawn(row.name)
    cost = measured.cost(row) if dense else None
    return {
        "levels": levels,
        "absent": [each._asdict() for each in absent],
        "knobs": [{**each._asdict(), "before": shown(each.before), "after": shown(each.after)} for each in knobs],
        "values": values,
        "curve": curve,
        "cost": cost._asdict() if cost else None,
    }


def drawn(name: str) -> str:
    """Its value and its gradient, as `lossmith plot` draws them."""
    text = ""
    for loss, each in curves.draw(name).items():
        note = f" Here: {each.note}." if each.note else ""
        for section in curve_charts.sections({loss: each}):
            text += figures.drawn(section.chart, section.caption + note)
    return text


def compare(rival: rivals.Rival) -> dict[str, Any]:
    """Ours and theirs on the same input, and where it is unusual."""
    with ls.use_engine("plain"):
        return rivals.comparison(rival)


# ---- theirs ---------------------------------------------------------------------------------------------------------


def mine(rival: rivals.Rival) -> str:
    word = re.split(r"[(; ]", rival.ours)[0]
    return ALIASES.get(word, word)


def slug(rival: rivals.Rival) -> str:
    return re.sub(r"\W+", "-", f"{rival.library} {rival.theirs}").strip("-").lower()


def theirs(rival: rivals.Rival, found: dict[str, Any]) -> dict[str, Any]:
    """A row of what takes the place of what."""
    factors: dict[Callable[..., float], str] = {rivals.PER_CLASS: "1/C · ", rivals.PIXELS: "pixels · "}
    parts = rival.equal.split("; ") if rival.equal else []
    code = " + ".join(re.sub(r"\b(\w+Loss)\(", r"ls.\1(", repr(ls.parse(part))) for part in parts)
    times = factors.get(rival.factor, "")
    return {
        **found, "library": rival.library, "theirs": rival.theirs, "why": rival.why,
        "ours": f"{times}`{code}`" if rival.equal else "no setting of ours",
    }  # fmt: skip
