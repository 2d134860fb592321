"""An explanation as text for a terminal and as HTML for a notebook: the same tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple

from .measure import Group, Input, Measured, Term
from .views import LEVELS

_MOST = 20  # rows of a table of classes
_WIDEST = 4  # terms, the total included, of which it has more than shares

_STYLE = """<style>
.lossmith { font: 13px/1.45 system-ui, sans-serif; color: inherit; max-width: 72em }
.lossmith table { border-collapse: collapse; margin: .5em 0; background: none; color: inherit; font: inherit }
.lossmith th, .lossmith td { padding: .1em .8em .1em 0; text-align: right; font-variant-numeric: tabular-nums;
  background: none; color: inherit; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .35) }
.lossmith th:first-child, .lossmith td:first-child { text-align: left }
.lossmith p { margin: .3em 0 } .lossmith .aside { opacity: .75 }
.lossmith .said { border-left: 3px solid #d9822b; padding-left: .6em }
</style>"""


class Table(NamedTuple):
    """Cells as text."""

    head: list[str]
    rows: list[list[str]]


def text(title: str, found: Measured, said: list[str]) -> str:
    """For a terminal."""
    parts = [title, *_given(found)]
    parts += ["\n" + "\n".join(_aligned(table)) for table in tables(found)]
    parts += ["", *_legend(found), *(f"→ {line}" for line in said)]
    return "\n".join(parts)


def html(title: str, found: Measured, said: list[str]) -> str:
    """For a notebook, light or dark: colours are those of the page."""
    given = "".join(f'<p class="aside">{escape(line)}</p>' for line in _given(found))
    drawn = "".join(map(_drawn, tables(found)))
    legend = "".join(f'<p class="aside">{escape(line)}</p>' for line in _legend(found))
    lines = "".join(f'<p class="said">{escape(line)}</p>' for line in said)
    return f'{_STYLE}<div class="lossmith"><p><b>{escape(title)}</b></p>{given}{lines}{drawn}{legend}</div>'


def tables(found: Measured) -> list[Table]:
    """One of the terms, one of the classes of each input, one of what is not finite."""
    made = [_terms(found), *(table for given in found.inputs for table in _classes(given, found.terms))]
    if found.broken:
        rows = [[name, f"{b.nan:,}", f"{b.inf:,}", str(b.first), f"{b.ignored:,}"] for name, b in found.broken.items()]
        made.append(Table(["not finite", "NaN", "inf", "first at", "of them ignored"], rows))
    return made


def _terms(found: Measured) -> Table:
    levels = [*LEVELS, *(["ignored"] if any("ignored" in term.levels for term in found.terms) else [])]
    rows = []
    for given in found.inputs:
        own = [term for term in found.terms if term.slot == given.slot]
        count = {name: own[0].levels.get(name, Group(0, 0, 0)).elements if own else 0 for name in levels}
        name = given.many if len(found.inputs) == 1 else f"{given.slot}: {given.many}"
        rows.append([name, "", "", *(f"{int(count[level]):,}" for level in levels)])
        rows += [_term(term, levels) for term in own]
    return Table(["term", "value", "‖gradient‖", *levels], rows)


def _term(term: Term, levels: list[str]) -> list[str]:
    shares = [f"{term.levels[level].share:.1%}" if level in term.levels else "" for level in levels]
    return [f"  {term.name}", f"{term.value:.4g}", f"{term.norm:.3g}", *shares]


def _classes(given: Input, terms: list[Term]) -> Iterable[Table]:
    own = [term for term in terms if term.slot == given.slot]
    if not own or not own[-1].classes:
        return
    names = list(own[-1].classes)
    shown = sorted(names, key=lambda name: -own[-1].classes[name].share)[:_MOST] if len(names) > _MOST else names
    head = [f"class of {given.slot}" if len({term.slot for term in terms}) > 1 else "class", given.many]
    brief = len(own) > _WIDEST
    for term in own:
        head += [f"{term.name}: share"] if term.total or brief else [f"{term.name}: value", "‖gradient‖", "share"]
    rows = [[name, f"{own[-1].classes[name].elements:,.4g}", *_cells(name, own, brief)] for name in shown]
    if len(names) > _MOST:
        rest = sum(own[-1].classes[name].share for name in names if name not in shown)
        rows.append([f"{len(names) - _MOST} more", "", *[""] * (len(head) - 3), f"{rest:.1%}"])
    yield Table(head, rows)


def _cells(name: str, terms: list[Term], brief: bool) -> list[str]:
    cells = []
    for term in terms:
        group = term.classes[name]
        if not term.total and not brief:
            cells += ["" if group.value is None else f"{group.value:.4g}", f"{group.norm:.3g}"]
        cells.append(f"{group.share:.1%}")
    return cells


def _given(found: Measured) -> Iterator[str]:
    for given in found.inputs:
        why = ", ".join(f"{reason}: {count:,}" for reason, count in given.ignored.items())
        ignored = f", {given.elements - given.counted:,} ignored ({why})" if why else ""
        slot = f"{given.slot}: " if len(found.inputs) > 1 else ""
        yield f"{slot}{given.kind} {given.shape}, {given.elements:,} {given.many}{ignored}"


def _legend(found: Measured) -> list[str]:
    rules = dict.fromkeys(given.rule for given in found.inputs)
    return [*rules, "shares are of Σ |∂L/∂z|; ‖gradient‖ is √Σ (∂L/∂z)²"]


def _aligned(table: Table) -> list[str]:
    lines = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]


def _drawn(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
