"""The examples run, and what they say of themselves holds."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from problems import labels_of, logits_of

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("schedule", ["increase", "rebalance"])
def test_boundary_schedule(schedule, capsys):
    """It learns to find the discs, and the weight of the boundary term grows by 0.01 an epoch."""
    scores = example("boundary_schedule").train(schedule, epochs=20)
    assert scores[-1] > 0.8
    assert capsys.readouterr().out.count("boundary") == 2


def test_boundary_schedules_are_the_papers():
    for schedule, weights in {"increase": (1.0, 0.05), "rebalance": (0.95, 0.05)}.items():
        loss = example("boundary_schedule").losses()[schedule]
        for _ in range(4):
            loss.step()
        assert [weight if isinstance(weight, float) else round(weight.value, 9) for weight, _ in loss.terms] == [
            *weights
        ]


def test_ddp(capsys, monkeypatch):
    """Two processes train as one does, on whatever images; those of the example are fetched."""
    monkeypatch.syspath_prepend(EXAMPLES)  # the processes import it by its name
    images, labels = logits_of(6, 1, 32, 32), labels_of(2, 6, 32, 32)
    assert importlib.import_module("ddp").main([(images, labels)] * 3) < 1e-9
    assert "largest difference" in capsys.readouterr().out
