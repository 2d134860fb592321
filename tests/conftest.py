"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch

import lossmith as ls
from lossmith.engine import ENGINES, numba
from problems import ROWS, kernels_take

# The tests are many and small, and run side by side: more threads would only wait for each other.
torch.set_num_threads(1)


class Answered(list[tuple[str, type]]):
    """The engine and the kind of question, in order."""

    for_kernels = False  # whether there was one that the kernels do not refuse


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Answered:
    """Who answered what. The one place that knows how to tell."""
    seen = Answered()
    for name in ENGINES:
        engine = importlib.import_module(f"lossmith.engine.{name}")

        def answer(question, original=engine.answer, name=name):
            seen.append((name, type(question)))
            seen.for_kernels = seen.for_kernels or numba.refuses(question) is None
            return original(question)

        monkeypatch.setattr(engine, "answer", answer)
    return seen


@pytest.fixture(params=["plain", "fused"])
def engine(request: pytest.FixtureRequest, answered: Answered) -> Iterator[str]:
    """The test runs once with each engine, on logits of its dtype, `REAL[engine]`: the kernels take no float64.

    In a property of the catalogue the kernels have to have answered, if there are any for this loss. What they cannot
    take besides, such as float64 that is compared with float32, falls back to plain.
    """
    with ls.use_engine("plain" if request.param == "plain" else "auto"):
        yield request.param
    names = {name for name, _ in answered}
    if request.param == "plain":
        assert names <= {"plain"}
    elif names == {"plain"} and answered.for_kernels:
        params = request.node.callspec.params
        if params.get("row") in ROWS:
            problem = params["problem"].name if "problem" in params else "multilabel"
            assert not kernels_take(params["row"].name, problem), "the kernels were not asked"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
