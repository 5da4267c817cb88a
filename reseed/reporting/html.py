"""The report as one self-contained page, from the template `report.html` beside this file."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from reseed.reporting.comparison_plots import forest, noise, power_curve
from reseed.reporting.plots import loss_curves, scores, seed_colours
from reseed.reporting.tables import (
    COMPARISON_HEADERS,
    LOOK_HEADERS,
    comparison_cells,
    lines,
    look_cells,
    score_columns,
    split_table,
)
from reseed.reporting.text import count, cut_off, direction, plural_of, score, signed
from reseed.reporting.verdict import (
    HOW_LOOKED,
    HOW_SPLIT,
    headlines,
    how_compared,
    looked,
    noun,
    pair,
    seed_noise_lines,
    split_headlines,
    verdict_lines,
    which_split,
)
from reseed.results import DatasetStats, Results, Verdict
from reseed.text import one_line

if TYPE_CHECKING:
    from jinja2 import Template


def html_report(results: Results) -> str:
    """Question, verdict, scores, loss curves, members and data of one experiment as a whole HTML document."""
    rows = lines(results)
    headers, cells = score_columns(results, rows)
    return _template().render(
        results=results,
        verdicts=_verdicts(results),
        comparisons=comparison_cells(results),
        comparison_headers=list(COMPARISON_HEADERS),
        how_compared=how_compared(results),
        seed_noise=seed_noise_lines(results),
        split_headers=split_table(results)[0],
        splits=split_table(results)[1],
        which_split=which_split(results) if results.splits else "",
        how_split=HOW_SPLIT,
        looks=look_cells(results),
        look_headers=list(LOOK_HEADERS),
        how_looked=" ".join([*looked(results), HOW_LOOKED]),
        forest_plot=forest(results),
        noise_plot=noise(results),
        power_plot=power_curve(results),
        headlines=headlines(results),
        groups=plural_of(noun(results.group_by)),
        headers=headers,
        table=list(zip(rows, cells, strict=True)),
        several_seeds=any(v.std is not None for v in results.variants),
        scores_plot=scores(results),
        loss_plot=loss_curves(results),
        members=[(v.name, member) for v in results.variants for member in v.members],
        colour=seed_colours(results),
        **_dataset(results.dataset),
    )


@cache
def _template() -> Template:
    """The page's template, which escapes every value. A misspelt name in it is an error, not a gap."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("reseed", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(count=count, cut_off=cut_off, direction=direction, score=score, pair=pair, signed=signed)
    return environment.get_template("report.html")


def _printed(value: Any) -> Any:
    """A value as the page prints it: text on one line without control characters. Markup, a subclass of `str`, stays."""
    return one_line(value) if type(value) is str else value


def _verdicts(results: Results) -> list[tuple[str, str]]:
    """The verdict's lines, each with its colour."""
    said, of_splits = verdict_lines(results), split_headlines(results)
    verdicts = [found.verdict for found in of_splits]
    verdicts += [None] if results.splits else []  # the line that says which split the others are of
    verdicts += [found.verdict for found in headlines(results)]
    return list(zip(map(_tone, verdicts), said, strict=True)) if verdicts else [("unknown", line) for line in said]


def _tone(verdict: Verdict | None) -> str:
    """The colour of a verdict: a class of the page."""
    return {"better": "better", "worse": "worse", "undecided": "noise"}.get(verdict or "", "unknown")


def _dataset(stats: DatasetStats | None) -> dict[str, Any]:
    """The dataset's numbers as text, and the reasons for dropping rows, the most frequent first."""
    if stats is None:
        return {"dataset_numbers": [], "dropped": []}
    numbers = [f"{stats.n:,}", f"{stats.n_prompts:,}", f"{stats.ratio:.4g}", f"{stats.median_tokens:g}"]
    reasons = sorted(stats.dropped.items(), key=lambda item: (-item[1], item[0]))
    return {"dataset_numbers": numbers, "dropped": [(why, f"{n:,}") for why, n in reasons]}
