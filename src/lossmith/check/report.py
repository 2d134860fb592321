"""What a check found: as text, as a table in a notebook, as a dict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

Verdict = Literal["holds", "fails", "not asked"]


@dataclass(frozen=True)
class Result:
    """One property of one loss.

    Attributes:
        seen: what was seen where it fails, why it was not asked where it was not; else empty.
        example: Python that shows the fault on the smallest input that was found, in which `loss` is the loss.
    """

    name: str
    means: str
    verdict: Verdict
    seen: str = ""
    example: str = ""


@dataclass(frozen=True)
class Report:
    """All properties of one loss, in the order of asking.

    Attributes:
        target: the form of target that the loss was called with.
    """

    loss: str
    task: str
    target: str
    results: tuple[Result, ...]

    @property
    def holds(self) -> bool:
        """Whether everything that was asked does."""
        return not self.failed

    @property
    def failed(self) -> list[Result]:
        """What does not hold."""
        return [result for result in self.results if result.verdict == "fails"]

    def __getitem__(self, name: str) -> Result:
        """The property of a name."""
        return next(result for result in self.results if result.name == name)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "loss": self.loss,
            "task": self.task,
            "target": self.target,
            "holds": self.holds,
            "properties": [asdict(result) for result in self.results],
        }

    def summary(self) -> str:
        """One line."""
        counts = [sum(result.verdict == verdict for result in self.results) for verdict in ("holds", "fails")]
        rest = len(self.results) - sum(counts)
        return (
            f"{self.loss}, {self.task}, target as {self.target}: {counts[0]} hold, {counts[1]} fail, {rest} not asked"
        )

    def __str__(self) -> str:
        wide = max((len(result.name) for result in self.results), default=0)
        lines = [self.summary()]
        for result in self.results:
            lines.append(f"  {result.verdict:9}  {result.name:{wide}}  {result.means}")
            if result.seen:
                lines.append(f"{'':{wide + 15}}{result.seen}")
            lines += [f"{'':{wide + 17}}{line}" for line in result.example.splitlines()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{escape(result.verdict)}</td><td>{escape(result.name)}</td><td>{escape(result.means)}</td>"
            f"<td>{escape(result.seen)}{f'<pre>{escape(result.example)}</pre>' if result.example else ''}</td></tr>"
            for result in self.results
        ]
        return (
            f"<table><caption>{escape(self.summary())}</caption>"
            f"<tr><th></th><th>property</th><th>which means</th><th>seen</th></tr>{''.join(rows)}</table>"
        )
