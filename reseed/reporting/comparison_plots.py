"""The plots of comparisons: intervals against zero, where the noise comes from, and what other designs would see."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from reseed.evaluation.looks import planned_level
from reseed.evaluation.power import WANTED, power, spread_of_result
from reseed.reporting.drawing import COLOURS, GREY, INK, dress, legend, notice, svg
from reseed.reporting.text import count, plural_of
from reseed.reporting.verdict import headlines, noun, pair
from reseed.results import ComparisonResult, Results
from reseed.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERDICT_COLOURS = {"better": "#1f9070", "worse": "#d1524a", "no difference beyond δ": "#2f7fd1", "undecided": "#b8860b"}
PARTS = (("seeds", COLOURS[0]), ("groups", COLOURS[1]), ("both", COLOURS[3]))
MORE_GROUPS = (0.5, 1, 1.5, 2, 3, 4, 6, 8)
LABEL = 44
WIDEST = 4  # times the median interval: a wider one is cut


def forest(results: Results) -> str:
    """An SVG with a line for each comparison: its interval against zero and ±δ, and each seed of A as a point."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = [found for found in results.comparisons if found.low is not None]
    if not shown:
        return notice("No comparison has an interval.", "Comparisons")
    figure = Figure(figsize=(7.6, 1.1 + 0.36 * len(shown)), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    axes.axvline(0, color=INK, linewidth=1, alpha=0.7, zorder=1)
    points = [points_of(results, found) for found in shown]
    low, high = ends(shown, points)
    if results.delta is not None:
        axes.axvspan(-results.delta, results.delta, color=GREY, alpha=0.15, linewidth=0, zorder=0)
        if results.delta < WIDEST * max(-low, high):  # else all that is seen lies within
            low, high = min(low, -results.delta), max(high, results.delta)
    for y, found in enumerate(shown):
        draw_comparison(axes, y, found, points[y], (low, high))
    axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    name_lines(axes, shown)
    axes.set_xlabel(f"difference in {one_line(results.metric, 60)}", color=INK, parse_math=False)
    used = [word for word in VERDICT_COLOURS if word in {found.verdict for found in shown}]
    handles = [Line2D([], [], color=VERDICT_COLOURS[word], linewidth=2.5, label=word) for word in used]
    handles.append(Line2D([], [], color=INK, linestyle="", marker=".", markersize=7, label="one seed"))
    legend(figure, handles)
    return svg(figure, "Comparisons", "Differences with their intervals, against zero")


def ends(shown: Sequence[ComparisonResult], points: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The axis from end to end: zero, every difference and seed, and intervals up to `WIDEST` times the median one.

    Of two seeds an interval may be a hundred times as wide as the others, which would all look like points beside it.
    """
    halves = [(found.high or 0.0) - found.difference for found in shown]
    most = WIDEST * median(halves)
    reached = [0.0, *(point for own in points for point in own)]
    for found, half in zip(shown, halves, strict=True):
        reached += [found.difference - min(half, most), found.difference + min(half, most)]
    return min(reached), max(reached)


def points_of(results: Results, found: ComparisonResult) -> list[float]:
    """Each seed of A minus B's mean; none of an ensemble, which is not a mean of its seeds."""
    if found.estimand == "ensemble":
        return []
    own = next((v for v in results.variants if v.name == found.a), None)
    return [member.score - (own.mean - found.difference) for member in own.members] if own else []


def name_lines(axes: Axes, shown: Sequence[ComparisonResult]) -> None:
    """A line of the plot for each comparison, the first on top."""
    axes.set_yticks(range(len(shown)), [one_line(pair(found), LABEL) for found in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)


def draw_comparison(
    axes: Axes, y: int, found: ComparisonResult, points: Sequence[float], within: tuple[float, float]
) -> None:
    """One line of a forest plot; an arrow's head where its interval goes beyond the axis."""
    assert found.low is not None
    assert found.high is not None
    colour = VERDICT_COLOURS.get(found.verdict or "", GREY)
    low, high = max(found.low, within[0]), min(found.high, within[1])
    axes.plot([low, high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt", zorder=2)
    for end, whole, head in ((low, found.low, "<"), (high, found.high, ">")):
        if end != whole:
            axes.plot([end], [y], head, color=colour, markersize=7, zorder=2)
    axes.plot([found.difference], [y], "D", color=colour, markersize=6, zorder=4)
    axes.plot(points, [y] * len(points), ".", color=INK, markersize=6, alpha=0.75, zorder=3)


def noise(results: Results) -> str:
    """An SVG with a bar for each main comparison: which part of its variance comes from seeds, from groups, and from both."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = [found for found in headlines(results) if found.low is not None]
    if not shown:
        return notice("No noise could be measured.", "Noise")
    figure = Figure(figsize=(7.6, 1.0 + 0.36 * len(shown)), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    for y, found in enumerate(shown):
        variances = [getattr(found.noise, part) ** 2 for part, _ in PARTS]
        left = 0.0
        for (_, colour), variance in zip(PARTS, variances, strict=True):
            share = 100 * variance / sum(variances)
            axes.barh([y], [share], left=left, height=0.55, color=colour)
            left += share
    name_lines(axes, shown)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the variance", color=INK)
    group = noun(results.group_by)
    names = {"seeds": "seeds", "groups": plural_of(group), "both": f"seeds within {plural_of(group)}"}
    legend(figure, [Line2D([], [], color=colour, linewidth=8, label=names[part]) for part, colour in PARTS])
    return svg(figure, "Noise", "Where the noise of each difference comes from")


def power_curve(results: Results) -> str:
    """An SVG of the first main comparison: the power of more groups, with several numbers of seeds; a ring is this design."""
    from matplotlib.figure import Figure

    found = next((one for one in headlines(results) if one.power is not None), None)
    if found is None or found.power is None:
        return notice("No power could be computed.", "Power")
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots()
    dress(axes)
    wanted, spread, seeds = found.sought or abs(found.difference), spread_of_result(found), max(*found.seeds, 1)
    more = sorted({seeds, 3, 5, 10}) if spread.sides else [seeds]
    level = planned_level(results, found)
    for colour, own in zip(COLOURS, more, strict=False):
        curve = [power(spread, wanted, own, found.effective_groups * factor, level) for factor in MORE_GROUPS]
        label = count(own, "seed") if spread.sides else None
        axes.plot([found.groups * factor for factor in MORE_GROUPS], curve, color=colour, linewidth=2, label=label)
    axes.plot([found.groups], [found.power], "o", color=INK, markerfacecolor="none", markersize=10, markeredgewidth=1.8)
    here = "you are here" if level >= found.level else "you are here: an early look is judged more strictly"
    below = -14 if found.power > 0.2 else 9
    axes.annotate(here, (found.groups, found.power), (8, below), textcoords="offset points", color=INK, fontsize=9)
    axes.axhline(WANTED, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(plural_of(noun(results.group_by)), color=INK, parse_math=False)
    axes.set_ylabel("power", color=INK)
    about = f"{pair(found)}, a true difference of {wanted:.3g}"
    axes.set_title(one_line(about, 80), loc="left", fontsize=10, color=INK, parse_math=False)
    if spread.sides:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="best")
    return svg(figure, "Power", f"The power to see {about}")
