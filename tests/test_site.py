"""The site builds without a warning, each of its pages is complete, and none asks for anything from elsewhere."""

from __future__ import annotations

import doctest
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import lossmith as ls
from lossmith.lab import UserError
from lossmith.lab.experiments import experiments
from made_once import MEASURED, RUN, built, needs, script

needs()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory)


class Page(HTMLParser):
    """What a page asks a browser to load, where its links lead, and what can be pointed at."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.count: dict[str, int] = {}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.count[tag] = self.count.get(tag, 0) + 1
        if "src" in given or tag == "link":
            self.loads.append(given.get("src") or given.get("href", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.ids.add(given.get("id", ""))


def elsewhere(address: str) -> bool:
    return re.match(r"(\w+:)?//", address) is not None


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for file in pages:
        page = Page(file)
        assert page.loads, file.name
        assert not [address for address in page.loads if elsewhere(address)], file.name
        assert not re.search(r"url\(['\"]?(https?:)?//", file.read_text(encoding="utf-8")), file.name
    for file in site.rglob("*.css"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", text), file.name


def test_what_would_be_loaded_is_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<link href="//host/a.css"><script src="https://host/b.js"></script><img src="c.png">')
    assert [address for address in Page(page).loads if elsewhere(address)] == ["//host/a.css", "https://host/b.js"]


def test_links_lead_somewhere(site):
    pages = {file: Page(file) for file in site.rglob("*.html")}
    for file, page in pages.items():
        for link in page.links:
            name, _, part = link.partition("#")
            if re.match(r"\w+:", link) or not link.strip("#"):
                continue
            target = (file.parent / name).resolve() if name else file
            assert target.exists(), (file.name, link)
            if part and target.suffix == ".html":
                assert part in pages[target].ids, (file.name, link)


def test_names_lead_to_their_pages(site):
    """Ours, not those of other libraries."""
    page = (site / "articles.html").read_text(encoding="utf-8")
    assert 'href="api.html#ls-kl-divergence"' in page
    page = (site / "losses/dice_ce.html").read_text(encoding="utf-8")
    assert 'href="dice.html"' not in page.split("Instead of theirs")[1].split("</table>")[0]
    assert 'href="dice.html"' in (site / "losses/jaccard.html").read_text(encoding="utf-8").split("<article")[1]


@pytest.mark.parametrize("row", ls.catalogue(), ids=lambda row: row.name)
def test_every_loss_has_a_page(site, row):
    file = site / f"losses/{row.name}.html"
    text, page = file.read_text(encoding="utf-8"), Page(file)
    assert page.count["math"] >= len(script("formulas").FORMULAS[row.name])
    assert '<figure class="chart">' in text
    plain = re.sub(r"<[^>]+>", "", text)
    for setting in row.fields:
        assert setting in plain
    (example, *_), words = script("docstrings").read(row.cls, row.name).examples[-1:], plain.replace("&#34;", '"')
    assert re.sub(r"\W", "", example.source) in re.sub(r"\W", "", words.replace("&gt;", ">").replace("&quot;", '"'))
    assert re.sub(r"\W", "", example.want) in re.sub(r"\W", "", words)


def test_numbers_are_shown(site):
    text = re.sub(r"<[^>]+>", "", (site / "losses/dice.html").read_text(encoding="utf-8"))
    for number in ("0.7758", "0.01239 → 0.02201", "ls.DiceLoss(smooth=1e-05)", "a class absent", "47 operations"):
        assert number in text, number


def test_what_the_paper_states_is_shown(site):
    text = re.sub(r"<[^>]+>", "", (site / "losses/focal.html").read_text(encoding="utf-8"))
    assert "ls.FocalLoss.paper()" in text
    assert re.search(r"alpha\s+None\s+0\.25\s", text)


def test_curves_are_drawn(site):
    for name in MEASURED:
        text = (site / f"losses/{name}.html").read_text(encoding="utf-8")
        (svg, *_) = re.findall(r'<figure class="chart">.*?</figure>', text, re.S)
        assert svg.count("<path") > 10
        for colour in script("figures").THEMED:
            assert colour not in svg  # greys are the page's, or nobody could read them in the dark


def test_every_public_name_has_its_place(site):
    ids = Page(site / "api.html").ids
    for module, short in script("api_pages").SHORT.items():
        for name, thing in script("api_pages").public(module):
            page = script("api_pages").loss(thing)
            assert page is not None or re.sub(r"[._]", "-", f"{short}.{name}".lower()) in ids, name


def test_letters_stand_in_the_formula():
    formulas, names = script("formulas"), {row.name for row in ls.catalogue()}
    assert formulas.FORMULAS.keys() >= names
    assert formulas.FORMULAS.keys() == formulas.WHERE.keys()
    for name in formulas.FORMULAS:
        for letter in formulas.letters(name):
            assert letter in " ".join(formulas.FORMULAS[name]), (name, letter)


def test_an_undocumented_public_name_fails(monkeypatch, tmp_path):
    def bare(x: int) -> int:
        return x

    monkeypatch.setattr(ls, "bare", bare, raising=False)
    monkeypatch.setattr(ls, "__all__", [*ls.__all__, "bare"])
    build, docstrings = script("build"), script("docstrings")
    monkeypatch.setattr(build.loss_pages, "pages", lambda kept: [])
    monkeypatch.setattr(build.experiment_pages, "pages", lambda kept, only: [])
    with pytest.raises(docstrings.NotDocumented, match=r"ls\.bare is public and has no docstring"):
        build.gather(tmp_path / "source", build.Kept(tmp_path), ())
    bare.__doc__ = "What it is."
    build.gather(tmp_path / "source", build.Kept(tmp_path), ())
    assert "### ls.bare" in (tmp_path / "source/api.md").read_text(encoding="utf-8")


def test_a_method_without_a_word_fails():
    class Public:
        """What it is."""

        def method(self) -> None:
            pass

    with pytest.raises(script("docstrings").NotDocumented, match=r"Public\.method"):
        list(script("api_pages").entry("ls.Public", Public, 3))


def test_a_setting_without_a_word_fails(monkeypatch, tmp_path):
    from lossmith.losses.region import DiceLoss

    row = next(row for row in ls.catalogue() if row.name == "dice")
    loss_pages = script("loss_pages")
    monkeypatch.setattr(loss_pages, "measure", lambda row: {})
    monkeypatch.setattr(loss_pages, "compare", lambda rival: {})
    monkeypatch.setitem(DiceLoss.fields, "mystery", 1.0)
    row.fields["mystery"] = 1.0
    with pytest.raises(script("docstrings").NotDocumented, match=r"DiceLoss\.mystery"):
        loss_pages.about(row, script("kept").Kept(tmp_path))


def test_an_example_that_is_wrong_fails():
    docstrings = script("docstrings")
    examples = doctest.DocTestParser().get_examples(">>> 1 + 1\n3\n")
    with pytest.raises(RuntimeError, match="Expected"):
        docstrings.run(examples, {}, "sum")


def test_the_search_knows_the_losses(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    places = [index[kind]["hausdorff"] for kind in ("terms", "titleterms")]
    found = {index["docnames"][i] for place in places for i in ([place] if isinstance(place, int) else place)}
    assert "losses/hausdorff" in found


def test_every_claim_has_its_row(site):
    text = (site / "experiments/index.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr class.*?</tr>", text, re.S)
    assert len(rows) == 1 + sum(len(it.claims) for it in experiments())
    page = (site / f"experiments/{RUN[0]}.html").read_text(encoding="utf-8")
    assert "confirmed with a correction" in page
    assert '<figure class="chart">' in page
    others = [row for row in rows[1:] if "left out of this build" in row]
    assert len(others) == len(rows) - 2


def test_an_experiment_without_its_data_says_so(tmp_path):
    it = next(it for it in experiments() if it.name == RUN[0])

    class Offline(type(it)):  # type: ignore[misc]
        """As it is, without a network."""

        def compute(self, work: Any) -> Any:
            raise UserError("bacteria cannot be fetched: no network")

    experiment_pages, said = script("experiment_pages"), []
    seen = experiment_pages.see(Offline(), script("kept").Kept(tmp_path, said.append))
    assert seen.verdict == "not run"
    assert said[-1] == f"{RUN[0]} cannot run: bacteria cannot be fetched: no network"
    assert "bacteria cannot be fetched" in experiment_pages.index([seen])
    assert experiment_pages.about(seen)["figures"] == []


def test_what_is_kept_is_computed_once(tmp_path, monkeypatch):
    kept, calls = script("kept"), []

    def compute() -> list[int]:
        calls.append(1)
        return [1]

    assert kept.Kept(tmp_path).get("a/b", compute) == [1]
    assert kept.Kept(tmp_path).get("a/b", compute) == [1]
    assert len(calls) == 1
    monkeypatch.setattr(kept, "SOURCES", ("constraints.txt",))
    assert kept.Kept(tmp_path).get("a/b", compute) == [1]
    assert len(calls) == 2
