"""The Python in the documents runs, and what the documents name exists."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from pathlib import Path

import pytest

import lossmith as ls

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("document", ["README.md", "docs/boxes.md", "docs/partial_labels.md", "docs/recipes.md"])
def test_examples_run(document, monkeypatch):
    """The blocks of a page one after the other, as a reader would."""
    monkeypatch.setattr("lossmith.loss.CATALOGUE", dict(ls.loss.CATALOGUE))  # a loss that an example defines
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.S)
    assert blocks
    space: dict = {"__name__": "example"}
    for block in blocks:
        exec(block, space)
    assert isinstance(space["loss"], ls.Loss)


def test_the_picture_of_edges_is_drawn_from_values():
    space: dict = {"__name__": "draw", "__file__": str(ROOT / "docs/draw_dfl.py")}
    exec((ROOT / "docs/draw_dfl.py").read_text(), space)
    assert space["draw"]() == (ROOT / "docs/dfl.svg").read_text()


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 50


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
)
def test_files_named_in_documents_exist(document):
    for name in re.findall(r"`([\w/]+\.(?:py|md|json|txt|toml))`", (ROOT / document).read_text()):
        places = [ROOT / name, ROOT / "src/lossmith" / name, ROOT / "src/lossmith/engine" / name]
        assert any(place.exists() for place in places), name


@pytest.fixture(scope="module")
def computed():
    """docs/losses.py as a module."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        spec = importlib.util.spec_from_file_location("losses_page", ROOT / "docs/losses.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize("name", ["losses", "knobs", "others"])
def test_tables_of_losses_are_current(computed, name):
    """What needs no rival is computed again; `python docs/losses.py` writes it."""
    page = computed.PAGE.read_text()
    assert computed.written(page, [name]) == page


def test_rivals_were_measured(computed):
    """All three were there when the page was written, and what is said to equal them does."""
    page = computed.PAGE.read_text()
    assert "not installed" not in page
    assert "NOT `" not in page
    for rival in computed.rivals.known():
        assert f"`{rival.theirs}`" in page, rival.theirs


def test_readme_lists_every_family():
    rows = re.findall(r"^\| (\w+) \|", (ROOT / "README.md").read_text().split("## The catalogue")[1], re.M)
    assert {row.family for row in ls.catalogue()} == set(rows) - {"family"}


@pytest.mark.parametrize("row", ls.catalogue(), ids=lambda row: row.name)
def test_docstring_and_table_say_the_same_of_the_upper_end(row):
    (end,) = re.findall(r"^ *Range: [\[(].*?, .*?(∞?)[\])]", row.cls.__doc__, re.M)
    assert (end == "∞") == (row.range[1] == math.inf)


def test_every_loss_of_the_catalogue_is_exported():
    for row in ls.catalogue():
        assert row.cls.__name__ in ls.__all__


def test_files_stay_small():
    """A file past about 350 lines is two. The kernels are one because numba's cache follows one file at a time."""
    for file in (ROOT / "src").rglob("*.py"):
        if file.name != "kernels.py":
            assert len(file.read_text().splitlines()) <= 400, file.name
