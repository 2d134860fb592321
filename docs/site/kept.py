"""What takes long to compute is computed once, and kept in files until what it was computed from changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOURCES = ("src/lossmith/**/*.py", "docs/*.py", "docs/site/measured.py", "docs/site/figures.py", "constraints.txt")


class Kept:
    """A folder of answers; `say` is told of each that has to be worked out anew."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.say = folder, say
        files = sorted(file for pattern in SOURCES for file in ROOT.glob(pattern))
        contents = b"".join(str(file.relative_to(ROOT)).encode() + file.read_bytes() for file in files)
        self.sources = hashlib.sha256(contents).hexdigest()

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """What `compute` gives, as JSON reads it back."""
        file = self.folder / f"{name}.json"
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["sources"] == self.sources:
                return found["value"]
        self.say(f"computing {name}")
        text = json.dumps({"sources": self.sources, "value": compute()}, ensure_ascii=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return json.loads(text)["value"]
