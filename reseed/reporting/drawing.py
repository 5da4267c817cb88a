"""What all plots of a report share: SVG strings, readable on light and dark pages."""

from __future__ import annotations

import io
import re
import threading
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Each has a contrast above 3 with both white and near-black pages.
COLOURS = ("#2f7fd1", "#d4652a", "#1f9070", "#a65cc4", "#b8860b", "#d14b6f", "#6b7f2a", "#5b74d6")
GREY = "#7d7f85"
INK = "#010203"  # stands for the colour of the surrounding text; `svg` writes `currentColor` in its place
# matplotlib takes the salt of its ids from process-wide settings, so two threads must not draw at once.
DRAWING = threading.Lock()


def legend(figure: Figure, handles: list[Line2D]) -> None:
    """A legend above the plot."""
    drawn = figure.legend(
        handles=handles, loc="outside upper left", ncols=6, frameon=False, labelcolor=INK, fontsize=9, columnspacing=1.4
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)


def dress(axes: Axes) -> None:
    """A grid and an axis in the colour of the text."""
    axes.patch.set_alpha(0)
    axes.grid(axis="both", color=INK, alpha=0.1, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)
    axes.tick_params(color=INK, labelcolor=INK, labelsize=9, length=0)


def notice(text: str, title: str) -> str:
    """A sentence in place of a plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 0.8))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=10, style="italic")
    return svg(figure, title, text)


def svg(figure: Figure, title: str, description: str) -> str:
    """The figure as one `<svg>` element with reproducible bytes, drawn in the colour of the surrounding text."""
    import matplotlib

    out = io.StringIO()
    settings = {"svg.hashsalt": f"reseed {title}", "svg.fonttype": "none"}
    silent = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with DRAWING, matplotlib.rc_context(settings):
        figure.savefig(out, format="svg", transparent=True, metadata=silent)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", out.getvalue(), flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    svg = svg.replace(INK, "currentColor")
    label = escape(f"{title}. {description}.")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
