"""Fixtures shared by the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import lossmith as ls

# The tests are many and small, and run side by side: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(params=["plain", "fused"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once with each engine; what the kernels cannot take falls back to plain."""
    with ls.use_engine("plain" if request.param == "plain" else "auto"):
        yield request.param


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
