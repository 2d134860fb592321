"""Every experiment: it runs in its short form, says a verdict with numbers, writes a page that needs nothing else, and
judges the opposite of data that contradict its claim (a test for that stands in tests/lab/experiments/)."""

import contextlib
import html
import importlib.util
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossmith.cli import main
from lossmith.lab import UserError
from lossmith.lab import experiments as registry
from lossmith.lab.experiment import DOCUMENTS, Data, Experiment, Work
from lossmith.lab.page.experiment import Outcome, write_index, write_page
from lossmith.lab.page.panels import Chart
from made_once import once

CONTRADICTIONS = Path(__file__).parent / "experiments"
NAMES = registry.names()
Computed = Callable[[str], tuple[Experiment, Data]]
VERDICTS = ("confirmed", "confirmed with a correction", "refuted", "no difference seen")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Computed:
    """An experiment and what it computes in its short form, once for all workers, as JSON gives it back. Where its data
    cannot be had the test is skipped."""

    def of(name: str) -> tuple[Experiment, Data]:
        asked = set[str]()

        class Asked(Work):
            def __getattribute__(self, name: str) -> Any:
                asked.add(name)
                return super().__getattribute__(name)

        it = registry.experiment(name)

        def compute(file: Path) -> None:
            work = Asked(fast=True, folder=file.with_suffix(".work"))
            file.write_text(json.dumps(it.compute(work), allow_nan=False), encoding="utf-8")
            assert ("fast" in asked) == (it.seconds[0] < it.seconds[1])  # else the short form is the full one

        try:
            return it, json.loads(once(tmp_path_factory, f"{name}.json", compute).read_text(encoding="utf-8"))
        except UserError as error:
            pytest.skip(str(error))

    return of


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    it = registry.experiment(name)
    assert it.name == name
    assert it.document in DOCUMENTS
    assert it.claim.endswith(".")
    assert 0 < it.seconds[0] <= 20
    assert it.seconds[0] <= it.seconds[1] <= 300
    assert type(it).__doc__


def test_no_claim_is_told_twice() -> None:
    claims = [claim for it in registry.experiments() for claim in it.claims]
    assert len(claims) == len(set(claims))
    assert set(claims) <= set(range(1, 24))


@pytest.mark.parametrize("name", NAMES)
def test_verdict_sentence_and_figures(computed: Computed, name: str) -> None:
    it, data = computed(name)
    finding = it.judge(data)
    assert finding.verdict in VERDICTS
    assert re.search(r"\d", finding.sentence)
    assert finding.sentence.endswith(".")
    assert "nan" not in finding.sentence
    if finding.verdict == "confirmed":
        assert not it.correction  # nothing was wrong
    assert it.correction or finding.verdict != "confirmed with a correction"
    figures = it.draw(data)
    assert figures
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert figure.caption.endswith(".")
        assert isinstance(figure.chart, Chart)
        assert all(panel.series for panel in figure.chart.panels)
    for table in it.tables(data):
        assert {len(row) for row in table.rows} == {len(table.head)}


@pytest.mark.parametrize("name", NAMES)
def test_the_number_by_hand_is_the_page_s(computed: Computed, name: str) -> None:
    """The lines print what the page says they print, and that stands in the sentence or a table."""
    it, data = computed(name)
    check, printed = it.by_hand(data), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(check.code, {"__name__": "by_hand"})
    assert printed.getvalue().strip() == check.prints
    shown = it.judge(data).sentence + " ".join(cell for t in it.tables(data) for row in t.rows for cell in row)
    assert check.prints in shown


def test_a_short_form_is_said_where_there_is_one(computed: Computed, tmp_path: Path) -> None:
    for name, short in (("kl-is-no-distance", True), ("corners-and-outliers", False)):
        write_page(Outcome.of(*computed(name)), True, tmp_path / "page.html", "lossmith lab")
        assert ("the short form" in (tmp_path / "page.html").read_text(encoding="utf-8").split("<h1")[0]) == short


@pytest.mark.parametrize("name", NAMES)
def test_page(computed: Computed, name: str, tmp_path: Path) -> None:
    it, data = computed(name)
    outcome = Outcome.of(it, data)
    write_page(outcome, True, tmp_path / "page.html", "lossmith lab")
    text = re.sub(
        r"<script>.*?</script>", "", (tmp_path / "page.html").read_text(encoding="utf-8"), count=1, flags=re.S
    )
    assert not re.search(r"<link|<iframe|@import|url\(|src=.?http", text)
    assert outcome.sentence in html.unescape(text)
    assert text.count("Plotly.newPlot(") >= 1


@pytest.mark.parametrize("name", NAMES)
def test_contradicting_data_give_another_verdict(computed: Computed, name: str) -> None:
    """`contradict(data)` of the file makes of the data such as contradict the claim, and OPPOSITE is their verdict.

    ALSO has more of both, where a claim has several parts.
    """
    path = CONTRADICTIONS / f"{name.replace('-', '_')}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, path
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    it, data = computed(name)
    before = it.judge(data).verdict
    for contradict, opposite in [(module.contradict, module.OPPOSITE), *getattr(module, "ALSO", [])]:
        after = it.judge(contradict(computed(name)[1])).verdict
        assert after == opposite, contradict.__name__
        assert before != after


def test_index_and_results(computed: Computed, tmp_path: Path) -> None:
    first, *rest = registry.experiments()
    unreachable = Outcome(rest[0], None, None, "its data cannot be reached")
    outcomes = [Outcome.of(first, computed(first.name)[1]), unreachable]
    write_index(outcomes, rest[1:], True, 3.0, tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert f'<a href="{first.name}.html">' in text
    assert "its data cannot be reached" in text
    assert text.count("not run") >= len(rest)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [set(row) for row in results] == [{"name", "claims", "verdict", "sentence"}] * len(outcomes)
    assert results[0]["claims"] == list(first.claims)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "kl-is-no-distance", "--fast"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("confirmed: ")
    assert said.endswith("\nkl-is-no-distance.html\n")
    assert main(["lab", "kl-is-no-distance", "--fast", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"claim", "verdict", "sentence", "figures", "data"} <= set(found)
    assert main(["lab", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == set(NAMES)
    assert {"name", "claims", "claim", "document", "seconds"} <= set(rows[0])
    assert main(["lab", "kl-is-no-distance", "--out", "no/where.html"]) == 2
    assert "--out no/where.html: cannot be written" in capsys.readouterr().err
    assert main(["lab", "no-such-thing"]) == 2
    assert "no-such-thing" in capsys.readouterr().err


def test_all_goes_on_where_one_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = registry.experiment("kl-is-no-distance")

    class Unreachable(type(it)):  # type: ignore[misc]
        claims = (2,)

        def compute(self, work: Work) -> Data:
            raise UserError("the index cannot be reached")

    monkeypatch.setattr(registry, "experiments", lambda: [Unreachable(), it])
    assert main(["lab", "all", "--fast", "--out", str(tmp_path / "all")]) == 2
    captured = capsys.readouterr()
    assert "1 of 2 could not run" in captured.err
    assert captured.out == f"{tmp_path / 'all' / 'index.html'}\n"
    verdicts = [row["verdict"] for row in json.loads((tmp_path / "all" / "results.json").read_text(encoding="utf-8"))]
    assert verdicts == ["not run", "confirmed"]
