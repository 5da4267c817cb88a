"""Several splits of the rows: what is said over all of them, and how often that errs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_samples import comparison
from scipy import stats

from reseed.evaluation.comparisons import Rule
from reseed.evaluation.splits import (
    SplitPlan,
    compare_over_splits,
    correlated,
    split_of,
    variance_over_splits,
    with_splits,
)
from reseed.reporting.html import html_report
from reseed.reporting.markdown import markdown_report
from reseed.reporting.tables import lines
from reseed.reporting.verdict import verdict
from reseed.results import ConstantResult, MemberResult, Results, Split, VariantResult

RULE = Rule(higher_is_better=True)


def variant(name: str, *scores: float) -> VariantResult:
    members = tuple(MemberResult(seed, score, 1, f"adapter/x-{name}/{seed}") for seed, score in enumerate(scores))
    return VariantResult(name, members, float(np.mean(scores)), float(np.std(scores, ddof=1)), float(max(scores)))


def result(old: float, new: float, untrained: float = 0.2) -> Results:
    """One split's result, whose seeds differ a little; of 90 rows a third is tested, and nothing validates."""
    return Results(
        "x", "Is new better?", "prompt-recovery", "scs", True, 30, untrained,
        (variant("old", old - 0.001, old, old + 0.001), variant("new", new - 0.001, new, new + 0.001)),
        (ConstantResult("Improve it.", 0.1), ConstantResult("Rhyme.", 0.15, cross_fitted=True)),
        train_rows=60, baseline="old", delta=0.02, comparisons=(comparison("new", "old", new - old, 0.05, "undecided"),),
    )  # fmt: skip


def of_all(*results: Results, rule: Rule = RULE, planned: int = 0) -> Results:
    """The last result of a chain of splits."""
    whole, earlier = results[0], ()
    for number, one in enumerate(results, 1):
        plan = SplitPlan(number - 1, number, planned or len(results))
        whole = with_splits(one, plan, split_of(one, plan.seed, validation_rows=0), earlier, rule)
        earlier = whole.splits
    return whole


def test_variance_is_nadeau_and_bengios_where_nothing_is_drawn_but_splits() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.5, 0.1, (2, 1, 8))
    variance, df = variance_over_splits([a, b], ratio=0.25)
    assert variance == pytest.approx((1 / 8 + 0.25) * np.var(a - b, ddof=1))
    assert df == pytest.approx(7)
    found = compare_over_splits(
        "a", "b", [Split(j, 100, 375, 25, {"a": (a[0, j],), "b": (b[0, j],)}) for j in range(8)], 0.95
    )
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.difference) / variance**0.5, 7))
    assert found.seeds == (0, 0)
    assert found.low is not None
    assert found.difference - found.low == pytest.approx(stats.t.ppf(0.975, 7) * variance**0.5)


@pytest.mark.parametrize(
    ("by_seed", "by_prompt", "by_text", "by_run"),
    [(1, 0, 0, 0.1), (0, 4, 0, 0), (0, 0, 4, 0.01), (1, 4, 4, 1), (0, 0, 0, 1)],
)  # fmt: skip
@pytest.mark.parametrize(("splits", "seeds"), [(3, 3), (10, 3)])
@pytest.mark.parametrize("fixed", [False, True], ids=["two recipes", "a recipe and a model"])
def test_equal_sides_are_called_different_once_in_twenty_at_most(
    by_seed: float, by_prompt: float, by_text: float, by_run: float, splits: int, seeds: int, fixed: bool
) -> None:
    """Of the same 60 prompts each split tests 20 and trains on 40, and luck lies in either; that of a seed is in all splits."""
    draw, count, prompts, held_out = np.random.default_rng(1), 400, 60, 20
    calls = 0
    for _ in range(count):
        sides = draw.normal(0, by_seed, (2, seeds, 1)) + draw.normal(0, by_run, (2, seeds, splits))
        tested, trained = draw.normal(0, by_prompt, (2, prompts)), draw.normal(0, by_text, (2, prompts))
        for split in range(splits):
            order = draw.permutation(prompts)
            luck = tested[:, order[:held_out]].mean(axis=1) + trained[:, order[held_out:]].mean(axis=1)
            sides[:, :, split] += luck[:, None]
        own = [sides[0], np.zeros((1, splits)) if fixed else sides[1]]
        variance, df = variance_over_splits(own, correlated(Split(0, prompts - held_out, 0, held_out, {})))
        calls += 2 * stats.t.sf(abs(own[0].mean() - own[1].mean()) / variance**0.5, df) < 0.05
    assert calls / count < 0.08


