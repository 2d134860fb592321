"""`lossmith.plot` and `lossmith plot`: losses as curves of their value and gradient."""

from __future__ import annotations

import html
from base64 import b64encode
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from lossmith.lab.page.panels import Section
    from lossmith.loss import Loss

_PAGES = (".html", ".htm", "")


class Plot:
    """Losses as curves, which a notebook shows by itself. `save` makes a file of it, `as_json` has the numbers."""

    def __init__(self, losses: list[str], against: str | None) -> None:
        from lossmith.lab.say import curves

        if against is not None:
            curves.check_axis(against)
        self.losses, self.against = losses, against
        self.drawn: dict[str, curves.Drawn] = {}
        for text in losses:
            try:
                self.drawn.update(curves.draw(text, against))
            except (ValueError, TypeError, RuntimeError) as error:
                raise ValueError(f"{text}: {str(error).splitlines()[0]}") from error

    def as_json(self) -> dict[str, dict[str, Any]]:
        """For each loss what it is drawn on, in words, and the numbers of its lines."""
        return {name: each.as_json() for name, each in self.drawn.items()}

    def save(self, path: str | Path) -> Path:
        """Write a file: a picture if its name ends in .png or .svg, a page that needs nothing else if in .html.

        Raises:
            ValueError: another ending.
            OSError: the file cannot be written.
        """
        path = Path(path)
        check_suffix(path)
        path.write_bytes(self._page() if path.suffix.lower() in _PAGES else self._picture(path.suffix[1:].lower()))
        return path

    def _page(self) -> bytes:
        from lossmith.lab.page.figures import markup
        from lossmith.lab.page.templates import render

        shown = [{"heading": s.heading, "caption": s.caption, "drawn": markup(s.chart)} for s in self._sections()]
        page = render('{% extends "plot.html" %}', losses=self.losses, against=self.against, sections=shown)
        return page.encode()

    def _picture(self, kind: Any) -> bytes:
        from lossmith.lab.page.stills import sheet

        return sheet(self._sections(), kind)

    def _sections(self) -> list[Section]:
        from lossmith.lab.page.curve_charts import sections

        return sections(self.drawn)

    def _repr_html_(self) -> str:
        """A picture rather than a page, whose script would be stored in the notebook with each of them."""
        said = html.escape(" ".join(f"{section.heading}. {section.caption}" for section in self._sections()))
        picture = b64encode(self._picture("svg")).decode()
        return f'<img src="data:image/svg+xml;base64,{picture}" alt="{said}" style="max-width: 100%">'

    def __repr__(self) -> str:
        against = f", against={self.against!r}" if self.against else ""
        return f"plot({', '.join(map(repr, self.losses))}{against})"


def plot(*losses: str | Loss, against: str | None = None) -> Plot:
    """Draw losses as curves of their value and their gradient, computed by the losses themselves.

    Args:
        losses: one or several, as text that `parse` reads, or as they are.
        against: "p", the probability of the true class; "overlap", an object that is shifted, with false positives and
            false negatives apart; "size", an object that grows, and who owns the gradient; for boxes "shift", "scale"
            or "aspect"; "residual", "edge". None: each loss on what it reads, a figure for each kind of input.

    Returns:
        an object that shows itself in a notebook, with `save("figure.svg")` (or .png, .html) and `as_json()`.

    Raises:
        ValueError: a text that cannot be read, an axis that does not exist or that a loss cannot be drawn against.
        ModuleNotFoundError: the lab is not installed.

    >>> import lossmith as ls
    >>> picture = ls.plot("dice", "ce", against="overlap")
    >>> picture
    plot('dice', 'ce', against='overlap')
    >>> [round(value, 3) for value in picture.as_json()["ce"]["value"][::8]]  # a pixel in 6, 12 or none is wrong
    [1.542, 0.776, 0.01]
    """
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError('lossmith.plot needs the lab: pip install "lossmith[lab]"')
    if not losses:
        raise ValueError('plot draws one loss or several; give for example plot("dice", "ce")')
    return Plot([loss if isinstance(loss, str) else repr(loss) for loss in losses], against)


def check_suffix(path: Path) -> None:
    """Raises a `ValueError` if a file of this name is nothing that can be drawn."""
    from lossmith.lab.page.panels import Still

    known = (*_PAGES, *(f".{kind}" for kind in get_args(Still)))
    if path.suffix.lower() not in known:
        raise ValueError(f"{path}: ends in none of .png, .svg and .html; choose one of them")
