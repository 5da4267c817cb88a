from __future__ import annotations

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from report_samples import comparison, curve, variant

from reseed.records import LossPoint
from reseed.reporting.comparison_plots import ends, forest
from reseed.reporting.plots import COLOURS, loss_curves, scores
from reseed.results import ConstantResult, Results, VariantResult

Plot = Callable[[Results], str]


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def with_curve(member_of: VariantResult, points: tuple[LossPoint, ...]) -> VariantResult:
    return replace(member_of, members=tuple(replace(m, curve=points) for m in member_of.members))


@pytest.mark.parametrize("plot", [loss_curves, scores])
def test_bytes_repeat_in_threads_too(results: Results, plot: Plot) -> None:
    with ThreadPoolExecutor(4) as pool:
        drawn = set(pool.map(plot, [results] * 4))
    assert drawn == {plot(results)}


@pytest.mark.parametrize("plot", [loss_curves, scores])
def test_svg_stands_alone_and_takes_the_page_s_colour(results: Results, plot: Plot) -> None:
    svg = plot(results)
    assert svg.startswith('<svg role="img" aria-label="')
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert not re.search(r"<script|<image|<metadata|href=\"(?!#)|\d{4}-\d\d-\d\dT", svg)


def test_drawing_leaves_matplotlib_s_settings_alone(results: Results) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    scores(results)
    assert dict(matplotlib.rcParams) == before


def test_loss_curves_draw_every_seed_thin_and_thick_with_its_best_step(results: Results) -> None:
    svg = loss_curves(results)
    assert {"completion", "whole-text", "seed 0", "seed 1", "seed 2", "best step"} <= set(texts(svg))
    for colour in COLOURS[:3]:
        thin = re.findall(rf"stroke: {colour}; stroke-opacity: 0.65; stroke-width: 0.8", svg)
        thick = re.findall(rf"stroke: {colour}; stroke-width: 2[;\"]", svg)
        assert len(thin) == 2  # a panel each
        assert len(thick) == 3  # and the legend
        assert len(re.findall(rf"<use [^>]*style=\"fill: {colour}; stroke: currentColor", svg)) == 2


def test_the_best_step_moves_its_mark(results: Results) -> None:
    one = variant("a", [0.7], 0.7)
    moved = replace(one, members=(replace(one.members[0], best_step=90),))
    unknown = replace(one, members=(replace(one.members[0], best_step=91),))
    drawn = {loss_curves(replace(results, variants=(v,))) for v in (one, moved, unknown)}
    assert len(drawn) == 3


@pytest.mark.parametrize(
    "points",
    [(), (LossPoint(0),), (LossPoint(10, math.nan, math.inf),)],
    ids=["none", "empty", "diverged"],
)
def test_curves_without_a_finite_point_are_said_to_be_missing(results: Results, points: tuple[LossPoint, ...]) -> None:
    empty = replace(results, variants=tuple(with_curve(v, points) for v in results.variants))
    assert texts(loss_curves(empty)) == ["No loss curve was recorded."]


def test_points_that_are_not_finite_are_left_out(results: Results) -> None:
    clean = tuple(p for p in curve(0) if p.step)
    dirty = (LossPoint(0, math.nan, math.inf), *clean)
    drawn = [loss_curves(replace(results, variants=(with_curve(results.variants[0], c),))) for c in (clean, dirty)]
    assert drawn[0] == drawn[1]


def test_scores_draw_members_blend_and_baselines(results: Results) -> None:
    svg = scores(results)
    labels = texts(svg)
    assert {"completion", "whole-text", "untrained", "“Rewrite the text”", "one seed", "mean", "ensemble"} <= set(
        labels
    )
    assert "sharpened cosine (higher is better)" in labels
    dots = re.findall(rf"<use [^>]*style=\"fill: ({'|'.join(COLOURS)}); stroke: \1", svg)
    assert len(dots) == 6 + 1  # the members and the legend


def test_scores_survive_nan_and_nothing(results: Results) -> None:
    lost = replace(results, untrained=math.nan, variants=(variant("a", [math.nan, 0.7], math.nan),), constants=())
    assert "a" in texts(scores(lost))
    assert "± std" not in texts(scores(replace(lost, variants=(variant("a", [0.7], 0.7),))))
    assert "untrained" in texts(scores(replace(lost, variants=())))


def test_texts_are_text_and_not_mathematics_or_markup(results: Results) -> None:
    odd = replace(results, constants=(ConstantResult("$\\frac{$ <b>&\x00", 0.5),), metric="cost in $ & $x_1$")
    assert "“$\\frac{$ <b>&”" in texts(scores(odd))
    assert "<b>" not in scores(odd)
    named = replace(results, variants=(replace(results.variants[0], name="a $x$ <script>"), results.variants[1]))
    assert "a $x$ <script>" in texts(loss_curves(named))


def test_one_wide_interval_does_not_hide_the_others(results: Results) -> None:
    """Of two seeds one may be a thousand times as wide: it is cut, with an arrow at each end."""
    narrow = [comparison(f"v{n}", "old", 0.01 * n, 0.02, "undecided") for n in range(4)]
    wide = comparison("wide", "old", 0.0, 20.0, "undecided")
    low, high = ends([*narrow, wide], [[]] * 5)
    assert (low, high) == (pytest.approx(-0.08), pytest.approx(0.08))
    svg = forest(replace(results, delta=None, comparisons=(*narrow, wide)))
    ticks = [float(text.replace("−", "-")) for text in texts(svg) if re.fullmatch(r"−?\d+\.\d+", text)]
    assert max(ticks) < 0.2


def test_a_large_delta_leaves_room_for_the_intervals(results: Results) -> None:
    for delta, most in ((100.0, 1.0), (0.1, 0.2)):
        ticks = [text.replace("−", "-") for text in texts(forest(replace(results, delta=delta)))]
        assert max(float(text) for text in ticks if re.fullmatch(r"-?\d+(\.\d+)?", text)) < most
