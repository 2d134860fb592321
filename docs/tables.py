"""Rows and numbers as Markdown writes them, and pages with a part that is computed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path


def table_head(*names: str) -> Iterator[str]:
    yield cells(*names)
    yield "|" + "---|" * len(names)


def cells(*texts: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def number(x: float | str) -> str:
    if isinstance(x, str):
        return x
    if math.isnan(x):
        return "NaN"
    return "0" if abs(x) < 1e-6 else f"{x:.4g}".replace("-", "−")


def filled(page: str, name: str, text: str, file: Path) -> str:
    """A page with a text between the two marks of a name."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not marks.search(page):
        raise SystemExit(f"{file.name} has no place for {name}: <!-- {name} --> and <!-- /{name} -->")
    return marks.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def update(file: Path, written: Callable[[str], str], about: str) -> int:
    """Writes what is computed into a page; with `--check` says whether it is current."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is not current")
    chosen = parser.parse_args()
    old = file.read_text(encoding="utf-8")
    new = written(old)
    if not chosen.check:
        file.write_text(new, encoding="utf-8")
        return 0
    changed = [line for line in new.splitlines() if line not in set(old.splitlines())]
    first = changed[0] if changed else "less"
    print(f"{file.name} is {'current' if old == new else f'not current; now it would say: {first}'}")
    return int(old != new)
