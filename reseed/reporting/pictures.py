"""Plots as pictures of their own, for a page that shows images and no inline SVG, such as Prefect's artifact page."""

from __future__ import annotations

import base64
import re

# Five of them, in base64 and with the text, stay below 1.5 MB: Prefect refuses a larger event, and the event that says
# that there is an artifact carries all of it.
LARGEST = 180_000
# An image cannot see the page's style sheet. Its own paper keeps it legible where the browser's scheme is not the page's.
STYLE = """
.paper { fill: #fcfcfb; } svg { color: #1d1f23; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { .paper { fill: #1a1c20; } svg { color: #e6e6e3; } }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
"""
ACROSS, DOWN = 16, 12  # the margins of the paper, in pixels
FONTS = re.compile(r"""(?<=px;) font-family: 'DejaVu [^;"<>]*;""")  # eleven names at every text: a sixth of a plot
PIXELS = 96 / 72  # to a point


def markdown_picture(title: str, plot: str) -> str:
    """A plot as an image in Markdown, by data URI; a sentence in place of one that is too large. The title is Markdown, too."""
    drawn = picture(plot).encode()
    if len(drawn) > LARGEST:
        return f"*{title}: too large a picture for this page; it is in report.html.*"
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(drawn).decode()})"


def picture(plot: str) -> str:
    """A plot, which takes the colours of the page around it, as an SVG file that brings its own for light and dark."""
    size = re.search(r' width="([\d.]+)pt" height="([\d.]+)pt"', plot)
    assert size is not None, plot[:200]
    width, height = (float(points) * PIXELS for points in size.groups())
    across, down = f"{width + 2 * ACROSS:.0f}", f"{height + 2 * DOWN:.0f}"
    placed = FONTS.sub("", plot).replace("<svg ", f'<svg x="{ACROSS}" y="{DOWN}" ', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}" height="{down}" viewBox="0 0 {across} {down}">'
        f'<style>{STYLE}</style><rect class="paper" width="100%" height="100%" rx="6"/>{placed}</svg>'
    )
