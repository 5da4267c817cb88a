"""`reseed power`: from stated spreads and from an earlier result, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli import parser
from flows.power import planned_design, power_lines, wanted_difference
from reseed.evaluation.design import Planned, from_result, smallest_difference
from reseed.evaluation.looks import LookPlan
from reseed.evaluation.power import Spread
from reseed.recipe.reading import load_recipe
from reseed.records import ReseedError
from reseed.results import ComparisonResult, NoiseParts
from reseed.store.artifacts import ArtifactStore

RECIPE = load_recipe("rewrites", (), "laptop")
FOUND = ComparisonResult(
    "default", "untrained", "recipe", 0.03, -0.01, 0.07, 0.95, 0.1, 0.1, "undecided", (3, 0), 12, 11.0,
    NoiseParts(0.01, 0.02, 0.005),
)  # fmt: skip


def test_a_design_that_sees_little_is_shown_beside_cheaper_and_better_ones() -> None:
    design = planned_design(RECIPE, ArtifactStore("unused"), None, "0.015,0.06", 40)
    assert design == Planned(Spread(0.015**2, 0.06**2, 0.0, 1), 3, 40, 40.0)
    lines = power_lines(design, 0.03, "prompt")
    assert lines[0].startswith("3 seeds × 40 prompts: a true difference of 0.03 is called with a power of ")
    assert [line.split()[:2] for line in lines[4:7]] == [["3", "seeds"], ["5", "seeds"], ["10", "seeds"]]
    assert lines[4].endswith("← this design")
    assert lines[-1].startswith("the cheapest design: ")


def test_a_design_of_looks_is_judged_as_the_last_one() -> None:
    recipe = load_recipe("rewrites", ("seeds={start: 3, most: 10}",), "laptop")
    design = planned_design(recipe, ArtifactStore("unused"), None, "0.015,0.06", 40)
    assert (design.seeds, design.level) == (10, LookPlan(10, 8, 10).level)
    assert design.level == pytest.approx(0.9784, abs=1e-4)


def test_smallest_difference_is_seen_with_the_power_wanted_and_no_smaller_one() -> None:
    design = Planned(Spread(0.02**2, 0.1**2, 0.01**2, 2), 5, 60, 60.0)
    least = smallest_difference(design)
    assert design.power(least) >= 0.8 > design.power(0.97 * least)
    assert smallest_difference(replace(design, seeds=1)) == float("inf"), "one seed sees nothing of a recipe"


def test_two_variants_have_twice_the_noise_by_seeds_of_one() -> None:
    one, two = (from_result(FOUND, 5, variants) for variants in (1, 2))
    assert one.spread == Spread(
        pytest.approx(3 * 0.01**2), pytest.approx(11 * 0.02**2), pytest.approx(33 * 0.005**2), 1
    )
    assert (two.spread.seed, two.spread.both) == (
        pytest.approx(2 * one.spread.seed),
        pytest.approx(2 * one.spread.both),
    )
    assert (two.spread.sides, two.seeds, two.groups, two.effective) == (2, 5, 12, 11.0)
    with pytest.raises(ReseedError, match="that result has one seed, which says nothing of how seeds differ"):
        from_result(replace(FOUND, seeds=(1, 0)), 5, variants=2)


@pytest.mark.parametrize("spread", ["0.015", "a,b", "-1,0.1", "0.1,0", "0.1,0.2,0.3", "nan,0.1", "1e200,1", "0,1e-200"])
def test_stated_spreads_are_two_standard_deviations(spread: str) -> None:
    with pytest.raises(ReseedError, match="wanted SEED,GROUP, two standard deviations"):
        planned_design(RECIPE, ArtifactStore("unused"), None, spread, 40)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match="--groups None: wanted the number of groups of test rows"):
        planned_design(RECIPE, ArtifactStore("unused"), None, "0.01,0.1", None)
    with pytest.raises(ReseedError, match="results 'rewrites': the store"):
        planned_design(RECIPE, ArtifactStore(str(tmp_path)), None, None, None)
    with pytest.raises(ReseedError, match="give --difference D, or `delta: D` in the recipe"):
        wanted_difference(RECIPE, None)
    with pytest.raises(ReseedError, match="--difference -1: wanted a number above 0"):
        wanted_difference(RECIPE, -1.0)
    assert wanted_difference(RECIPE.model_copy(update={"delta": 0.02}), None) == 0.02


def test_several_variants_are_judged_together_and_a_stage_is_none_of_them() -> None:
    five = RECIPE.model_copy(update={"variants": {f"rate-{n}": {"training": {"rank": n}} for n in (1, 2, 4, 8, 16)}})
    design = planned_design(five, ArtifactStore("unused"), None, "0.02,0.08", 40)
    assert (design.level, design.spread.sides) == (pytest.approx(0.9875), 2)
    assert design.power(0.05) < replace(design, level=0.95).power(0.05)
    staged = {"first": {"data": {"limit": 99}}, "final": {"training": {"start_from": "first"}}}
    final = RECIPE.model_copy(update={"variants": staged, "baseline": "final"})
    assert planned_design(final, ArtifactStore("unused"), None, "0.02,0.08", 40).spread.sides == 1


def test_groups_of_another_number_than_the_result_s(tmp_path: Path) -> None:
    design = from_result(FOUND, 5, variants=1)
    more = design.with_groups(120)
    assert (more.groups, more.effective) == (120, pytest.approx(110.0)), "as uneven as the result's"
    assert more.power(0.03) > design.power(0.03)
    assert "a true difference" in power_lines(more, 0.03, "prompt")[0]


def test_two_seeds_of_many_variants_see_a_large_difference() -> None:
    many = Planned(Spread(2 * 0.01**2, 0.001**2, 0.0, 2), 2, 40, 40.0, level=1 - 0.05 / 39)
    least = smallest_difference(many)
    assert many.power(least) >= 0.8
    assert least < 100


def test_a_small_difference_that_is_seen_is_no_zero() -> None:
    design = Planned(Spread(0.0, 1e-5**2, 0.0, 1), 3, 40, 40.0)
    assert " 0.0000 or more" not in power_lines(design, 0.03, "prompt")[1]


def test_spreads_are_stated_or_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["power", "rewrites", "--from", "rewrites", "--spread", "0.01,0.1"])
    assert "argument --spread: not allowed with argument --from" in capsys.readouterr().err
