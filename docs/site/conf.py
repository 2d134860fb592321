"""How Sphinx makes the pages that `build.py` gathers. Nothing on them is fetched from elsewhere by a browser."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "lossmith"
author = "the lossmith authors"
version = release = installed("lossmith")
extensions = ["myst_parser", "mathml", "links"]
source_suffix = {".md": "markdown"}
nitpicky = True
suppress_warnings = ["myst.header"]  # a page may begin its parts at any level

myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "lossmith"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f6feb", "color-brand-content": "#1a5fb4"},
    "dark_css_variables": {"color-brand-primary": "#79b8ff", "color-brand-content": "#79b8ff"},
    "footer_icons": [],
}
pygments_style = "a11y-high-contrast-light"  # these two come with furo
pygments_dark_style = "a11y-high-contrast-dark"


def reachable(app: object, page: str, template: str, context: dict, doctree: object) -> None:
    """What scrolls by itself can be scrolled with the keyboard; headings of the contents say their level."""
    for part, plain, better in (
        ("body", '<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
        ("body", "<pre>", '<pre tabindex="0">'),
        ("furo_navigation_tree", 'role="heading"', 'role="heading" aria-level="2"'),
    ):
        if part in context:
            context[part] = context[part].replace(plain, better)


def setup(app: object) -> None:
    app.connect("html-page-context", reachable, priority=900)  # after furo, which makes the contents
