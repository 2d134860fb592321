"""Formulas as MathML, which browsers draw themselves: no script, no font and no request."""

from __future__ import annotations

from typing import Any

import latex2mathml.converter
from docutils import nodes


def rendered(latex: str, display: str) -> str:
    return latex2mathml.converter.convert(latex, display=display)


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(rendered(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    """Wider than a telephone it scrolls by itself."""
    self.body.append(f'<div class="formula" tabindex="0">{rendered(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
