"""The result table and the verdict: what an experiment found, in numbers and in a sentence or two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reseed.records import ConstantResult, Interval, Results, VariantResult
from reseed.reporting.text import count, direction, mean_and_std, score, signed
from reseed.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

TERMINAL = 80
LABEL = 12  # least width of a label
Outcome = Literal["better", "worse", "noise", "unknown"]


@dataclass(frozen=True)
class Line:
    """One line of the result table, as text; `best` marks the best `answer` of all lines.

    `answer` is the score of what would be used: a variant's ensemble, or a baseline itself. Single seeds and their mean
    are never marked best, since picking the best seed after the fact is what this project warns of.
    """

    label: str
    seeds: tuple[str, ...]
    mean: str
    answer: str
    best: bool
    baseline: bool


def seeds_of(results: Results) -> tuple[int, ...]:
    """All seeds of all variants, sorted."""
    return tuple(sorted({m.seed for v in results.variants for m in v.members}))


def lines(results: Results) -> list[Line]:
    """The result table: a line for each variant, for the untrained model and for each constant answer."""
    seeds = seeds_of(results)
    baselines = [("untrained", results.untrained)]
    baselines += [(f"constant “{one_line(c.text)}”", c.score) for c in results.constants]
    answers = [v.ensemble for v in results.variants] + [value for _, value in baselines]
    best = _best(answers, results.higher_is_better)
    table = []
    for v in results.variants:
        by_seed = {m.seed: score(m.score) for m in v.members}
        cells = tuple(by_seed.get(seed, "") for seed in seeds)
        answer = score(v.ensemble)
        table.append(Line(one_line(v.name), cells, mean_and_std(v.mean, v.std), answer, answer == best, baseline=False))
    for label, value in baselines:
        answer = score(value)
        table.append(Line(label, ("",) * len(seeds), "", answer, answer == best, baseline=True))
    return table


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
    table = Table(title=Text(one_line(results.experiment)), caption=Text(about), box=box.SIMPLE, pad_edge=False)
    table.add_column("variant", overflow="fold", min_width=LABEL)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for i, (row, texts) in enumerate(zip(rows, cells, strict=True)):
        if row.baseline and not rows[i - 1].baseline:
            table.add_section()
        style = "bold" if row.best else ""
        last = len(texts) - 1
        label = Text(one_line(row.label, 60), style=style)
        table.add_row(label, *(Text(t, style=style if j == last else "") for j, t in enumerate(texts)))
    return table


def verdict(results: Results) -> str:
    """A sentence or two: does the first variant's ensemble beat the untrained model and the constants?"""
    if not results.variants:
        return f"No variant was trained; the untrained model scores {score(results.untrained)}."
    first = results.variants[0]
    name = f"The {'ensemble' if len(first.members) > 1 else 'one seed'} of {one_line(first.name)}"
    against = f"{score(results.untrained)} of the untrained model ({direction(results.higher_is_better)})"
    sentence = f"{name} scores {score(first.ensemble)} against {against}: {_gain_clause(results)}."
    best = best_constant(results)
    return f"{sentence} {_constant_sentence(results, first, best)}" if best else sentence


def outcome(results: Results) -> Outcome:
    """The first variant's ensemble against the untrained model, judged by the paired interval."""
    gain = results.gain
    if not results.variants or gain is None or not math.isfinite(gain.mean) or not math.isfinite(gain.half_width):
        return "unknown"
    if without_width(results, gain):
        return "unknown"
    if abs(gain.mean) <= gain.half_width:
        return "noise"
    return "better" if (gain.mean > 0) == results.higher_is_better else "worse"


def without_width(results: Results, gain: Interval) -> bool:
    """True if the rows' differences have no spread: there is only one row, or they are equal up to rounding.

    Such an interval excludes zero for any difference at all, so it proves nothing.
    """
    return results.rows < 2 or gain.half_width <= 1e-9 * max(abs(gain.mean), abs(results.untrained))


def best_constant(results: Results) -> ConstantResult | None:
    """The constant answer that is hardest to beat, or None if none was scored."""
    scored = [c for c in results.constants if not math.isnan(c.score)]
    sign = 1 if results.higher_is_better else -1
    return max(scored, key=lambda c: sign * c.score, default=None)


def beats_constants(results: Results) -> bool:
    """True if the first variant's ensemble is ahead of every constant answer, or there are none."""
    best = best_constant(results)
    if best is None or not results.variants:
        return True
    return _ahead(results.variants[0].ensemble, best.score, results.higher_is_better)


def _ahead(value: float, other: float, higher_is_better: bool) -> bool:
    return value > other if higher_is_better else value < other


def _best(answers: list[float], higher_is_better: bool) -> str | None:
    finite = [a for a in answers if math.isfinite(a)]
    if not finite:
        return None
    return score(max(finite) if higher_is_better else min(finite))


def _range(variant: VariantResult) -> str:
    finite = [m.score for m in variant.members if math.isfinite(m.score)]
    return f"{score(min(finite))} … {score(max(finite))}" if finite else ""


def _gain_clause(results: Results) -> str:
    gain, judged = results.gain, outcome(results)
    if gain is None or not math.isfinite(gain.mean) or not math.isfinite(gain.half_width):
        return "without a paired interval this cannot be told from noise"
    if results.rows < 2:
        return f"one row cannot decide whether the difference of {signed(gain.mean)} is more than noise"
    if judged == "unknown":
        return f"the difference is {signed(gain.mean)} in every row, and without a spread between rows that decides nothing"
    said = {
        "better": "it beats the untrained model, with a difference of {}",
        "worse": "it is worse than the untrained model, with a difference of {}",
        "noise": "the difference of {} is within noise",
    }
    return said[judged].format(_interval(gain))


def _interval(gain: Interval) -> str:
    low, high = gain.mean - gain.half_width, gain.mean + gain.half_width
    return f"{signed(gain.mean)} (95 % interval {signed(low)} to {signed(high)})"


def _constant_sentence(results: Results, first: VariantResult, best: ConstantResult) -> str:
    answer = f"the best constant answer, “{one_line(best.text, 60)}” at {score(best.score)}"
    ahead = _ahead(first.ensemble, best.score, results.higher_is_better)
    difference = f"with a difference of {signed(first.ensemble - best.score)} (no interval computed)"
    if outcome(results) == "unknown":  # what is unknown of the untrained model is not claimed of a constant either
        return f"It is {'' if ahead else 'not '}ahead of {answer}, {difference}."
    if ahead:
        return f"It beats {answer}, {difference}."
    return f"It does not beat {answer}: a model that does not beat a constant has learnt nothing."
