"""The words of a verdict: four verdicts, what they rest on, and what would settle an open one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import comparison

from reseed.reporting.text import plural_of, score, signed
from reseed.reporting.verdict import headlines, noun, sentence, verdict, verdict_lines
from reseed.results import Design, NoiseParts, Results

OPEN = comparison("default", "untrained", 0.0301, 0.0622, "undecided")


def test_undecided_comparison_says_where_the_noise_is_and_what_would_settle_it() -> None:
    quickstart = replace(
        OPEN, groups=12, effective_groups=11.1, noise=NoiseParts(0.0115, 0.0081, 0.0), needed=Design(10, 30, 0.87)
    )
    assert sentence(quickstart, "prompt") == (
        "default − untrained: +0.0301 (95 % −0.0321 to +0.0923; 3 seeds × 12 prompts): undecided. "
        "About two thirds of the noise is seeds; about 10 seeds on 30 prompts would settle a difference this size."
    )


def test_decided_comparison_is_one_sentence() -> None:
    better = comparison("a", "b", -0.05, 0.01, "better", seeds=(3, 5))
    assert sentence(better, "task") == "a − b: −0.0500 (95 % −0.0600 to −0.0400; 3 and 5 seeds × 40 tasks): better."
    assert "5 and 3 seeds × 40 tasks" in sentence(replace(better, seeds=(5, 3)), "task"), "as A and B are named"


def test_joint_interval_says_its_level() -> None:
    levels = (0.975, 0.9875, 0.9995, 1 - 0.05 / 2000)
    said = [sentence(replace(OPEN, level=level), "row").partition("(")[2].split(" %")[0] for level in levels]
    assert said == ["97.5", "98.8", "99.95", "99.997"], "none is 100 %"


def test_one_seed_speaks_of_these_models_only() -> None:
    alone = replace(OPEN, estimand="member", seeds=(1, 0), verdict="better", needed=None)
    assert sentence(alone, "prompt").endswith(
        "1 seed × 40 prompts): better, of this pair of models, not of the recipe."
    )


def test_without_seeds_only_groups_are_asked_for() -> None:
    alone = replace(OPEN, estimand="member", seeds=(1, 0))
    assert sentence(alone, "prompt").endswith(
        "not of the recipe. About 80 prompts would settle a difference this size."
    )
    assert "Not even fifty times the prompts would settle" in sentence(replace(alone, needed=None), "prompt")


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        (1, "1 prompt): no verdict, since one prompt says nothing about others"),
        (5, "the same in every prompt, and without"),
    ],
)
def test_no_noise_is_no_verdict(groups: int, why: str) -> None:
    text = sentence(replace(comparison("a", "b", 0.1, 0.0, None), groups=groups), "prompt")
    assert why in text
    assert [word for word in ("better", "worse", "95 %", "undecided") if word in text] == []


def test_few_effective_groups_are_said() -> None:
    uneven = replace(OPEN, groups=12, effective_groups=4.4)
    assert "Unevenly spread, they count as 4.4 prompts, which is few." in sentence(uneven, "prompt")
    assert "5 prompts are few." in sentence(replace(OPEN, groups=5, effective_groups=5.0), "prompt")
    assert "few" not in sentence(OPEN, "prompt")


def test_headlines_are_the_experiment_s_own_question_first(results: Results) -> None:
    pairs = [(found.a, found.b, found.estimand) for found in headlines(results)]
    assert pairs[:2] == [("completion", "whole-text", "recipe"), ("completion", "untrained", "recipe")]
    assert {estimand for _, _, estimand in pairs} == {"recipe"}
    assert verdict(results).splitlines() == verdict_lines(results)


def test_result_of_an_older_version_has_no_verdict(results: Results) -> None:
    assert verdict_lines(replace(results, comparisons=()))[0].startswith("No verdict: an older version scored this")
    assert verdict(replace(results, variants=())) == "No variant was trained."


@pytest.mark.parametrize(
    ("column", "one"),
    [
        ("rewrite_prompt", "prompt"),
        ("id", "row"),
        ("prompt_name", "prompt"),
        ("question_id", "question"),
        ("Task", "task"),
    ],
)
def test_groups_are_called_after_their_column(column: str, one: str) -> None:
    assert noun(column) == one


@pytest.mark.parametrize(
    ("one", "many"), [("prompt", "prompts"), ("query", "queries"), ("class", "classes"), ("rows", "rows")]
)
def test_plurals(one: str, many: str) -> None:
    assert plural_of(one) == many


def test_a_design_that_sees_delta_already_is_not_told_to_grow() -> None:
    sees = replace(OPEN, sought=0.05, power=0.9, needed=None)
    assert sentence(sees, "prompt").endswith("undecided. About two thirds of the noise is seeds.")
    blind = replace(OPEN, sought=0.01, power=0.1)
    assert sentence(blind, "prompt").endswith("about 8 seeds on 80 prompts would settle a difference of δ, 0.01.")


def test_a_small_difference_keeps_its_sign_and_size() -> None:
    assert [signed(value) for value in (-0.00002, 0.0, -0.0, 1.5e-8, -0.0123)] == [
        "−2e−05", "+0.0000", "+0.0000", "+1.5e−08", "−0.0123"
    ]  # fmt: skip
    assert [score(value) for value in (0.00002, 0.0, -0.5)] == ["2e-05", "0.0000", "-0.5000"]
