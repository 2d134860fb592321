"""Every page in a real browser: it draws, asks for nothing, fits a telephone, can be read in the dark and used by keys.

The width of a plot, what a style sheet comes to, what takes the focus: only a browser knows. It is Debian's Chromium,
driven by playwright; where there is none, one line says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError as TookTooLong
from playwright.sync_api import sync_playwright

from browser.pages import MAKERS, SITE
from made_once import built, once

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found)
        yield opened
        opened.close()


def page_of(name: str, factory: pytest.TempPathFactory) -> Path:
    """The file of a page, which is made once."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "page").write_text(str(MAKERS[name](folder)))

    return built(factory) / name if name in SITE else Path((once(factory, f"page-{name}", make) / "page").read_text())


FAILS = pytest.mark.xfail(strict=True, raises=AssertionError, reason="a test that cannot fail is none")
PAGES = [pytest.param(name, marks=FAILS if name == "wrong" else ()) for name in (*MAKERS, *SITE)]


@pytest.fixture(scope="module", params=PAGES)
def visit(request: pytest.FixtureRequest, browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A page, opened once for all tests of it, at 1080 px in the light, with what it asked for and complained of."""
    page = browser.new_page(viewport={"width": 1080, "height": 900})
    visited = Visit(page)
    page.goto(page_of(request.param, tmp_path_factory).as_uri(), wait_until="load")
    yield visited
    page.close()


class Visit:
    """`page` is playwright's; `requests` and `complaints` are kept from before its first line was read."""

    patience = 10_000  # ms

    def __init__(self, page) -> None:
        self.page, self.requests, self.complaints = page, list[str](), list[str]()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def look(self, width: int = 1080, scheme: str = "light"):
        """The page at this width, in the light or in the dark."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.set_viewport_size({"width": width, "height": 900})
        try:
            self.page.wait_for_function(STILL, arg=width, polling=50, timeout=self.patience)
        except TookTooLong:
            self.patience = 200  # ms; what is wrong with it is the test's to say
        return self.page


# Plotly draws after the load and again a while after a resize, which is long on a slow machine.
STILL = """(width) => innerWidth === width && [...document.querySelectorAll(".js-plotly-plot")].every((plot) =>
  !plot.checkVisibility() || plot._fullLayout && Math.abs(plot._fullLayout.width - plot.clientWidth) <= 1)"""
DRAWN = (
    ".scatterlayer .js-line[d], .scatterlayer .point, .barlayer .point path, .heatmaplayer image, .contourlayer path"
)
CONTROLS = "a[href], button, input, select, textarea, summary, [onclick], [tabindex='0'], th[data-sort]"
TEXT, MARK = 4.5, 3.0  # the contrast that WCAG asks for, of words and of what is drawn

SEEN = """(selector) => [...document.querySelectorAll(selector)].filter(
  (it) => it.checkVisibility({ visibilityProperty: true }) && it.getBoundingClientRect().width > 1)"""
CONTRAST = """([selector, least]) => {
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgb = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const ground = (it) => { while (it) { const [r, g, b, a = 1] = rgb(getComputedStyle(it).backgroundColor);
    if (a > 0) return [r, g, b]; it = it.parentElement; } return [255, 255, 255]; };
  return [...document.querySelectorAll(selector)].filter((it) => it.checkVisibility() && !it.closest(".hoverlayer"))
    .map((it) => {
      const style = getComputedStyle(it), back = ground(it.closest("svg").parentElement);
      const drawn = style.fill !== "none" ? style.fill : style.stroke, [one, two] = [light(rgb(drawn)), light(back)];
      const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
      return [contrast, `${it.textContent.trim().slice(0, 30) || it.tagName} ${drawn}`];
    }).filter(([contrast]) => contrast < least).map(([contrast, what]) => `${what}: ${contrast.toFixed(2)}`);
}"""


def test_every_plot_has_marks(visit) -> None:
    empty = visit.look().evaluate(
        """(drawn) => [...document.querySelectorAll(".js-plotly-plot")]
          .filter((plot) => !plot.querySelector(drawn)).map((plot) => plot.parentElement.textContent.slice(0, 80))""",
        DRAWN,
    )
    assert empty == []
    asked = visit.page.evaluate("() => document.documentElement.outerHTML.split('Plotly.newPlot(').length - 1")
    assert asked <= visit.page.locator(".js-plotly-plot").count()
    broken = "() => [...document.images].filter((it) => !it.naturalWidth).map((it) => it.outerHTML.slice(0, 80))"
    assert visit.page.evaluate(broken) == []


def test_no_request_leaves_and_nothing_complains(visit) -> None:
    assert [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert visit.complaints == []


@pytest.mark.parametrize("width", [360, 720])
def test_nothing_is_wider_than_the_screen(visit, width: int) -> None:
    page = visit.look(width)
    over = page.evaluate(
        """(width) => [...document.body.querySelectorAll("*")].filter((it) => it.checkVisibility()
          && it.getBoundingClientRect().right > width + 1 && !it.closest(".scroll, svg, pre"))
          .map((it) => it.outerHTML.slice(0, 80))""",
        width,
    )
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width, over


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_can_be_read(visit, scheme: str) -> None:
    """Words in the page itself are axe's; it does not look into a drawing."""
    page = visit.look(scheme=scheme)
    assert page.evaluate(CONTRAST, [".js-plotly-plot text", TEXT]) == []
    assert page.evaluate(CONTRAST, [".scatterlayer .js-line, .scatterlayer .point, .barlayer path", MARK]) == []


def test_the_dark_is_dark(visit) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor"
    assert visit.look(scheme="dark").evaluate(ground) != visit.look(scheme="light").evaluate(ground)


def test_keys_reach_every_control(visit) -> None:
    """Tab goes through all that can be clicked, and it shows where it is."""
    page = visit.look()
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); window.reached = new Set(); }")
    count = page.evaluate(f"(selector) => ({SEEN})(selector).length", CONTROLS)
    hidden = []
    for _ in range(count + 5):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            """() => { const it = document.activeElement, style = getComputedStyle(it); reached.add(it);
              return it === document.body || it === document.documentElement || style.outlineStyle !== "none"
                || style.boxShadow !== "none" || it.outerHTML.slice(0, 80); }"""
        )
        hidden += [shown] if shown is not True else []
    missed = page.evaluate(
        f"(selector) => ({SEEN})(selector).filter((it) => !reached.has(it)).map((it) => it.outerHTML.slice(0, 80))",
        CONTROLS,
    )
    assert missed == []
    assert hidden == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1080)])
def test_axe_finds_no_serious_fault(visit, scheme: str, width: int) -> None:
    found = Axe().run(visit.look(width, scheme)).response["violations"]
    serious = {
        f"{fault['id']}: {fault['help']}": [node["html"][:100] for node in fault["nodes"][:5]]
        for fault in found
        if fault["impact"] in ("serious", "critical")
    }
    assert serious == {}
