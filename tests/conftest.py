"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch

import lossmith as ls
from lossmith.engine import ENGINES

# The tests are many and small, and run side by side: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(params=["plain", "fused"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once with each engine; what the kernels cannot take falls back to plain."""
    with ls.use_engine("plain" if request.param == "plain" else "auto"):
        yield request.param


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, type]]:
    """Who answered what: the engine and the kind of question, in order. The one place that knows how to tell."""
    seen: list[tuple[str, type]] = []
    for name in ENGINES:
        engine = importlib.import_module(f"lossmith.engine.{name}")

        def answer(question, original=engine.answer, name=name):
            seen.append((name, type(question)))
            return original(question)

        monkeypatch.setattr(engine, "answer", answer)
    return seen


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
