"""A claim about how losses behave, what would show it, and how that is judged: what an experiment has to say.

An experiment is one file in experiments/ with a class that extends `Experiment` and an instance of it called
EXPERIMENT. It is found by being there: its command is its name, and page, list and tests follow from what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from lossmith.lab.page.panels import Chart

Verdict = Literal["confirmed", "confirmed with a correction", "refuted", "no difference seen"]
Data = dict[str, Any]  # as JSON would read it back

DOCUMENTS = {
    "000": "Functions that compute a divergence: loss functions in semantic segmentation",
    "001": "Dice loss (after Sudre et al. 2017, V-Net)",
    "002": "Common loss functions and their formulas",
    "003": "Losses in semantic segmentation",
    "004": "The evolution of cross-entropy",
}


class Finding(NamedTuple):
    """What was seen, in one sentence that holds the numbers, and with the interval where trials are random."""

    verdict: Verdict
    sentence: str


class Figure(NamedTuple):
    """A chart under a name that can be a file's, and what to look at in it."""

    name: str
    caption: str
    chart: Chart


class Table(NamedTuple):
    """Rows of text; columns with numbers are set to the right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class ByHand(NamedTuple):
    """A few lines of Python that need nothing but lossmith and torch, and the number on the page that they print."""

    code: str
    prints: str


@dataclass(frozen=True)
class Work:
    """How an experiment is run.

    fast    whether twenty seconds on two cores have to do, for tests and the documentation
    folder  where trials are kept, so that what was stopped goes on; it may not exist yet
    watch   is told how much is done, and of how much
    say     is told what the user should know
    """

    fast: bool
    folder: Path
    watch: Callable[[int, int], None] = field(default=lambda done, total: None)
    say: Callable[[str], None] = field(default=lambda line: None)


class Experiment:
    """What is claimed, and by which document; `claims` are its numbers among the 23 of the documents.

    `correction` is what the document should have said, where its text is wrong. The docstring of a class says how the
    experiment is done and stands on its page.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claims: ClassVar[tuple[int, ...]]
    claim: ClassVar[str]
    document: ClassVar[str]
    correction: ClassVar[str] = ""
    seconds: ClassVar[tuple[int, int]]  # on two cores: fast, in full; the same where the short form is the full one
    template: ClassVar[str] = '{% extends "experiment.html" %}'

    def compute(self, work: Work) -> Data:
        """Everything that is measured. Nothing below measures anything."""
        raise NotImplementedError

    def judge(self, data: Data) -> Finding:
        """What the numbers say, also where they say something else than they do."""
        raise NotImplementedError

    def draw(self, data: Data) -> list[Figure]:
        """What to look at, the most telling one first."""
        raise NotImplementedError

    def tables(self, data: Data) -> list[Table]:
        """The numbers behind the sentence, where the figures do not show them."""
        return []

    def by_hand(self, data: Data) -> ByHand:
        """How a reader checks one of the numbers of the sentence."""
        raise NotImplementedError
