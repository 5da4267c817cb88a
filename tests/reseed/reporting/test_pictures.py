from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from pictures_in import SVG, pictures_in, texts

from reseed.reporting.comparison_plots import forest, noise
from reseed.reporting.markdown import markdown_report, pictured_report
from reseed.reporting.pictures import LARGEST, markdown_picture, picture
from reseed.reporting.plots import loss_curves, scores
from reseed.results import Results

Plot = Callable[[Results], str]


def luminance(colour: str) -> float:
    """Of WCAG: 0 is black, 1 is white."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_pictures_are_the_plots_of_the_page(results: Results) -> None:
    shown = pictures_in(pictured_report(results))
    assert list(shown) == [
        "Scores", "Differences with their intervals", "Where the noise comes from", "What more seeds or prompts would see",
        "Loss curves",
    ]  # fmt: skip
    intervals, noises, power = (texts(svg) for svg in list(shown.values())[1:4])
    assert intervals == texts(ElementTree.fromstring(forest(results)))
    assert {"completion − whole-text", "whole-text (ensemble) − untrained", "better", "undecided"} <= set(intervals)
    assert {"seeds", "prompts", "seeds within prompts", "% of the variance"} <= set(noises)
    assert {"you are here", "power", "prompts"} <= set(power)


def test_without_its_pictures_it_is_the_report_that_is_stored(results: Results) -> None:
    plain = markdown_report(results)
    assert "data:" not in plain
    kept = re.sub(
        r"(## [^\n]*\n\n)?!\[[^\n]*\n\n",
        lambda m: m[1] if m[1] == "## Comparisons\n\n" else "",
        pictured_report(results),
    )
    assert kept == plain


def test_what_was_not_compared_has_no_picture_of_it(results: Results) -> None:
    alone = pictured_report(replace(results, comparisons=()))
    assert list(pictures_in(alone)) == ["Scores", "Loss curves"]
    assert "noise" not in alone


@pytest.mark.parametrize("plot", [forest, noise, scores, loss_curves])
def test_a_picture_brings_its_colours_for_light_and_dark(results: Results, plot: Plot) -> None:
    svg = ElementTree.fromstring(picture(plot(results)))
    style = svg.findtext(f"{SVG}style") or ""
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for scheme, is_light in ((light, True), (dark, False)):
        paper, ink = (luminance(colour) for colour in re.findall(r": (#[0-9a-f]{6})", scheme))
        assert (paper > ink) is is_light
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 12
    paper_of = svg.find(f"{SVG}rect[@class='paper']")
    assert paper_of is not None
    assert (paper_of.get("width"), paper_of.get("height")) == ("100%", "100%")


def test_a_picture_has_room_for_the_whole_plot(results: Results) -> None:
    svg = ElementTree.fromstring(picture(forest(results)))
    plot = svg.find(f"{SVG}svg")
    assert plot is not None
    for across, corner in (("width", "x"), ("height", "y")):
        points = float((plot.get(across) or "").removesuffix("pt"))
        assert float(svg.get(across) or 0) == pytest.approx(2 * float(plot.get(corner) or 0) + points * 96 / 72, abs=1)


def test_a_picture_fetches_nothing_and_runs_nothing(results: Results) -> None:
    odd = replace(
        results, variants=(replace(results.variants[0], name="</text><script>x</script>"), results.variants[1])
    )
    drawn = picture(scores(odd))
    assert not re.search(r"<script|<image|<foreignObject|@import|url\((?!#)|href=\"(?!#)|\bon\w+=", drawn)


def test_a_text_that_looks_like_a_style_stays(results: Results) -> None:
    name = "px; font-family: & no end"
    odd = replace(results, variants=(replace(results.variants[0], name=name), results.variants[1]))
    assert name in texts(ElementTree.fromstring(picture(scores(odd))))
    assert "font-family: 'DejaVu" not in picture(scores(results))


def test_one_that_is_too_large_is_named_and_left_out(results: Results) -> None:
    plot = forest(results)
    huge = plot.replace("</svg>", f"<!--{'x' * LARGEST}--></svg>")
    assert markdown_picture("Scores", huge) == "*Scores: too large a picture for this page; it is in report.html.*"
    assert len(markdown_picture("Scores", plot)) < 30_000


def test_a_column_s_name_stays_inside_the_title(results: Results) -> None:
    odd = pictured_report(replace(results, group_by="a](http://x)"))
    assert "What more seeds or a\\](http://x)s would see" in list(pictures_in(odd))[3]
