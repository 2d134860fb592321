"""The Triton kernels compile for GPUs that are not here, and nothing of them spills. See `kernels_ahead.py`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kernels_ahead
import lossmith

PACKAGE = Path(lossmith.__file__).parent


@pytest.fixture(scope="module")
def targets(pytestconfig: pytest.Config) -> list[str]:
    """All with `make test-all`; one of them else, which takes a third of the time."""
    return list(kernels_ahead.TARGETS) if pytestconfig.getoption("--thorough") else ["90"]


@pytest.fixture(scope="module")
def compiled(targets: list[str], pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """By a process of its own: in this one the kernels are interpreted. Once each, but with `make test-all`."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    mine["PYTHONPATH"] = str(PACKAGE.parent)
    command = [sys.executable, kernels_ahead.__file__, "--json", "--processes", "2", "--targets", *targets]
    command += [] if pytestconfig.getoption("--thorough") else ["--once"]
    process = subprocess.run(command, env=mine, capture_output=True, text=True, timeout=900)
    assert process.stdout, process.stderr
    return json.loads(process.stdout)


def launched() -> set[str]:
    """The kernels that the package launches, module and name, as its source says."""
    names = set()
    for file in (PACKAGE / "engine" / "triton").glob("*.py"):
        tree = ast.parse(file.read_text())
        modules = {
            alias.name: node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "launch":
                module, _, name = ast.unparse(node.args[0]).rpartition(".")
                names.add(f"{module or modules.get(name, file.stem)}.{name}")
    return names


@pytest.mark.slow
def test_every_kernel_compiles_for_every_target_and_none_spills(compiled):
    assert [fault for fault in map(kernels_ahead.fault, compiled) if fault] == []


@pytest.mark.slow
def test_no_kernel_is_forgotten(compiled, targets):
    names = launched()
    assert {"softmax.sums", "ordered.charge", "distance.along_axis"} < names
    assert {(told["kernel"], told["target"]) for told in compiled} == {
        (name, target) for name in names for target in targets
    }


FINE = {
    "case": "C=4", "kernel": "softmax.gradient", "target": "90", "stack": 0, "spills": 0, "allowed": 0, "wide": 4,
    "moved": {"LDG.128": 4, "STG.128": 4},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stack": 8}, "8 bytes of stack"),
        ({"spills": 2}, "2 instructions that spill"),
        ({"moved": {"LDG.32": 16, "STG.128": 4}}, "LDG of 128 bits"),
        ({"moved": {"LDG.128": 4, "STG.64": 8}}, "STG of 128 bits"),
        ({"failed": "CompilationError"}, "does not compile: CompilationError"),
    ],
)
def test_a_fault_is_named(change, said):
    assert kernels_ahead.fault(FINE) is None
    assert kernels_ahead.fault(FINE | change).startswith("softmax.gradient, C=4, on 90: ")
    assert said in kernels_ahead.fault(FINE | change)
