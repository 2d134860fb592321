"""The templates of the computed pages, which are Markdown."""

from __future__ import annotations

from pathlib import Path

import jinja2

_PLACE = jinja2.FileSystemLoader(Path(__file__).parent / "templates")


def template(name: str) -> jinja2.Template:
    """A name that a template asks for and nobody gave is an error."""
    settings = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined, "autoescape": False}
    return jinja2.Environment(loader=_PLACE, **settings).get_template(name)
