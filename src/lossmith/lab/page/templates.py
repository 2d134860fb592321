"""Fills the templates that lie beside this file."""

from __future__ import annotations

from typing import Any

import jinja2
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]


def render(template: str, plots: bool = True, **context: Any) -> str:
    """A page; the template is a text in Jinja that extends one of the files, for example compare.html.

    One without plots is small.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lossmith.lab.page", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.from_string(template).render(plotly_js=get_plotlyjs() if plots else "", **context)
