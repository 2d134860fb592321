"""Rows and numbers as Markdown writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator


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
