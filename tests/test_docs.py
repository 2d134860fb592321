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
import torch

import lossmith as ls

ROOT = Path(__file__).parent.parent


def pages(holding: str = "") -> list[str]:
    """The README and the pages of docs/ that hold a text; not the templates of pages that are computed."""
    files = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs/integrations").glob("*.md")),
    ]
    return [file.relative_to(ROOT).as_posix() for file in files if holding in file.read_text()]


@pytest.fixture
def catalogue():
    """As it is, whatever losses an example defines."""
    before = dict(ls.loss.CATALOGUE)
    yield
    ls.loss.CATALOGUE.clear()
    ls.loss.CATALOGUE.update(before)


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("document", [page for page in pages("```python\n") if page != "docs/scale.md"])
def test_examples_run(document, capsys):
    """The blocks of a page one after the other, as a reader would; `print(…)  # text` prints that text. Those of
    docs/scale.md run among processes: tests/process_cases.py."""
    space: dict = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.S):
        exec(compile(block, document, "exec", dont_inherit=True), space)
        said = re.findall(r"^ *print\(.*\)  # (.*)$", block, re.M)
        assert capsys.readouterr().out.splitlines() == said
    assert isinstance(space["loss"], ls.Loss)


def test_the_picture_of_edges_is_drawn_from_values():
    space: dict = {"__name__": "draw", "__file__": str(ROOT / "docs/draw_dfl.py")}
    exec((ROOT / "docs/draw_dfl.py").read_text(), space)
    assert space["draw"]() == (ROOT / "docs/dfl.svg").read_text()


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 50


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", *pages()])
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
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclasses look for it
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.fixture(scope="module")
def rivals():
    """docs/rivals.py as a module."""
    with script("rivals") as module:
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


@pytest.mark.parametrize("library", ["torch", "MONAI"])
def test_what_is_said_to_equal_ours_does(rivals, library):
    """The table drives the pages, the benchmark and whatever takes the place of another library."""
    rows = [row for row in rivals.known() if row.library == library and row.equal and row.task != "large"]
    assert len(rows) > 5
    for row in rows:
        z, y = rivals.fixture(row.task)
        mine = row.factor(z) * float(rivals.ours(row, row.equal, z, y))
        assert mine == pytest.approx(rivals.measured(row.call, z, y), rel=1e-6), row.theirs


def lines_that_replace(library: str) -> list[tuple[str, str, bool]]:
    """Theirs, ours and whether there is one channel, from the tables of docs/coming_from.md."""
    page = (ROOT / "docs/coming_from.md").read_text()
    part = page.split(f"\n## {library}\n")[1].split("\n## ")[0]
    several = part.split("| one channel |")[0]
    rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \|", part, re.M)
    return [(theirs, mine, f"`{theirs}`" not in several) for theirs, mine in rows]


@pytest.mark.parametrize(("library", "module"), [("MONAI", "monai.losses"), ("PyTorch", "torch")])
def test_the_line_that_replaces_theirs_gives_their_value(library, module):
    """Every line of the page for people who come from there."""
    theirs_is = vars(importlib.import_module(module))
    rows = lines_that_replace(library)
    assert len(rows) >= 3
    for theirs, mine, one in rows:
        z, y = torch.randn(2, 1 if one else 3, 8, 8), torch.randint(0, 2 if one else 3, (2, 1, 8, 8))
        given = {**theirs_is, "ls": ls, "w": torch.tensor([1.0, 2.0, 4.0])}
        value = eval(theirs, given)(z, y.float() if library == "MONAI" else y[:, 0])
        assert torch.allclose(eval(mine, given)(z, y), value, rtol=1e-5, atol=1e-6), theirs


def test_the_lines_for_kornia_are_those_that_were_measured(rivals):
    known = {rival.theirs: rival.equal for rival in rivals.known() if rival.library == "kornia"}
    for theirs, mine, _ in lines_that_replace("kornia"):
        assert repr(eval(mine.removeprefix("1 / 3 * "))) == repr(ls.parse(known[theirs])), theirs


def test_the_page_on_choosing_lists_every_family():
    rows = re.findall(r"^\| (\w+) \|", (ROOT / "docs/choosing.md").read_text().split("## The families")[1], re.M)
    assert {row.family for row in ls.catalogue()} == set(rows) - {"family"}


def test_the_readme_is_short_and_its_figures_are_those_of_the_page():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 85
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) > 2
    assert set(table) <= set((ROOT / "docs/speed.md").read_text().splitlines())


def test_links_between_pages_lead_somewhere():
    """Pages that `make docs` computes are not in the folder; their links are Sphinx's to check."""
    for page in pages():
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", (ROOT / page).read_text()):
            computed_later = re.search(r"(^|/)(losses|experiments)/[\w-]+\.md$", target)
            assert computed_later or ((ROOT / page).parent / target).exists(), (page, target)


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
