"""What takes long and several tests want: made once for all workers, by whoever asks first. The site as `make docs`
builds it, with little in it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
RUN = ("tiny-dice-gradient",)  # the experiments of this build; each is tested by itself elsewhere
MEASURED = ("dice", "giou", "nonadjacency")  # the losses whose numbers and curves are made; for all it takes minutes
NOT_MEASURED: dict[str, Any] = dict.fromkeys(("levels", "absent", "knobs")) | {
    "values": "",
    "cost": None,
    "curve": '<figure class="chart"></figure>',
}


def script(name: str) -> ModuleType:
    """One of the scripts of docs/, by the name it has there."""
    for place in (str(DOCS / "site"), str(DOCS)):
        if place not in sys.path:
            sys.path.insert(0, place)
    return importlib.import_module(name)


def needs() -> None:
    """Skips where the packages are missing that build the site."""
    for package in ("furo", "myst_parser", "latex2mathml"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'the site needs {package}: pip install -c constraints.txt ".[docs]"', allow_module_level=True)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A file or folder that `make` writes where it is told to, unless another worker has."""
    from filelock import FileLock

    mine = factory.getbasetemp()
    shared = mine.parent if mine.name.startswith("popen-") else mine  # a worker's lies in that of all
    with FileLock(shared / f"{name}.lock"):
        if not (shared / f"{name}.done").exists():
            make(shared / name)
            (shared / f"{name}.done").touch()
    return shared / name


def built(factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, with one experiment and the numbers of a few losses."""
    needs()
    return once(factory, "site", _build)


def _build(place: Path) -> None:
    loss_pages = script("loss_pages")
    measure, compare = loss_pages.measure, loss_pages.compare
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Sphinx's own
        patch.setattr(loss_pages, "measure", lambda row: measure(row) if row.name in MEASURED else NOT_MEASURED)
        patch.setattr(loss_pages, "compare", lambda it: compare(it) if it.ours in MEASURED else {"unusual": {}})
        assert script("build").build(place, place.with_name("site-kept"), RUN) == 0
