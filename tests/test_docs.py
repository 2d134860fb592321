"""The Python in the documents runs, and what the documents name exists."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import math
import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def script(name: str) -> Iterator[Any]:
    """A script of docs/ as a module."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        spec = importlib.util.spec_from_file_location(f"{name}_page", ROOT / f"docs/{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.fixture(scope="module")
def computed():
    """docs/losses.py as a module."""
    with script("losses") as module:
        yield module


def test_tables_of_processes_are_current():
    """Some rows of the one; `python docs/scale.py` writes both."""
    with script("scale") as scale, ls.use_engine("plain"):
        page = scale.PAGE.read_text(encoding="utf-8")
        assert scale.filled(page, "measured", "\n".join(scale.measured()), scale.PAGE) == page
        for text in ("gdl(per_image=false)", "ce", "lovasz(bins=64)"):
            found = [scale.off(text, *scale.images(), n) for n in scale.PROCESSES]
            assert scale.line(text, found) in page.splitlines()
        assert all(f"`{text}`" in page for text in scale.losses())


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


@pytest.mark.parametrize("library", ["torch", "MONAI"])
def test_what_is_said_to_equal_ours_does(computed, library):
    """The table drives the page, the benchmark and whatever takes the place of another library."""
    rows = [row for row in computed.rivals.known() if row.library == library and row.equal and row.task != "large"]
    assert len(rows) > 5
    for row in rows:
        z, y = computed.rivals.fixture(row.task)
        mine = row.factor(z) * float(computed.rivals.ours(row, row.equal, z, y))
        assert mine == pytest.approx(computed.rivals.measured(row.call, z, y), rel=1e-6), row.theirs


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
    """A file past about 350 lines is two."""
    for file in (ROOT / "src").rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 400, file.name


def test_no_module_imports_one_that_imports_it():
    """At any distance, imports inside of functions included; of names for types alone, and of engines by name, not."""
    package, graph = ROOT / "src/lossmith", {}
    modules = {file: ".".join(file.relative_to(package).with_suffix("").parts) for file in package.rglob("*.py")}
    modules = {file: name.removesuffix("__init__").rstrip(".") for file, name in modules.items()}
    for file, name in modules.items():
        here = (name.split(".") if name else []) if file.name == "__init__.py" else name.split(".")[:-1]
        found = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("lossmith")):
                base = here[: len(here) - node.level + 1] if node.level else []
                path = ".".join([*base, *(node.module or "").removeprefix("lossmith").strip(".").split(".")]).strip(".")
                for alias in node.names:
                    one = f"{path}.{alias.name}".strip(".")
                    found |= {one if one in modules.values() else path} & {*modules.values()}
    for name in graph:
        seen, edge = set(), graph[name] - {name, ""}
        while edge:
            seen |= edge
            edge = {other for one in edge for other in graph[one] - {"", one}} - seen
        assert name not in seen, (name, seen)


def test_softmax_is_taken_in_the_engines_alone():
    for file in (ROOT / "src/lossmith").rglob("*.py"):
        if "engine" not in file.parts and "lab" not in file.parts:
            names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
            assert not names & {"softmax", "log_softmax", "sigmoid", "logsigmoid"}, file.name


def test_no_strays_among_the_public_names():
    """What `ls.` offers is what is meant, and the package's own modules."""
    given = {name for name in vars(ls) if not name.startswith("_")} - set(ls.__all__)
    assert all(isinstance(vars(ls)[name], types.ModuleType) for name in given), given
    assert all(vars(ls)[name].__name__.startswith("lossmith.") for name in given)


@pytest.mark.parametrize("name", ["pixel", "region", "divergence", "lovasz", "boundary", "structure", "recipes", "gfl"])
def test_modules_that_moved_can_be_imported_by_their_old_names(name):
    """Pickles hold them."""
    module = importlib.import_module(f"lossmith.{name}")
    assert getattr(ls, name) is module
    assert any(isinstance(x, type) and issubclass(x, ls.Loss) for x in vars(module).values())
