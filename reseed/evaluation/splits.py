"""Several splits of the rows into those to train on and those to test on: what holds over all of them.

A split's interval counts other seeds and other groups, but what is judged was learnt from its own training rows. Over several
splits those vary, too. Splits share rows, so their differences are not independent. With a correlation ρ, the variance of the
mean of J of them is (1/J + ρ/(1−ρ)) · s²: Nadeau and Bengio (2003), Inference for the Generalization Error, Machine Learning
52, eq. 8. Their ρ is that of the test rows, n₂/(n₁+n₂); luck that lies in the training rows has n₁/N, and the greater counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reseed.evaluation.comparisons import Rule, constant_names, verdict_of
from reseed.evaluation.crossed import mean_squares
from reseed.evaluation.score_table import BEST_CONSTANT, UNTRAINED
from reseed.evaluation.statistics import ROUNDING, bonferroni_level, holm
from reseed.results import OverSplits, Results, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]


@dataclass(frozen=True)
class SplitPlan:
    """The place of a result among several splits of the rows: its `data.seed`, its number, and how many there are."""

    seed: int
    number: int  # from 1
    of: int


def variance_over_splits(sides: Sequence[Scores], ratio: float) -> tuple[float, float]:
    """The variance of a difference of means over splits, and its degrees of freedom (Satterthwaite's, at least 1).

    Each side's scores have the shape (K, J), K ≥ 3 seeds on J ≥ 2 splits; what was not trained has K = 1. `ratio` is ρ/(1−ρ).
    The variance by splits does not see what all of them share, the luck of a seed. So it is two-way, as that over seeds and
    groups: by splits, by seeds, less what is in both. Where the seeds' is greater, many splits must not hide how few they are.
    """
    splits = sides[0].shape[1]
    means = [side.mean(axis=0) for side in sides]
    difference = means[0] - means[1]
    by_splits = (1 / splits + ratio) * float(difference.var(ddof=1))
    by_seeds, both, spread, most = 0.0, 0.0, by_splits**2 / (splits - 1), 0
    for side in sides:
        if len(side) > 1:
            of_seeds, _, left = (square / side.size for square in mean_squares(side))
            by_seeds, both, spread = by_seeds + of_seeds, both + left, spread + of_seeds**2 / (len(side) - 1)
            most += len(side) - 1
    variance = max(by_splits + by_seeds - both, by_splits, by_seeds)
    df = max(1.0, variance**2 / spread) if spread else 1.0
    return variance, min(df, most) if by_seeds > by_splits else df


def correlated(split: Split) -> float:
    """ρ/(1−ρ) of two splits like this one: they share n₁/N of their training rows, and n₂/(n₁+n₂) of those tested."""
    return max(split.train_rows / (split.validation_rows + split.rows), split.rows / split.train_rows)


def compare_over_splits(a: str, b: str, splits: Sequence[Split], level: float) -> OverSplits:
    """A minus B, the mean over the splits of what each one's test rows say. Without noise there is no interval."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    sides = [np.array([split.scores[name] for split in splits]).T for name in (a, b)]
    ratio = sum(map(correlated, splits)) / len(splits)
    difference = float(sides[0].mean() - sides[1].mean())
    variance, df = variance_over_splits(sides, ratio)
    found = OverSplits(a, b, difference, level, (seeds_of(sides[0]), seeds_of(sides[1])), len(splits))
    if variance <= (ROUNDING * max(float(np.abs(side).max()) for side in sides)) ** 2:
        return found
    error = variance**0.5
    width = float(stdtrit(df, 0.5 + level / 2)) * error
    p = float(2 * stdtr(df, -abs(difference) / error))
    return replace(found, low=difference - width, high=difference + width, p=p)


def seeds_of(side: Scores) -> int:
    """How many seeds a side has; 0 for what was not trained."""
    return len(side) if len(side) > 1 else 0


def compare_family(names: Sequence[str], other: str, splits: Sequence[Split], rule: Rule) -> list[OverSplits]:
    """Several variants with the same other side, judged together as in one split."""
    level = bonferroni_level(rule.level, len(names))
    found = [compare_over_splits(name, other, splits, level) for name in names]
    adjusted = holm([math.nan if one.p is None else one.p for one in found])
    return [
        one if one.p is None else judged(one, p, splits, len(names), rule)
        for one, p in zip(found, adjusted, strict=True)
    ]


def judged(found: OverSplits, p: float, splits: Sequence[Split], comparisons: int, rule: Rule) -> OverSplits:
    """A comparison that has an interval, with its verdict. Two one-sided tests within ±δ are an interval of 90 %."""
    narrow = compare_over_splits(found.a, found.b, splits, bonferroni_level(2 * rule.level - 1, comparisons))
    inside = rule.delta is not None and within(narrow, rule.delta)
    return replace(found, adjusted_p=p, verdict=verdict_of(found.difference, p, inside, rule))


def within(found: OverSplits, delta: float) -> bool:
    """True if the interval lies within ±δ."""
    return found.low is not None and found.high is not None and -delta < found.low and found.high < delta


def split_of(results: Results, seed: int, validation_rows: int) -> Split:
    """A result's scores, under the names that comparisons have for them."""
    texts = constant_names([known.text for known in results.constants if not known.cross_fitted])
    scores = {variant.name: tuple(member.score for member in variant.members) for variant in results.variants}
    scores[UNTRAINED] = (results.untrained,)
    scores |= {BEST_CONSTANT if c.cross_fitted else texts[c.text]: (c.score,) for c in results.constants}
    return Split(seed, results.train_rows, validation_rows, results.rows, scores)


def with_splits(results: Results, plan: SplitPlan, own: Split, earlier: Sequence[Split], rule: Rule) -> Results:
    """The result of one split with the scores of those before it, and at the last one what holds over all of them.

    What one of them lacks, such as a best constant where there is a single group, is not compared.
    """
    splits = (*earlier, own)
    whole = replace(results, splits=splits, planned_splits=plan.of)
    if plan.number < plan.of:
        return whole
    names = [variant.name for variant in results.variants]
    families = [([name for name in names if name != results.baseline], results.baseline or names[0])]
    in_all = [name for name in own.scores if all(name in split.scores for split in splits)]
    families += [(names, other) for other in in_all if other not in names]
    found = [one for sides, other in families if sides for one in compare_family(sides, other, splits, rule)]
    return replace(whole, over_splits=tuple(found))
