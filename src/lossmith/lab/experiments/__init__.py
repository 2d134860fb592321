"""The experiments: every module here, each with its EXPERIMENT. A new one is found by being here.

What several of them share stands in packages beside them, which are no experiments.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from lossmith.lab.experiment import Experiment


def names() -> list[str]:
    """The names of all experiments, without importing them."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(__path__) if not module.ispkg)


def experiment(name: str) -> Experiment:
    """One of them."""
    found: Experiment = import_module(f"{__name__}.{name.replace('-', '_')}").EXPERIMENT
    return found


def experiments() -> list[Experiment]:
    """All of them, in the order of their claims."""
    return sorted((experiment(name) for name in names()), key=lambda each: each.claims)
