"""What an experiment leaves: a page and the same as data; and of several of them one table to begin with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lossmith.lab.experiment import DOCUMENTS, Data, Experiment, Finding
from lossmith.lab.page.figures import markup
from lossmith.lab.page.templates import render
from lossmith.lab.run.records import as_json, write


@dataclass(frozen=True)
class Outcome:
    """An experiment that was done; without data one that could not be, and why that is the sentence."""

    experiment: Experiment
    finding: Finding | None
    data: Data | None
    sentence: str

    @classmethod
    def of(cls, experiment: Experiment, data: Data) -> Outcome:
        finding = experiment.judge(data)
        return cls(experiment, finding, data, finding.sentence)

    @property
    def verdict(self) -> str:
        return self.finding.verdict if self.finding else "not run"

    @property
    def correction(self) -> str:
        """What the document should have said; nothing where it turned out to be right."""
        return "" if self.verdict == "confirmed" else self.experiment.correction

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        it, data = self.experiment, self.data or {}
        figures = [{"name": f.name, "caption": f.caption, **asdict(f.chart)} for f in it.draw(data)] if data else []
        return {
            "name": it.name,
            "claims": list(it.claims),
            "claim": it.claim,
            "document": DOCUMENTS[it.document],
            "correction": self.correction,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "figures": figures,
            "data": data,
        }


def write_page(outcome: Outcome, fast: bool, page: Path, command: str, **more: Any) -> None:
    """The page of one experiment; `more` is for the blocks of a template of its own."""
    it, data = outcome.experiment, outcome.data
    assert data is not None
    rendered = render(
        it.template,
        it=it,
        finding=outcome.finding,
        correction=outcome.correction,
        documents=DOCUMENTS,
        figures=[{"caption": f.caption, "drawn": markup(f.chart)} for f in it.draw(data)],
        tables=it.tables(data),
        method=" ".join((inspect.getdoc(type(it)) or "").split()),
        by_hand=it.by_hand(data),
        command=command,
        fast=fast,
        version=version("lossmith"),
        **more,
    )
    write(page, rendered)


def write_index(
    outcomes: Sequence[Outcome], waiting: Sequence[Experiment], fast: bool, seconds: float, out: Path
) -> None:
    """`out`/index.html, a row for each claim, and `out`/results.json of those that are done."""
    rows = []
    for outcome in outcomes:
        page = f"{outcome.experiment.name}.html" if outcome.finding else ""
        rows += [
            _row(k, outcome.experiment, outcome.verdict, outcome.sentence, page) for k in outcome.experiment.claims
        ]
    rows += [_row(k, it, "not run", "", "") for it in waiting for k in it.claims]
    verdicts = [row["verdict"] for row in rows]
    counted = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts), key=verdicts.index)}
    headline = f"{len(rows)} claims: {', '.join(f'{count} {verdict}' for verdict, count in counted.items())}"
    page = render(
        '{% extends "experiments.html" %}',
        plots=False,
        rows=sorted(rows, key=lambda row: row["number"]),
        headline=headline,
        fast=fast,
        seconds=seconds,
        version=version("lossmith"),
    )
    write(out / "index.html", page)
    done = [{k: v for k, v in o.as_json().items() if k in ("name", "claims", "verdict", "sentence")} for o in outcomes]
    write(out / "results.json", as_json(done))


def _row(number: int, it: Experiment, verdict: str, sentence: str, page: str) -> dict[str, Any]:
    return {"number": number, "claim": it.claim, "verdict": verdict, "sentence": sentence, "page": page}
