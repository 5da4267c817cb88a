"""The jackknife against its formulas written out, its edges, and how often it errs (bench/truth.py measures that at length)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from reseed.evaluation.power import Spread, noise_of, power, spread_of
from reseed.evaluation.statistics import (
    Side,
    bonferroni_level,
    compare,
    cross_fitted,
    ensemble_side,
    fisher_interval,
    holm,
    look_level,
    recipe_side,
)

Floats = NDArray[np.float64]


def drawn(draw: np.random.Generator, seeds: int, groups: int, rows: int = 4, seed_sd: float = 0.02) -> Floats:
    """Scores of one side, shape (K, G · rows): seeds, groups, seeds within groups, rows."""
    place = np.repeat(np.arange(groups), rows)
    shared = draw.normal(0, 0.1, (seeds, groups))[:, place]
    return draw.normal(0, seed_sd, (seeds, 1)) + shared + draw.normal(0, 0.2, (seeds, groups * rows))


def by_the_formulas(a: Floats, b: Floats, groups: list[str]) -> tuple[float, float, float]:
    """Difference, variance and degrees of freedom, written as the procedure has them, with loops."""
    names, n = sorted(set(groups)), len(groups)
    of = {name: [i for i, group in enumerate(groups) if group == name] for name in names}
    differences = a.mean(axis=0) - b.mean(axis=0)
    left = [np.delete(differences, of[name]).mean() for name in names]
    count = len(names)
    by_groups = (count - 1) / count * sum((value - np.mean(left)) ** 2 for value in left)
    by_seeds, both, spent = 0.0, 0.0, 0.0
    for side in (a, b):
        seeds, means = len(side), side.mean(axis=1)
        own = means.var(ddof=1) / seeds
        squares = 0.0
        for name in names:
            sums = side[:, of[name]].sum(axis=1)
            squares += sum((sums - sums.mean() - len(of[name]) * (means - means.mean())) ** 2)
        both += squares / n**2 * count / (count - 1) / (seeds * (seeds - 1))
        by_seeds, spent = by_seeds + own, spent + own**2 / (seeds - 1)
    variance = max(by_seeds + by_groups - both, by_seeds, by_groups)
    effective = n**2 / sum(len(rows) ** 2 for rows in of.values())
    return float(differences.mean()), variance, max(1.0, variance**2 / (spent + by_groups**2 / (effective - 1)))


@pytest.mark.parametrize("sizes", [[4] * 12, [1, 2, 3, 9, 1, 1, 5], [1] * 30])
def test_it_is_the_procedure_s_formulas(sizes: list[int]) -> None:
    draw = np.random.default_rng(3)
    groups = [f"group {number}" for number, size in enumerate(sizes) for _ in range(size)]
    draw.shuffle(groups)
    a, b = draw.normal(0.1, 0.2, (3, len(groups))), draw.normal(0, 0.2, (5, len(groups)))
    difference, variance, df = by_the_formulas(a, b, groups)
    found = compare(recipe_side(a), recipe_side(b), groups)
    width = t.ppf(0.975, df) * variance**0.5
    assert (found.difference, found.df) == pytest.approx((difference, df))
    assert (found.low, found.high) == pytest.approx((difference - width, difference + width))
    assert found.p == pytest.approx(2 * t.sf(abs(difference) / variance**0.5, df))
    assert (found.seeds, found.groups) == ((3, 5), len(sizes))
    assert compare(recipe_side(b), recipe_side(a), groups).difference == pytest.approx(-difference)


def test_the_level_and_p_agree() -> None:
    draw = np.random.default_rng(0)
    a, b = recipe_side(drawn(draw, 4, 12) + 0.1), recipe_side(drawn(draw, 4, 12))
    groups = np.repeat(np.arange(12), 4)
    found = compare(a, b, groups)
    touching = compare(a, b, groups, level=1 - found.p)
    assert min(abs(touching.low), abs(touching.high)) == pytest.approx(0, abs=1e-9)


def test_false_calls_are_rare_and_true_ones_are_not() -> None:
    draw, groups = np.random.default_rng(1), np.repeat(np.arange(30), 4)

    def calls(shift: float) -> float:
        pairs = [(recipe_side(drawn(draw, 3, 30) + shift), recipe_side(drawn(draw, 3, 30))) for _ in range(300)]
        return float(np.mean([compare(a, b, groups).p < 0.05 for a, b in pairs]))

    assert calls(0.0) < 0.055
    assert calls(0.15) > 0.9


def test_one_seed_counts_as_none() -> None:
    draw, groups = np.random.default_rng(2), np.repeat(np.arange(10), 3)
    one, fixed = draw.normal(0, 1, (1, 30)), draw.normal(0, 1, 30)
    found = compare(recipe_side(one), Side(fixed), groups)
    assert found == compare(Side(one[0], one), Side(fixed), groups)
    assert (found.seeds, found.noise.seeds, found.noise.both) == ((1, 0), 0.0, 0.0)
    assert found.df == pytest.approx(9), "groups only"


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([0.5, 0.7], ["a", "a"]), ([0.5], ["a"]), ([0.3, 0.3], ["a", "b"]), ([0.0] * 6, [*"aabbcc"]),
        ([0.1] * 16, [*"aabbbcccccdeeefg"]),
    ],
    ids=["one group", "one row", "no variance", "all equal", "rounding"],
)  # fmt: skip
def test_without_noise_to_measure_there_is_no_interval(rows: list[float], groups: list[str]) -> None:
    found = compare(Side(np.array(rows)), Side(np.zeros(len(rows))), groups)
    assert not found.known
    assert np.isnan([found.low, found.high, found.p]).all()


@pytest.mark.parametrize("bad", [np.array([0.1, np.nan]), np.array([0.1, np.inf]), np.array([0.1]), np.zeros((2, 1))])
def test_scores_that_are_not_one_finite_number_a_row_are_refused(bad: Floats) -> None:
    with pytest.raises(ValueError, match=r"wanted \(2,\)|NaN or infinite"):
        compare(Side(bad), Side(np.zeros(2)), ["a", "b"])
    with pytest.raises(ValueError, match="shape"):
        compare(Side(np.zeros(2), np.zeros((3, 1))), Side(np.zeros(2)), ["a", "b"])


def test_an_ensemble_of_means_has_the_noise_of_its_members() -> None:
    """Where blending is the mean of scores, the pseudo-values are the members."""
    draw, groups = np.random.default_rng(5), np.repeat(np.arange(10), 3)
    members = drawn(draw, 4, 10, 3)
    without = np.array([np.delete(members, k, axis=0).mean(axis=0) for k in range(4)])
    other = Side(np.zeros(30))
    blended = compare(ensemble_side(members.mean(axis=0), without), other, groups)
    whole = compare(recipe_side(members), other, groups)
    assert (blended.low, blended.high, blended.df) == pytest.approx((whole.low, whole.high, whole.df))
    assert ensemble_side(members[0], members[:1]).seeds is None


def test_effective_groups_tell_of_one_large_group() -> None:
    found = compare(Side(np.arange(20.0)), Side(np.zeros(20)), ["large"] * 15 + [*"abcde"])
    assert found.groups == 6
    assert found.effective_groups == pytest.approx(400 / (225 + 5))


def test_holm_s_p_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    adjusted = holm([0.01, float("nan")])
    assert adjusted[0] == pytest.approx(0.02), "an unknown comparison counts"
    assert np.isnan(adjusted[1])
    assert holm([]) == []
    assert bonferroni_level(0.95, 5) == pytest.approx(0.99)


def test_looks_spend_the_error_once() -> None:
    looks = [0, 3, 4, 5, 6, 8, 10]
    spent = [1 - look_level(now, before, 10) for before, now in pairwise(looks)]
    assert sum(spent) == pytest.approx(0.05)
    assert spent[0] == pytest.approx(0.00034, abs=1e-5), "the first look needs much"
    assert spent == sorted(spent)


def test_a_constant_is_chosen_outside_the_group_that_judges_it() -> None:
    groups = [*"aab"]
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.4, 0.4, 0.4]])
    assert cross_fitted(scores, groups).tolist() == [0.0, 0.0, 0.0], "each is best where it was chosen"
    assert cross_fitted(-scores, groups, higher_is_better=False).tolist() == [-0.0, -0.0, -0.0]


def test_fisher_s_interval() -> None:
    assert fisher_interval(0.6, 28) == pytest.approx((0.2919, 0.7953), abs=1e-3)
    assert fisher_interval(0.9, 3) == (-1.0, 1.0)
    low, high = fisher_interval(1.0, 10)
    assert low <= high <= 1


def test_power_foretells_what_is_called() -> None:
    draw, groups = np.random.default_rng(7), np.repeat(np.arange(30), 4)
    shift, calls, foretold = 0.06, 0, list[Any]()
    # of one side: a seed 0.02², a seed within a group 0.1² + 0.2²/4; the groups' own differences are nil
    spread = Spread(2 * 0.02**2, 0.0, 2 * (0.1**2 + 0.2**2 / 4), 2)
    for _ in range(400):
        found = compare(recipe_side(drawn(draw, 5, 30) + shift), recipe_side(drawn(draw, 5, 30)), groups)
        calls += found.p < 0.05
        foretold.append(spread_of(found))
    assert power(spread, shift, 5, 30) == pytest.approx(calls / 400, abs=0.07)
    assert np.mean([one.both for one in foretold]) == pytest.approx(spread.both, rel=0.1)
    assert power(spread, 0.0, 5, 30) < 0.06
    assert power(spread, shift, 10, 60) > power(spread, shift, 5, 30) > power(spread, shift, 3, 12)
    assert noise_of(spread, 5, 30).seeds == pytest.approx(spread.seed / 5)
    assert (power(spread, shift, 1, 30), power(spread, shift, 5, 1)) == (0.0, 0.0)
