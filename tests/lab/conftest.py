"""Shared by the lab's tests: a small folder of discs, and settings small enough for seconds."""

from pathlib import Path

import pytest
from discs import make_folder

from lossmith.lab.data import Data, read_folder
from lossmith.lab.plan import Settings


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight discs with split.csv. Read only: a test that changes files makes its own."""
    return make_folder(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="session")
def data(folder: Path) -> Data:
    return read_folder(folder, "discs", "multiclass", -100)


@pytest.fixture
def settings(data: Data) -> Settings:
    return Settings("discs", data.fingerprint, "multiclass", 4, 32, 2, 1e-2, -100, "cpu", (4, 4, 4, 4, 4, 4))