def test_each_split_is_kept_and_the_last_says_what_holds_over_all() -> None:
    results = result(0.30, 0.36), result(0.31, 0.372), result(0.29, 0.348), result(0.30, 0.36)
    first = of_all(*results[:1], planned=4)
    assert (first.over_splits, first.planned_splits) == ((), 4)
    assert first.splits[0].scores["constant “Improve it.”"] == (0.1,)
    assert of_all(*results[:3], planned=4).over_splits == (), "nothing is said before all are there"
    whole = of_all(*results)
    assert [split.seed for split in whole.splits] == [0, 1, 2, 3]
    main = whole.over_splits[0]
    assert (main.a, main.b, main.verdict, main.splits, main.seeds) == ("new", "old", "better", 4, (3, 3))
    assert main.difference == pytest.approx(0.06)
    with_untrained = [found for found in whole.over_splits if found.b == "untrained"]
    assert [found.a for found in with_untrained] == ["old", "new"]
    assert {found.level for found in with_untrained} == {0.975}, "two with the same other side hold together"
    assert whole.to_json()["over_splits"][0]["verdict"] == "better"
    assert whole.to_json()["splits"][3]["scores"]["new"] == pytest.approx((0.359, 0.36, 0.361))


@pytest.mark.parametrize("lacking", [0, 1, 2])
def test_what_one_split_lacks_is_not_compared(lacking: int) -> None:
    """One group of test rows has no best constant."""
    results = [result(0.30, 0.36), result(0.31, 0.372), result(0.29, 0.348)]
    results[lacking] = replace(results[lacking], constants=results[lacking].constants[:1])
    others = {found.b for found in of_all(*results).over_splits}
    assert others == {"old", "untrained", "constant “Improve it.”"}


def test_bold_is_what_holds_over_all_splits() -> None:
    decided = replace(result(0.30, 0.36), comparisons=(comparison("new", "old", 0.06, 0.02, "better"),))
    assert [line.label for line in lines(decided) if line.decided] == ["new"]
    whole = of_all(result(0.30, 0.29), result(0.30, 0.31), decided)
    assert whole.over_splits[0].verdict == "undecided"
    assert [line.label for line in lines(whole) if line.decided] == []


def test_splits_that_contradict_each_other_decide_nothing_and_a_small_difference_is_none() -> None:
    assert of_all(result(0.30, 0.36), result(0.30, 0.29), result(0.30, 0.31)).over_splits[0].verdict == "undecided"
    same = [result(0.3 + step, 0.301 + step * 1.005) for step in (0.0, 0.1, 0.2, 0.3)]
    assert of_all(*same, rule=replace(RULE, delta=0.02)).over_splits[0].verdict == "no difference beyond δ"


def test_a_lower_metric_turns_the_verdict() -> None:
    results = [replace(result(0.30 + step, 0.36 + step), higher_is_better=False) for step in (0.0, 0.01, 0.02)]
    assert of_all(*results, rule=Rule(higher_is_better=False)).over_splits[0].verdict == "worse"


def test_equal_differences_give_no_verdict() -> None:
    equal = [replace(result(0.3, 0.3), variants=(variant("old", 0.3, 0.3, 0.3), variant("new", 0.3, 0.3, 0.3)))] * 3
    found = of_all(*equal)
    assert (found.over_splits[0].verdict, found.over_splits[0].p) == (None, None)
    assert (
        "Over 3 splits of 3 seeds, new − old: +0.0000: no verdict, since the difference is the same in every one."
        in verdict(found)
    )


def test_reports_show_every_split_and_which_one_the_rest_is_of() -> None:
    whole = of_all(result(0.30, 0.36), result(0.31, 0.372), result(0.29, 0.348))
    for page in (markdown_report(whole), html_report(whole)):
        assert "Over 3 splits of 3 seeds, new − old: +0.0600 (95 % " in page
        assert "On the last of 3 splits alone, data.seed 2:" in page
        assert "split 0" in page
        assert "Nadeau and Bengio" in page
    assert "on the last of 3 splits alone, data.seed 2; problem" in markdown_report(whole)
    assert "· On the last of 3 splits alone, data.seed 2" in html_report(whole)
    assert "Splits</h2>" not in html_report(result(0.3, 0.36))
    assert "splits alone" not in markdown_report(result(0.3, 0.36))
    begun = markdown_report(of_all(result(0.30, 0.36), planned=3))
    assert "On split 1 of 3 alone, data.seed 0:" in begun
    assert "## Splits" not in begun
