"""A comparison that is killed with signal 9: killing.py, a few times. By hand it does it fifty times."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_and_started_again() -> None:
    """In a process of its own, which forks: this one has threads."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killing.py"), "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("killed 2 times")
