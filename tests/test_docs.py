"""The Python in the documents runs, and what the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lossmith as ls

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("document", ["README.md", "docs/boxes.md"])
def test_examples_run(document, monkeypatch):
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


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/decisions.md", "docs/boxes.md"])
def test_files_named_in_documents_exist(document):
    for name in re.findall(r"`([\w/]+\.(?:py|md|json|txt|toml))`", (ROOT / document).read_text()):
        places = [ROOT / name, ROOT / "src/lossmith" / name, ROOT / "src/lossmith/engine" / name]
        assert any(place.exists() for place in places), name


def test_every_loss_of_the_catalogue_is_exported():
    for row in ls.catalogue():
        assert row.cls.__name__ in ls.__all__


def test_files_stay_small():
    """A file past about 350 lines is two. The kernels are one because numba's cache follows one file at a time."""
    for file in (ROOT / "src").rglob("*.py"):
        if file.name != "kernels.py":
            assert len(file.read_text().splitlines()) <= 400, file.name
