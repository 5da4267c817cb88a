"""Every comparison of an experiment, and those of different runs: what they say, and what they refuse."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_step import plain_step

from reseed.evaluation.comparisons import Rule, all_comparisons, constant_names
from reseed.evaluation.experiment import KIND, save_results
from reseed.evaluation.looks import LookPlan
from reseed.evaluation.score_table import FILE, ScoreTable, save_scores
from reseed.evaluation.statistics import Side, compare
from reseed.evaluation.stored_sides import compare_stored
from reseed.records import Artifact, ReseedError
from reseed.results import ComparisonResult, Design, Look, MemberResult, Results, VariantResult
from reseed.store.artifacts import ArtifactStore

PROMPTS, EACH, SEEDS = 40, 3, 5
RULE = Rule(higher_is_better=True)


def table(better: float = 0.2, seeds: int = SEEDS, prompts: int = PROMPTS, seed: int = 0) -> ScoreTable:
    """Variant "new" is so much better than "old", which is as the untrained model; noise by seed, prompt and row."""
    draw = np.random.default_rng(seed)
    rows = prompts * EACH
    prompt = np.repeat(draw.normal(0, 0.1, prompts), EACH)
    columns = {"untrained": 0.5 + prompt + draw.normal(0, 0.05, rows)}
    for variant, gain in (("old", 0.0), ("new", better)):
        members = [0.5 + gain + prompt + draw.normal(0, 0.02) + draw.normal(0, 0.05, rows) for _ in range(seeds)]
        columns |= {f"member/{variant}/{number}": scores for number, scores in enumerate(members)}
        columns[f"ensemble/{variant}"] = np.mean(members, axis=0)
        if seeds > 1:
            for number in range(seeds):
                others = [scores for other, scores in enumerate(members) if other != number]
                columns[f"without/{variant}/{number}"] = np.mean(others, axis=0)
    columns |= {"constant/Rewrite it": np.full(rows, 0.45), "best constant": np.full(rows, 0.48)}
    groups = tuple(f"prompt {number // EACH}" for number in range(rows))
    return ScoreTable(tuple(f"row {number}" for number in range(rows)), groups, columns)


def by_names(found: tuple[ComparisonResult, ...]) -> dict[tuple[str, str, str], ComparisonResult]:
    return {(one.a, one.b, one.estimand): one for one in found}


def test_each_variant_is_compared_with_all_that_it_must_beat() -> None:
    found = all_comparisons(table(), "old", ["Rewrite it"], RULE)
    others = ["untrained", "constant “Rewrite it”", "best constant"]
    wanted = {("new", "old", kind) for kind in ("recipe", "ensemble")}
    wanted |= {(name, other, kind) for name in ("old", "new") for other in others for kind in ("recipe", "ensemble")}
    assert set(by_names(found)) == wanted
    new = by_names(found)["new", "old", "recipe"]
    assert new.verdict == "better"
    assert new.low is not None
    assert new.low < new.difference < (new.high or 0)
    assert (new.level, new.seeds, new.groups, new.effective_groups) == (0.95, (5, 5), PROMPTS, PROMPTS)
    assert new.adjusted_p == new.p, "one variant beside the baseline is a family of one"
    assert by_names(found)["old", "untrained", "recipe"].verdict == "undecided"


def test_baseline_may_be_any_variant_and_lower_may_be_better() -> None:
    found = by_names(all_comparisons(table(), "new", [], replace(RULE, higher_is_better=False)))
    assert found["old", "new", "recipe"].verdict == "better"
    assert found["new", "untrained", "recipe"].verdict == "worse"


def test_several_variants_are_judged_together() -> None:
    """Both variants with the untrained model: intervals at 97.5 %, and the smaller p doubled."""
    found = by_names(all_comparisons(table(), "old", [], RULE))
    old, new = found["old", "untrained", "recipe"], found["new", "untrained", "recipe"]
    assert old.level == new.level == 0.975
    assert new.p is not None
    assert old.p is not None
    assert new.adjusted_p == pytest.approx(2 * new.p)
    assert old.adjusted_p == pytest.approx(max(old.p, 2 * new.p))


def test_no_difference_beyond_delta_needs_a_delta_and_a_narrow_interval() -> None:
    same = table(better=0.0)
    verdicts = [
        by_names(all_comparisons(same, "old", [], replace(RULE, delta=delta)))["new", "old", "recipe"].verdict
        for delta in (None, 0.001, 0.2)
    ]
    assert verdicts == ["undecided", "undecided", "no difference beyond δ"]


def test_one_seed_compares_models_and_no_ensembles() -> None:
    found = all_comparisons(table(seeds=1), "old", [], RULE)
    assert {one.estimand for one in found} == {"member"}
    assert found[0].noise.seeds == 0
    assert (found[0].a, found[0].b, found[0].verdict) == ("new", "old", "better")


def test_undecided_comparison_names_a_design_that_its_power_reaches() -> None:
    found = by_names(all_comparisons(table(), "old", [], RULE))["old", "untrained", "recipe"]
    assert found.verdict == "undecided"
    assert found.power is not None
    assert found.power < 0.8
    assert found.needed is not None
    assert found.needed.power >= 0.8
    assert found.needed.seeds * found.needed.groups > SEEDS * PROMPTS


def test_what_would_settle_a_look_is_judged_as_the_last_one_and_has_more_seeds() -> None:
    plan, scores = LookPlan(3, 0, 10), table(0.03, seeds=3)

    def needed(rule: Rule) -> Design:
        found = by_names(all_comparisons(scores, "old", (), rule))["new", "old", "recipe"]
        assert found.verdict == "undecided"
        assert found.needed is not None
        return found.needed

    first = Rule(True, None, plan.level)
    assert needed(first).seeds == 10, "as if ten seeds were judged as strictly as three"
    assert needed(replace(first, last_level=plan.last_level)) == needed(Rule(True, None, plan.last_level))
    assert needed(replace(first, last_level=0.5)).seeds > 3, "the next look has more seeds, whatever three would see"


def test_groups_whose_absence_moves_it_most_come_first() -> None:
    odd = table(better=0.0)
    columns = dict(odd.columns)
    for name in columns:
        if name.startswith("member/new"):
            columns[name] = columns[name] + np.array([2.0 if group == "prompt 7" else 0.0 for group in odd.groups])
    found = all_comparisons(replace(odd, columns=columns), "old", [], RULE)[0]
    assert (found.influence[0].group, found.influence[0].rows) == ("prompt 7", EACH)
    assert abs(found.influence[0].difference) < 0.03 < found.difference


def put(
    store: ArtifactStore,
    folder: Path,
    name: str,
    scores: ScoreTable,
    metric: str = "scs",
    embedder: str = "e",
    **looked: Any,
) -> Artifact:
    """A stored result of these scores, and its `latest`."""
    step = plain_step("score", 4, KIND, name, {"problem": "p", "embedder": embedder, "of": name})
    place = folder / step.artifact.key
    place.mkdir(parents=True)
    members = tuple(MemberResult(one.seed, 0.5, 1, "adapter/x/1") for one in scores.members("old"))
    variants = tuple(VariantResult(variant, members, 0.5, None, 0.5) for variant in scores.variants())
    results = Results(
        name,
        "Is it?",
        "p",
        metric,
        True,
        len(scores.ids),
        0.5,
        variants,
        baseline="old",
        group_by="prompt",
        **looked,
    )
    save_results(results, place / "results.json")
    save_scores(scores, place / FILE)
    artifact = store.write(step, place)
    store.point(KIND, name, "latest", artifact)
    return artifact


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def test_sides_of_two_runs_are_compared_row_by_row(local: ArtifactStore, tmp_path: Path) -> None:
    first = table()
    order = np.random.default_rng(1).permutation(len(first.ids))
    moved = ScoreTable(
        tuple(first.ids[n] for n in order), tuple(first.groups[n] for n in order),
        {name: scores[order] for name, scores in first.columns.items()},
    )  # fmt: skip
    put(local, tmp_path, "one", first)
    artifact = put(local, tmp_path, "two", moved)
    within, _ = compare_stored(local, "one/new", "one/old")
    across, _ = compare_stored(local, "one/new", f"two@{artifact.key[:9]}/old")
    assert across.difference == pytest.approx(within.difference)
    assert (across.low, across.p) == (pytest.approx(within.low), pytest.approx(within.p))
    assert (across.verdict, across.b) == ("better", f"two@{artifact.key[:9]}/old")
    same, _ = compare_stored(local, "one", "two/old")
    assert (same.difference, same.verdict) == (0.0, "undecided"), "equal seeds here say nothing of others"


def test_two_sides_of_one_result_are_judged_as_it_judged_them(local: ArtifactStore, tmp_path: Path) -> None:
    """Several variants have as many chances to look better, also where one asks for one pair at a time."""
    both = table()
    stored = all_comparisons(both, "old", [], RULE)
    put(local, tmp_path, "one", both, comparisons=stored)
    own = next(found for found in stored if (found.a, found.b, found.estimand) == ("new", "untrained", "recipe"))
    assert own.level == 0.975
    found, _ = compare_stored(local, "one/new", "one/untrained")
    assert found == replace(own, a="one/new", b="one/untrained")
    turned, _ = compare_stored(local, "one/untrained", "one/new")
    assert (turned.low, turned.high, turned.seeds) == (-own.high, -own.low, (0, 5))
    assert (own.verdict, turned.verdict, turned.adjusted_p) == ("better", "worse", own.adjusted_p)
    blends, _ = compare_stored(local, "one/new/ensemble", "one/untrained")
    assert (blends.estimand, blends.level) == ("ensemble", 0.975)
    assert compare_stored(local, "one/new", "one/untrained", delta=0.01)[0].level == 0.95, "asked anew, by itself"


def test_what_an_earlier_look_decided_stays_where_its_sides_are_compared_again(
    local: ArtifactStore, tmp_path: Path
) -> None:
    first = Look(3, 0.97, "new", "old", 0.2, 0.1, 0.3, "better")
    again = replace(first, seeds=4, difference=0.0, low=-0.1, high=0.1, verdict="undecided")
    plan = LookPlan(4, 3, 5)
    equal, rule = table(0.0, seeds=4), replace(RULE, level=plan.level)
    put(
        local, tmp_path, "one", equal, looks=(first, again), most_seeds=plan.most, level=plan.level,
        comparisons=tuple(
            replace(found, verdict="better", decided_at=3) if (found.b, found.estimand) == ("old", "recipe") else found
            for found in all_comparisons(equal, "old", [], rule)
        ),
    )  # fmt: skip
    decided = {
        (a, b): compare_stored(local, f"one/{a}", f"one/{b}")[0]
        for a, b in (("new", "old"), ("old", "new"), ("new", "untrained"), ("new/ensemble", "old/ensemble"))
    }
    assert [(found.verdict, found.decided_at) for found in decided.values()] == [
        ("better", 3), ("worse", 3), ("undecided", None), ("undecided", None),
    ]  # fmt: skip
    assert decided["new", "old"].level == plan.level
    assert compare_stored(local, "one/new", "one/old", delta=1.0)[0].verdict == "no difference beyond δ", "as is asked"


@pytest.mark.parametrize(
    ("a", "b", "estimand", "seeds"),
    [
        ("one/new/ensemble", "one/old/ensemble", "ensemble", (5, 5)),
        ("one/new/ensemble", "one/untrained", "ensemble", (5, 0)),
        ("one/new/ensemble", "one/old", "recipe", (5, 5)),
        ("one/new/3", "one/old/0", "member", (1, 1)),
        ("one/new/3", "one/untrained", "member", (1, 0)),
    ],
)
def test_sides_may_be_ensembles_members_and_the_untrained_model(
    local: ArtifactStore, tmp_path: Path, a: str, b: str, estimand: str, seeds: tuple[int, int]
) -> None:
    put(local, tmp_path, "one", table())
    found, about = compare_stored(local, a, b, delta=0.01)
    assert (found.estimand, found.seeds, found.verdict) == (estimand, seeds, "better")
    assert about.experiment == "one"


def test_scores_that_cannot_be_compared_are_refused_with_what_differs(local: ArtifactStore, tmp_path: Path) -> None:
    put(local, tmp_path, "one", table())
    put(local, tmp_path, "fewer", table(prompts=30))
    put(local, tmp_path, "other", table(), embedder="another")
    put(local, tmp_path, "loss", table(), metric="log loss")
    with pytest.raises(ReseedError, match="only in the first are 30 of 120 rows, and only in the second 0 of 90"):
        compare_stored(local, "one", "fewer")
    with pytest.raises(ReseedError, match=r"scored with another embedder.*: e and another"):
        compare_stored(local, "one", "other")
    with pytest.raises(ReseedError, match="scs over groups of prompt, and log loss over groups of prompt"):
        compare_stored(local, "one", "loss")
    with pytest.raises(
        ReseedError, match=r"one/neww: the result has no 'neww' \(did you mean 'new'\?\); it has untrained, old"
    ):
        compare_stored(local, "one/neww", "one/old")
    for_ever = float("inf")
    with pytest.raises(ReseedError, match="--delta inf: wanted a difference above 0"):
        compare_stored(local, "one/new", "one/old", delta=for_ever)
    with pytest.raises(ReseedError, match="--delta -1: wanted a difference above 0"):
        compare_stored(local, "one/new", "one/old", delta=-1)
    with pytest.raises(ReseedError, match="one/old and one/old are the same scores"):
        compare_stored(local, "one", "one/old")
    with pytest.raises(ReseedError, match="artifact 'results/one/': wanted results/NAME/KEY"):
        compare_stored(local, "one@/old", "one/new")
    with pytest.raises(ReseedError, match=r"results 'none': the store .* has none"):
        compare_stored(local, "none", "one")


def test_sides_without_seeds_and_of_one_seed_are_models_and_no_recipes(local: ArtifactStore, tmp_path: Path) -> None:
    put(local, tmp_path, "one", table())
    put(local, tmp_path, "two", table(seed=1))
    put(local, tmp_path, "single", table(seeds=1))
    found = [
        compare_stored(local, a, b)[0]
        for a, b in (("one/untrained", "two/untrained"), ("single/new/ensemble", "one/old"), ("single/new", "one/old"))
    ]
    assert {one.estimand for one in found} == {"member"}
    assert [one.seeds for one in found] == [(0, 0), (1, 5), (1, 5)]
    assert found[0].power is not None


def test_no_power_is_stated_of_sides_of_different_numbers_of_seeds(local: ArtifactStore, tmp_path: Path) -> None:
    put(local, tmp_path, "one", table())
    put(local, tmp_path, "fewer", table(seeds=2))
    found, _ = compare_stored(local, "fewer/old", "one/old")
    assert (found.seeds, found.power, found.needed) == ((2, 5), None, None)


def test_constants_that_begin_alike_are_numbered() -> None:
    begin = "Improve this text, and keep the meaning of all that it says, "
    alike = [begin + end for end in ("in verse", "in prose", "in verse")]
    assert list(constant_names(alike)) == alike[:2]
    first, second = constant_names(alike).values()
    assert second == f"{first} (2)"


def test_long_group_names_take_no_room_for_each_row() -> None:
    """An array of texts would take 4 bytes a character of the longest one for every row: 600 MB here."""
    rows = np.random.default_rng(0).normal(size=4000)
    groups = ["x" * 40_000, *(f"group {n % 100}" for n in range(3999))]
    tracemalloc.start()
    compare(Side(rows), Side(rows * 0.5), groups)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
