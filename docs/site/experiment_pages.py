"""The experiments: a table of claim, verdict and sentence, and a page for each with its figures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import docstrings
import figures
from kept import Kept
from tables import cells, table_head
from template import template

from lossmith.lab import UserError
from lossmith.lab.experiment import DOCUMENTS, Experiment, Work
from lossmith.lab.experiments import experiments
from lossmith.lab.page.experiment import Outcome


def pages(kept: Kept, only: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """The path and the text of each page; experiments that are not among `only` are not run."""
    seen = [
        see(it, kept) if only is None or it.name in only else Outcome(it, None, None, "left out of this build")
        for it in experiments()
    ]
    yield "experiments/index.md", index(seen)
    page = template("experiment.md")
    for each in seen:
        yield f"experiments/{each.experiment.name}.md", page.render(about(each))


def see(it: Experiment, kept: Kept) -> Outcome:
    """Runs it in its short form; what needs data that cannot be had is not run, and the build goes on."""
    folder = kept.folder / "trials" / it.name

    def compute() -> Any:
        return it.compute(Work(True, folder, say=kept.say))

    try:
        return Outcome.of(it, kept.get(f"experiments/{it.name}", compute))
    except UserError as error:
        kept.say(f"{it.name} cannot run: {error}")
        return Outcome(it, None, None, str(error))


def index(seen: Sequence[Outcome]) -> str:
    rows = [(number, each) for each in seen for number in each.experiment.claims]
    rows.sort(key=lambda row: row[0])
    listed = "\n".join(each.experiment.name for each in seen)
    return "\n".join([
        "# What the documents claim, and what is seen", "",
        "Five short articles claim 23 things about how losses behave. Each is an experiment here, `lossmith lab NAME`; "
        "the verdict and the sentence are computed by it. These are the short forms, `--fast`.", "",
        '<div class="claims">', "",
        *table_head("no.", "claim", "verdict", "what was seen"),
        *(cells(str(number), f"[{docstrings.escaped(each.experiment.claim)}]({each.experiment.name}.md)",
                badge(each.verdict), docstrings.escaped(each.sentence)) for number, each in rows),
        "", "</div>", "", "```{toctree}", ":hidden:", "", listed, "```", "",
    ])  # fmt: skip


def badge(verdict: str) -> str:
    return f'<span class="verdict {verdict.split()[0]}">{verdict}</span>'


def about(each: Outcome) -> dict[str, Any]:
    """Everything that the template asks for."""
    it, data = each.experiment, each.data
    return {
        "it": it,
        "title": it.title,
        "claim": docstrings.escaped(it.claim),
        "correction": docstrings.escaped(each.correction) if data is not None else "",
        "document": DOCUMENTS[it.document],
        "verdict": badge(each.verdict),
        "sentence": docstrings.escaped(each.sentence),
        "method": docstrings.markdown(inspect.getdoc(type(it)) or ""),
        "figures": [figures.drawn(f.chart, f.caption) for f in it.draw(data)] if data is not None else [],
        "tables": [
            "\n".join([f"**{docstrings.escaped(t.caption)}**", "", *table_head(*map(docstrings.escaped, t.head)),
                       *(cells(*map(docstrings.escaped, row)) for row in t.rows)])
            for t in it.tables(data)
        ] if data is not None else [],
        "by_hand": it.by_hand(data) if data is not None else None,
    }  # fmt: skip
