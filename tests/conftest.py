"""Fixtures shared by the tests."""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: its kernels run on this CPU then

import importlib
import signal
import sys
import zlib
from collections.abc import Iterator

import pytest
import torch

import lossmith as ls
from lossmith.engine import ENGINES, choice
from problems import ROWS, instead_of_numba, kernels_take

# The tests are many and small, and run side by side: more threads would only wait for each other.
torch.set_num_threads(1)


# A shell that starts the tests in the background has Ctrl-C ignored, by them and by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Of the tests with the triton engine, whose interpreter is slow, `make test` runs one in so many of these files, none
# that needs large images or many classes.
ONE_IN, FILES = 240, {"test_catalogue.py", "test_identities.py"}
LARGE = {
    *("test_float16_on_a_large_image", "test_labels_are_widened_before_they_are_compared"),
    "test_degenerate_inputs_are_finite",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="what takes an hour too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out thorough tests and some of others, by name, so that the same run everywhere."""
    if config.getoption("--thorough"):
        return
    kept, left_out, begun = [], [], set[tuple[object, ...]]()
    for item in items:
        test, params = item.nodeid.partition("[")[0], getattr(getattr(item, "callspec", None), "params", {})
        some, number = item.get_closest_marker("one_in"), zlib.crc32(item.nodeid.encode())
        if item.get_closest_marker("thorough"):
            chosen = False
        elif params.get("engine") == "triton":
            small = item.path.name in FILES and item.name.partition("[")[0] not in LARGE
            chosen = small and number % ONE_IN == 0
        else:  # of each test the first case with an engine, and with a loss of the catalogue
            first = (test, params.get("engine"), getattr(params.get("row"), "name", None))
            chosen = not some or first not in begun or number % some.args[0] == 0
            begun.add(first)
        (kept if chosen else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


class Answered(list[tuple[str, type]]):
    """The engine and the kind of question, in order."""

    for_kernels = False  # whether there was one that kernels do not refuse


def kernels_answer(question) -> bool:
    """Whether one of those that are asked for would."""
    return any(choice._engine(name).refuses(question) is None for name in choice.KERNELS)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Answered:
    """Who answered what. The one place that knows how to tell."""
    seen = Answered()
    for name in ENGINES:
        engine = importlib.import_module(f"lossmith.engine.{name}")

        def answer(question, original=engine.answer, name=name):
            seen.append((name, type(question)))
            seen.for_kernels = seen.for_kernels or kernels_answer(question)
            return original(question)

        monkeypatch.setattr(engine, "answer", answer)
    return seen


@pytest.fixture(params=["plain", "fused", "triton"])
def engine(request: pytest.FixtureRequest, answered: Answered, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The test runs once with each engine, on logits of its dtype, `REAL[engine]`: the kernels take no float64.

    "fused" are those for a CPU; "triton" those for a GPU, in Triton's interpreter. In a property of the catalogue the
    kernels have to have answered, if there are any for this loss. What they cannot take besides, such as float64 that
    is compared with float32, falls back to plain.
    """
    if request.param == "triton":
        instead_of_numba(monkeypatch)
    with ls.use_engine("plain" if request.param == "plain" else "auto"):
        yield request.param
    names = {name for name, _ in answered}
    if request.param == "plain":
        assert names <= {"plain"}
    elif names == {"plain"} and answered.for_kernels:
        params = request.node.callspec.params
        if params.get("row") in ROWS:
            problem = params["problem"].name if "problem" in params else "multilabel"
            assert not kernels_take(params["row"].name, problem, request.param), "the kernels were not asked"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _compilers(request: pytest.FixtureRequest) -> None:
    """Dynamo refuses a function that it has compiled eight times: earlier tests do not count."""
    if request.node.get_closest_marker("slow") and "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
