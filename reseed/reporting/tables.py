"""The tables of a result: its scores, and its comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from reseed.reporting.text import count, direction, mean_and_std, p_value, score, signed
from reseed.reporting.verdict import headlines, pair, percent, said, split_headlines, which_split
from reseed.results import ComparisonResult, ConstantResult, OverSplits, Results, VariantResult
from reseed.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

TERMINAL = 80
LABEL = 12  # least width of a label


@dataclass(frozen=True)
class Line:
    """One line of the result table, as text. `decided` marks a variant whose verdict is "better".

    The largest number is not marked: it is as often luck. `answer` is the score of what would be used: a variant's
    ensemble, or a baseline itself.
    """

    label: str
    seeds: tuple[str, ...]
    mean: str
    answer: str
    decided: bool
    baseline: bool


def seeds_of(results: Results) -> tuple[str, ...]:
    """All seeds of all variants, sorted, as people name them."""
    runs = {(m.seed, -1 if m.order is None else m.order): m.run for v in results.variants for m in v.members}
    return tuple(runs[known] for known in sorted(runs))


def lines(results: Results) -> list[Line]:
    """The result table: a line for each variant, for the untrained model and for each constant answer."""
    seeds = seeds_of(results)
    baselines = [("untrained", results.untrained)]
    baselines += [(constant_label(c), c.score) for c in results.constants]
    better = {found.a for found in judging(results) if found.verdict == "better"}
    table = []
    for v in results.variants:
        by_seed = {m.run: score(m.score) for m in v.members}
        cells = tuple(by_seed.get(seed, "") for seed in seeds)
        table.append(
            Line(
                one_line(v.name),
                cells,
                mean_and_std(v.mean, v.std),
                score(v.ensemble),
                v.name in better,
                baseline=False,
            )
        )
    for label, value in baselines:
        table.append(Line(label, ("",) * len(seeds), "", score(value), decided=False, baseline=True))
    return table


def constant_label(constant: ConstantResult) -> str:
    """What the table calls a fixed answer."""
    most = "best constant, mostly" if constant.cross_fitted else "constant"
    return f"{most} “{one_line(constant.text)}”"


def judging(results: Results) -> Sequence[ComparisonResult | OverSplits]:
    """For each variant the comparison that judges it: with the baseline, and the baseline's own with the untrained model.

    Where the rows are split several times, it is the one over all splits.
    """
    main: Sequence[ComparisonResult | OverSplits] = split_headlines(results) if results.splits else headlines(results)
    return [
        found for found in main if found.b == results.baseline or (found.a, found.b) == (results.baseline, "untrained")
    ]


def comparison_cells(results: Results) -> list[tuple[ComparisonResult, tuple[str, ...]]]:
    """Every comparison with its cells: A − B, what is claimed, difference, interval, p and verdict."""
    return [
        (
            found,
            (
                pair(found),
                found.estimand,
                signed(found.difference),
                "" if found.low is None or found.high is None else f"{signed(found.low)} to {signed(found.high)}",
                "" if found.adjusted_p is None else p_value(found.adjusted_p),
                said(found),
            ),
        )
        for found in results.comparisons
    ]


LOOK_HEADERS = ("seeds", "A − B", "level", "difference", "interval", "verdict")


def look_cells(results: Results) -> list[tuple[str, ...]]:
    """Every look's comparisons, where seeds are added until it is decided."""
    return [
        (
            str(look.seeds),
            one_line(f"{look.a} − {look.b}"),
            f"{percent(look.level)} %",
            signed(look.difference),
            "" if look.low is None or look.high is None else f"{signed(look.low)} to {signed(look.high)}",
            look.verdict or "no verdict",
        )
        for look in results.looks
    ]


def split_table(results: Results) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headers and cells: every comparison over several splits of the rows, and its difference on each of them."""
    headers = ["A − B", *(f"split {split.seed}" for split in results.splits), "over all", "interval", "p", "verdict"]
    return headers, [
        (
            one_line(f"{found.a} − {found.b}"),
            *(signed(fmean(split.scores[found.a]) - fmean(split.scores[found.b])) for split in results.splits),
            signed(found.difference),
            "" if found.low is None or found.high is None else f"{signed(found.low)} to {signed(found.high)}",
            "" if found.adjusted_p is None else p_value(found.adjusted_p),
            found.verdict or "no verdict",
        )
        for found in results.over_splits
    ]


COMPARISON_HEADERS = ("A − B", "of", "difference", "interval", "p", "verdict")


def score_columns(results: Results, rows: list[Line]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headers and cells to the right of the label: every seed if 80 columns have room, else the range over seeds."""
    seeds = seeds_of(results)
    headers = [*(f"seed {seed}" for seed in seeds), "mean ± std", "ensemble"]
    cells = [(*row.seeds, row.mean, row.answer) for row in rows]
    widths = [max(len(text) for text in column) + 3 for column in zip(headers, *cells, strict=True)]
    if LABEL + sum(widths) <= TERMINAL:
        return headers, cells
    ranges = [_range(v) for v in results.variants] + [""] * (len(rows) - len(results.variants))
    narrow: list[tuple[str, ...]] = [(extent, row.mean, row.answer) for extent, row in zip(ranges, rows, strict=True)]
    return [f"{len(seeds)} seeds", "mean ± std", "ensemble"], narrow


def results_table(results: Results) -> Table:
    """The result table for a terminal of 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = lines(results)
    headers, cells = score_columns(results, rows)
    about = f"{one_line(results.metric)}, {direction(results.higher_is_better)}, {count(results.rows, 'row')}"
    about += f"\n{which_split(results)}" if results.splits else ""
    table = Table(title=Text(one_line(results.experiment)), caption=Text(about), box=box.SIMPLE, pad_edge=False)
    table.add_column("variant", overflow="fold", min_width=LABEL)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for i, (row, texts) in enumerate(zip(rows, cells, strict=True)):
        if row.baseline and not rows[i - 1].baseline:
            table.add_section()
        style = "bold" if row.decided else ""
        last = len(texts) - 1
        label = Text(one_line(row.label, 60), style=style)
        table.add_row(label, *(Text(t, style=style if j == last else "") for j, t in enumerate(texts)))
    return table


def _range(variant: VariantResult) -> str:
    finite = [m.score for m in variant.members if math.isfinite(m.score)]
    return f"{score(min(finite))} … {score(max(finite))}" if finite else ""
