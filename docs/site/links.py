"""Names in code become links: a loss to its page, `ls.name` to the reference."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

import lossmith as ls


def places() -> dict[str, str]:
    """Where a name leads: a document, and a part of it."""
    found = {f"ls.{name}": f"api#{nodes.make_id(f'ls.{name}')}" for name in ls.__all__}
    for row in ls.catalogue():
        found |= dict.fromkeys((row.cls.__name__, f"ls.{row.cls.__name__}"), f"losses/{row.name}")
    return found


class Names(SphinxPostTransform):
    """`ls.DiceLoss(smooth=0.0)`, `ls.parse`; not in headings, in links or on the page that they lead to.

    `DiceLoss` alone may be another library's: it is ours where a docstring speaks.
    """

    default_priority = 400

    def run(self, **kwargs: Any) -> None:
        known, here = places(), self.env.docname
        for literal in list(self.document.findall(nodes.literal)):
            text = literal.astext()
            named = re.fullmatch(r"(ls\.\w+)(?:\([^()]*\))?", text)
            name = named[1] if named else text if here.startswith(("losses/", "api")) else ""
            document, _, part = known.get(name, "").partition("#")
            if document in ("", here) or isinstance(literal.parent, nodes.title | nodes.reference):
                continue
            address = self.app.builder.get_relative_uri(here, document) + (f"#{part}" if part else "")
            link = nodes.reference("", "", internal=True, refuri=address)
            literal.replace_self(link)
            link += literal


def setup(app: Any) -> dict[str, bool]:
    app.add_post_transform(Names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
