"""Builds the site: `make docs`. Gathers pages that are written and pages that are computed, and hands them to Sphinx.

A warning is an error. What was computed is kept in build/docs until what it was computed from changes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "docs"))  # rivals.py, tables.py

import api_pages  # noqa: E402
import experiment_pages  # noqa: E402
import loss_pages  # noqa: E402
from kept import Kept  # noqa: E402

WRITTEN = (".md", ".svg", ".png")
COMPUTED = {"losses": loss_pages.overview, "common": loss_pages.common}  # what stands between marks of a written page


def written() -> Iterator[tuple[str, Path]]:
    """The files of docs/ that are pages or pictures, and two that lie above it."""
    for file in sorted((ROOT / "docs").rglob("*")):
        if file.suffix in WRITTEN and HERE not in file.parents:
            yield str(file.relative_to(ROOT / "docs")), file
    yield "contributing.md", ROOT / "CONTRIBUTING.md"
    yield "changelog.md", ROOT / "CHANGELOG.md"


def put(file: Path, content: bytes) -> None:
    """Writes a file that says something new: Sphinx reads again what was touched."""
    if not file.exists() or file.read_bytes() != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def filled(text: str) -> str:
    """A written page with what is computed at its marks, <!-- name -->, and links where it names another."""
    for name, compute in COMPUTED.items():
        if f"<!-- {name} -->" in text:
            text = text.replace(f"<!-- {name} -->", compute())
    return re.sub(r"`docs/(\w+\.md)`", r"[](\1)", text)


def gather(source: Path, kept: Kept, only: Sequence[str] | None) -> None:
    """The pages as Sphinx reads them, and nothing that is there from another day."""
    pages = {source / name: file.read_bytes() for name, file in written()}
    pages = {file: filled(page.decode()).encode() if file.suffix == ".md" else page for file, page in pages.items()}
    for name, text in [*loss_pages.pages(kept), *experiment_pages.pages(kept, only), ("api.md", api_pages.page())]:
        pages[source / name] = text.encode()
    for file in source.rglob("*"):
        if file.is_file() and file not in pages:
            file.unlink()
    for file, page in pages.items():
        put(file, page)


def build(out: Path, kept: Path, only: Sequence[str] | None = None) -> int:
    """The site in a folder; what is kept from build to build lies in another. `only` these experiments are run."""
    gather(kept / "source", Kept(kept, say=lambda line: print(line, flush=True)), only)
    shutil.rmtree(out, ignore_errors=True)
    words = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE), "-d", str(kept / "doctrees")]
    return build_main([*words, str(kept / "source"), str(out)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="the folder of the site")
    parser.add_argument("--kept", type=Path, default=ROOT / "build/docs", help="what is kept from build to build")
    parser.add_argument("--experiment", action="append", metavar="NAME", help="run this one alone; can be repeated")
    chosen = parser.parse_args()
    sys.exit(build(chosen.out, chosen.kept, chosen.experiment))
