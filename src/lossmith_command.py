"""What the `lossmith` command calls: no part of the package, whose import takes seconds, so that Ctrl-C is caught."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code, that of `lossmith.cli.main`."""
    try:
        from lossmith.cli import main as run
    except KeyboardInterrupt:
        print("lossmith: stopped", file=sys.stderr)
        return 130
    return run()
