"""Charts of the lab as SVG that stands in a page: it takes its greys from the page, in the light and in the dark."""

from __future__ import annotations

import html
import re
from dataclasses import replace

from lossmith.lab.page.panels import Chart, Panel
from lossmith.lab.page.stills import still

THEMED = {  # of stills.py, by what the theme calls it
    "#5b626b": "var(--color-foreground-secondary)",
    "#1f2328": "var(--color-foreground-primary)",
    "#000000": "var(--color-foreground-primary)",
    "#e3e6ea": "var(--color-background-border)",
    "#ffffff": "none",
}


def drawn(chart: Chart, caption: str) -> str:
    """A figure whose panels stand beside each other where there is room."""
    names = [re.sub(r" \(.*\)$", "", panel.title or panel.y_title) for panel in chart.panels]
    panels = "".join(_panel(chart, panel, name) for panel, name in zip(chart.panels, names, strict=True))
    keys = "".join(
        f'<span><svg class="key" width="26" height="8" aria-hidden="true"><line x1="0" y1="4" x2="26" y2="4" '
        f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{_DASHES[dash]}"/></svg>{html.escape(name)}</span>'
        for name, (colour, dash) in chart.legend.items()
        if len(chart.legend) > 1
    )
    legend = f'<p class="legend">{keys}</p>' if keys else ""
    said = html.escape(caption)
    return f'<figure class="chart">{legend}<div class="panels">{panels}</div><figcaption>{said}</figcaption></figure>\n'


_DASHES = {"solid": "none", "dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3"}


def _panel(chart: Chart, panel: Panel, name: str) -> str:
    wide = len(chart.panels) == 1 and not chart.narrow
    svg = still(replace(chart, panels=[panel], legend={}, narrow=not wide), "svg").decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", svg, flags=re.S)
    svg = " ".join(svg.split())
    used = set(re.findall(r"#([\w.-]+)[\")]", svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", svg)
    for grey, themed in THEMED.items():
        svg = svg.replace(grey, themed)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    size = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    width = f'class="{"wide" if wide else "narrow"}" style="max-width: {float(size[1]) * 4 / 3:.0f}px"' if size else ""
    head = re.sub(r' (?:width|height|version|xmlns:xlink|xmlns)="[^"]*"', "", svg[: svg.index(">")])
    return f'{head} {width} role="img" aria-label="{html.escape(name, quote=True)}"{svg[svg.index(">") :].strip()}'
