"""The kinds of data: every module here that has a `KIND`. A new one is found by being here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from lossmith.lab.kind import Kind

_ELSE = "pixels"  # says of a folder that is of no kind what is missing in it


def all_kinds() -> dict[str, Kind]:
    """The kinds by module, in the order in which they are asked."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").KIND for name in names}


def kind_of(folder: Path) -> Kind:
    """The kind of data that a folder holds."""
    kinds = all_kinds()
    return next((kind for kind in kinds.values() if kind.recognises(folder)), kinds[_ELSE])
