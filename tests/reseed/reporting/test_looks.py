"""Seeds that are added until it is decided: what each look may spend, what stays decided, and when it stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import comparison, sample

from reseed.evaluation.looks import LookPlan, is_settled, planned_level, with_looks
from reseed.evaluation.statistics import bonferroni_level, look_level
from reseed.reporting.comparison_plots import power_curve
from reseed.reporting.html import html_report
from reseed.reporting.markdown import markdown_report
from reseed.reporting.verdict import percent, verdict
from reseed.results import ComparisonResult, Design, Results

BASE = replace(sample(), baseline="old", comparisons=())


def result(*comparisons: ComparisonResult) -> Results:
    return replace(BASE, comparisons=comparisons)


def test_looks_spend_no_more_than_one_level_together() -> None:
    plans = [LookPlan(seeds, before, 10) for before, seeds in ((0, 3), (3, 4), (4, 5), (5, 6), (6, 8), (8, 10))]
    assert [plan.level for plan in plans] == [look_level(plan.seeds, plan.before, 10) for plan in plans]
    assert sum(1 - plan.level for plan in plans) == pytest.approx(0.05)
    assert [plan.level for plan in plans] == sorted((plan.level for plan in plans), reverse=True)


def test_what_a_look_decided_stays_and_the_last_question_ends_it() -> None:
    first = with_looks(
        result(comparison("a", "old", 0.1, 0.02, "better"), comparison("b", "old", 0.02, 0.1, "undecided")),
        LookPlan(3, 0, 5),
        (),
    )
    assert not is_settled(first), "b is open"
    assert "Judged at 3 of at most 5 seeds; `reseed run --until-decided` adds more" in verdict(first)
    second = with_looks(
        result(
            comparison("a", "old", 0.05, 0.06, "undecided", seeds=(4, 4)),
            comparison("b", "old", 0.05, 0.02, "better", seeds=(4, 4)),
        ),
        LookPlan(4, 3, 5),
        first.looks,
    )
    assert is_settled(second)
    assert [(look.seeds, look.a, look.verdict) for look in second.looks] == [
        (3, "a", "better"), (3, "b", "undecided"), (4, "a", "undecided"), (4, "b", "better"),
    ]  # fmt: skip
    assert [(one.verdict, one.decided_at) for one in second.comparisons] == [("better", 3), ("better", 4)]
    assert "a − old: +0.0500 (95 % −0.0100 to +0.1100; 4 seeds × 40 prompts): better (decided at 3 seeds)." in verdict(
        second
    )
    assert "4 of at most 5 seeds." in verdict(second)


def test_what_was_decided_needs_no_more_seeds() -> None:
    first = with_looks(result(comparison("a", "old", 0.1, 0.02, "better")), LookPlan(3, 0, 5), ())
    later = replace(comparison("a", "old", 0.05, 0.06, "undecided", seeds=(4, 4)), needed=Design(8, 40, 0.82))
    (found,) = with_looks(result(later), LookPlan(4, 3, 5), first.looks).comparisons
    assert (found.verdict, found.needed) == ("better", None)


def test_single_variant_asks_whether_it_beats_the_untrained_model() -> None:
    own = comparison("old", "untrained", 0.1, 0.02, "better")
    blend = replace(own, estimand="ensemble")
    assert is_settled(with_looks(result(own, blend), LookPlan(3, 0, 5), ()))
    assert not is_settled(with_looks(result(replace(own, verdict="undecided"), blend), LookPlan(3, 0, 5), ()))
    assert not is_settled(with_looks(result(replace(own, verdict=None)), LookPlan(3, 0, 5), ())), (
        "no verdict settles nothing"
    )


def test_a_list_of_seeds_is_never_settled() -> None:
    assert not is_settled(result(comparison("a", "old", 0.1, 0.02, "better")))
    assert verdict(result(comparison("a", "old", 0.1, 0.02, "better"))).count("\n") == 0


def test_every_look_is_in_the_report() -> None:
    open_ = comparison("a", "old", 0.1, 0.2, "undecided")
    results = with_looks(result(replace(open_, level=0.99965)), LookPlan(3, 0, 5), ())
    for page in (markdown_report(results), html_report(results)):
        assert "Looks" in page
        assert "99.97 %" in page
        assert "declared before the first one" in page
    assert "Looks" not in markdown_report(sample()) + html_report(sample())


def test_a_level_of_many_variants_at_the_first_look_is_not_100_percent() -> None:
    level = LookPlan(3, 0, 10).level
    assert [percent(bonferroni_level(level, many)) for many in (1, 4, 8, 20)] == [
        "99.97", "99.99", "99.996", "99.998",
    ]  # fmt: skip
    assert [percent(level) for level in (0.95, 0.975, 0.9975, 0.999, 0.9995)] == [
        "95", "97.5", "99.8", "99.9", "99.95",
    ]  # fmt: skip


def test_another_design_is_judged_as_the_last_look() -> None:
    plan = LookPlan(3, 0, 10)
    found = replace(comparison("a", "old", 0.1, 0.2, "undecided"), level=bonferroni_level(plan.level, 2))
    looked = with_looks(replace(result(found), level=plan.level), plan, ())
    assert planned_level(looked, found) == pytest.approx(bonferroni_level(LookPlan(10, 8, 10).level, 2))
    assert planned_level(sample(), found) == found.level
    assert "an early look is judged more strictly" in power_curve(looked)
    assert "an early look" not in power_curve(sample())
