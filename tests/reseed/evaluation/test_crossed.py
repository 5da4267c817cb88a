"""Seeds split into initialisation and order: which of them the noise is, and what it is worth in a comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reseed.evaluation.comparisons import Rule, all_comparisons
from reseed.evaluation.crossed import crossed_variance, seed_noise
from reseed.evaluation.score_table import ScoreTable, load_scores, member_column, save_scores
from reseed.evaluation.scoring import split_noise
from reseed.evaluation.statistics import compare, recipe_side
from reseed.records import Member, ReseedError
from reseed.reporting.verdict import sentence

PROMPTS, EACH = 40, 3


def table(draw: np.random.Generator, by_seed: float, by_order: float, inits: int = 3, orders: int = 3) -> ScoreTable:
    """Variants "old" and "new" that differ by nothing but chance."""
    rows = PROMPTS * EACH
    columns = {"untrained": draw.normal(0.5, 0.1, rows)}
    for variant in ("old", "new"):
        seeds, order = draw.normal(0, by_seed, inits), draw.normal(0, by_order, orders)
        members = {
            Member(variant, i, o): 0.5 + seeds[i] + order[o] + draw.normal(0, 0.1, rows)
            for i in range(inits)
            for o in range(orders)
        }
        columns |= {member_column(member): scores for member, scores in members.items()}
        columns[f"ensemble/{variant}"] = np.mean(list(members.values()), axis=0)
    return ScoreTable(
        tuple(map(str, range(rows))), tuple(f"prompt {number // EACH}" for number in range(rows)), columns
    )


def test_variance_of_a_crossed_mean_is_that_of_both_factors() -> None:
    draw = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        means = draw.normal(0, 0.03, (3, 1)) + draw.normal(0, 0.02, (1, 4)) + draw.normal(0, 0.01, (3, 4))
        found.append((means.mean(), crossed_variance(means)[0]))
    true = 0.03**2 / 3 + 0.02**2 / 4 + 0.01**2 / 12
    assert np.var([mean for mean, _ in found]) == pytest.approx(true, rel=0.08)
    assert np.mean([variance for _, variance in found]) == pytest.approx(true, rel=0.08)
    assert crossed_variance(np.zeros((2, 2))) == (0.0, 1.0)


def test_noise_is_told_apart() -> None:
    draw = np.random.default_rng(1)
    means = draw.normal(0, 0.03, (200, 1)) + draw.normal(0, 0.01, (1, 200)) + draw.normal(0, 0.005, (200, 200))
    noise = seed_noise(means)
    assert noise.initialisation == pytest.approx(0.03, rel=0.15)
    assert noise.order == pytest.approx(0.01, rel=0.15)
    assert noise.both == pytest.approx(0.005, rel=0.05)


def test_equal_variants_are_rarely_called_different() -> None:
    """Members that share an initialisation would be taken for independent otherwise, and err three times as often."""
    draw = np.random.default_rng(2)
    calls, naive = 0, 0
    for _ in range(300):
        scores = table(draw, by_seed=0.03, by_order=0.0)
        calls += compare(scores.recipe("new"), scores.recipe("old"), scores.groups).p < 0.05
        sides = [
            recipe_side(np.stack([scores.columns[member_column(m)] for m in scores.members(v)])) for v in ("new", "old")
        ]
        naive += compare(*sides, scores.groups).p < 0.05
    assert calls / 300 <= 0.075
    assert naive / 300 > 0.15


def test_every_comparison_of_split_seeds_is_made_and_states_no_power(tmp_path: Path) -> None:
    scores = table(np.random.default_rng(3), 0.02, 0.01, 2, 3)
    save_scores(scores, tmp_path / "scores.parquet")
    back = load_scores(tmp_path, "it")
    assert [member.run for member in back.members("new")] == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    found = all_comparisons(back, "old", [], Rule(higher_is_better=True))
    assert [(one.a, one.b, one.estimand) for one in found] == [
        ("new", "old", "recipe"), ("old", "untrained", "recipe"), ("new", "untrained", "recipe"),
    ], "no ensembles: without one of several members that share a seed they hardly change"  # fmt: skip
    with pytest.raises(ReseedError, match=r"variant 'new': its seeds are split, .*compare the variant itself"):
        back.ensemble("new")
    assert all(one.power is None and one.needed is None and one.low is not None for one in found)
    assert (found[0].seeds, found[0].crossed, found[1].crossed) == ((6, 6), ((2, 3), (2, 3)), ((2, 3), None))
    assert "2 × 3 seeds × 40 prompts" in sentence(found[0], "prompt")
    noise = split_noise({member: float(back.columns[member_column(member)].mean()) for member in back.members("new")})
    assert noise is not None
    assert split_noise({Member("new", 0): 0.5, Member("new", 1): 0.6}) is None


def test_a_member_that_is_missing_is_refused() -> None:
    scores = table(np.random.default_rng(3), 0.02, 0.01, 2, 3)
    columns = {name: column for name, column in scores.columns.items() if name != "member/new/1.1"}
    with pytest.raises(ReseedError, match="5 members of 2 initialisations and 3 orders; wanted each with each"):
        ScoreTable(scores.ids, scores.groups, columns).recipe("new")
