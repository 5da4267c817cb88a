from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from reseed.evaluation.answers import Answers, blend
from reseed.evaluation.comparisons import Rule, all_comparisons
from reseed.evaluation.score_table import FILE, ScoreTable, load_scores, save_scores
from reseed.evaluation.scoring import Scorer, TrainedMember, best_constant, score_all, variant_results
from reseed.problems import load_problem
from reseed.records import Member, ReseedError, Row
from reseed.results import ConstantResult, VariantResult

if TYPE_CHECKING:
    from reseed.problems import Embed

PROBLEM = load_problem("prompt-recovery")
ROWS = [PROBLEM.row(f"text {n}", prompt, f"other {n}") for n, prompt in enumerate(["sea", "sky", "sea", "sun"])]
TRAIN = [PROBLEM.row(f"train {n}", prompt, "x") for n, prompt in enumerate(["sun", "moon", "sea", "sea", "sky"])]


@dataclass
class Letters:
    """Texts as unit vectors over their distinct words; counts what it is asked."""

    asked: list[str] = field(default_factory=list)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        vocabulary = ["sea", "sky", "sun", "moon", "."]
        counts = np.array([[text.split().count(word) for word in vocabulary] for text in texts], dtype=np.float32)
        return np.asarray(counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def distance(answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
    """The number of characters too many or too few: lower is better."""
    pairs = zip(answers, rows, strict=True)
    return np.array([abs(len(answer) - len(row["rewrite_prompt"])) for answer, row in pairs], dtype=np.float64)


DISTANCE = replace(PROBLEM, metric="distance", higher_is_better=False, scores=distance)


def answered(*texts: str) -> dict[str, str]:
    """The held-out rows' answers, in another order than the rows."""
    return dict(reversed([(row["id"], text) for row, text in zip(ROWS, texts, strict=True)]))


def trained_and_answers(seed: int, *texts: str) -> tuple[TrainedMember, Answers]:
    return TrainedMember(best_step=10 * seed, artifact=f"adapter/a/{seed}"), answered(*texts)


def ensembles_of(members: dict[Member, tuple[TrainedMember, Answers]]) -> dict[str, Answers]:
    """The blend of every variant's members."""
    names = {member.variant for member in members}
    own = {name: [answers for member, (_, answers) in members.items() if member.variant == name] for name in names}
    return {name: blend(PROBLEM, answers) for name, answers in own.items()}


@dataclass
class Scores:
    """What an experiment of these members finds."""

    table: ScoreTable
    variants: tuple[VariantResult, ...]
    constants: tuple[ConstantResult, ...]

    @property
    def untrained(self) -> float:
        return float(self.table.columns["untrained"].mean())


GROUPS = [row["rewrite_prompt"] for row in ROWS]


def scored(members: dict[Member, tuple[TrainedMember, Answers]], constants: Sequence[str] = ()) -> Scores:
    return scored_by(Scorer(PROBLEM, ROWS, Letters()), GROUPS, answered("sky", "sky", "sky", "sky"), members, constants)


def scored_by(
    scorer: Scorer, groups: list[str], untrained: Answers, members: dict[Member, tuple[TrainedMember, Answers]],
    constants: Sequence[str] = (),
) -> Scores:  # fmt: skip
    answers = {member: own for member, (_, own) in members.items()}
    table, fixed = score_all(scorer, groups, untrained, answers, ensembles_of(members), constants, TRAIN)
    return Scores(table, variant_results(table, {member: known for member, (known, _) in members.items()}), fixed)


def test_members_mean_deviation_and_blend_by_hand() -> None:
    scores = scored(
        {
            Member("a", 1): trained_and_answers(1, "sea", "sky", "sea", "sun"),  # 4 of 4
            Member("a", 2): trained_and_answers(2, "sea", "sky", "moon", "moon"),  # 2 of 4
            Member("b", 1): trained_and_answers(1, "moon", "moon", "moon", "sun"),  # 1 of 4
        }
    )
    a, b = scores.variants
    assert scores.untrained == 0.25
    assert (a.name, [m.seed for m in a.members], [m.score for m in a.members]) == ("a", [1, 2], [1.0, 0.5])
    assert [(m.best_step, m.artifact) for m in a.members] == [(10, "adapter/a/1"), (20, "adapter/a/2")]
    assert a.mean == 0.75
    assert a.std == pytest.approx(stdev([1.0, 0.5])) == pytest.approx(math.sqrt(0.125))
    # the blends are "sea", "sky", "sea moon", "sun moon"; the cosine of the last two to the truth is 1/√2
    half = (1 / math.sqrt(2)) ** 3
    assert a.ensemble == pytest.approx((1 + 1 + 2 * half) / 4)
    assert (b.mean, b.std, b.ensemble) == (0.25, None, 0.25), "one seed has no deviation"


def test_ensemble_is_scored_without_each_member_too() -> None:
    table = scored(
        {
            Member("a", 1): trained_and_answers(1, "sea", "sky", "sea", "sun"),
            Member("a", 2): trained_and_answers(2, "sea", "sky", "moon", "moon"),
            Member("b", 1): trained_and_answers(1, "moon", "moon", "moon", "sun"),
        }
    ).table
    assert table.columns["without/a/1"].tolist() == table.columns["member/a/2"].tolist()
    assert "without/b/1" not in table.columns, "an ensemble of one has none to be without"
    side = table.ensemble("a")
    assert side.seeds is not None
    blended, other = table.columns["ensemble/a"], table.columns["member/a/2"]
    assert side.seeds[0].tolist() == pytest.approx((2 * blended - other).tolist())
    single = table.ensemble("b").seeds
    assert single is not None
    assert len(single) == 1
    assert (table.variants(), [one.seed for one in table.members("a")]) == (["a", "b"], [1, 2])


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    table = scored({Member("a/1 b", 1): trained_and_answers(1, "sea", "sky", "sea", "sun")}, ["moon"]).table
    save_scores(table, tmp_path / FILE)
    back = load_scores(tmp_path, "results/x/1")
    assert (back.ids, back.groups, list(back.columns)) == (table.ids, table.groups, list(table.columns))
    assert all((back.columns[name] == scores).all() for name, scores in table.columns.items())
    assert back.members("a/1 b") == (Member("a/1 b", 1),)
    with pytest.raises(ReseedError, match=r"results/x/1: it has no scores\.parquet, as an older version scored it"):
        load_scores(tmp_path / "elsewhere", "results/x/1")


def test_one_held_out_row_has_no_verdict() -> None:
    row = ROWS[:1]
    answer = {row[0]["id"]: "sea"}
    members: dict[Member, tuple[TrainedMember, Answers]] = {Member("a", 0): (TrainedMember(1, "x"), answer)}
    table = scored_by(Scorer(PROBLEM, row, Letters()), ["sea"], answer, members, ["moon"]).table
    found = all_comparisons(table, "a", ["moon"], Rule(higher_is_better=True))
    assert [(one.b, one.estimand, one.verdict, one.low) for one in found] == [
        ("untrained", "member", None, None), ("constant “moon”", "member", None, None),
    ]  # fmt: skip


def test_scores_join_by_id_and_not_by_position() -> None:
    scorer = Scorer(PROBLEM, ROWS, Letters())
    assert scorer.per_row(answered("sea", "moon", "sea", "moon")).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("missing", "extra"), [(1, 0), (0, 1), (2, 1)])
def test_answer_that_is_missing_or_too_many_is_reported(missing: int, extra: int) -> None:
    given = dict(list(answered("sea", "sky", "sea", "sun").items())[missing:]) | dict.fromkeys("x" * extra, "sea")
    with pytest.raises(ReseedError) as caught:
        Scorer(PROBLEM, ROWS, Letters()).per_row(given)
    message = str(caught.value)
    assert f"held-out rows without an answer: {missing}; answers of no held-out row: {extra};" in message


def test_member_that_skips_a_row_is_reported_in_the_experiment() -> None:
    short = {row_id: text for row_id, text in answered("sea", "sky", "sea", "sun").items() if row_id != ROWS[0]["id"]}
    whole = trained_and_answers(0, "sea", "sky", "sea", "sun")
    with pytest.raises(ReseedError, match="held-out rows without an answer: 1;"):
        scored({Member("a", 0): (TrainedMember(1, "x"), short)})
    with pytest.raises(ReseedError, match="rows that not every member answered: 1;"):
        blend(PROBLEM, [whole[1], short])


def ratio(answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
    """A metric that divides by nothing: 0/0 for an answer without letters, which is NaN, or 1/0, which is infinite."""
    with np.errstate(all="ignore"):
        return np.array([np.float64(answer == "inf") / len(answer.replace("inf", "")) for answer in answers])


RATIO = replace(DISTANCE, scores=ratio)


def by_ratio(
    untrained: Answers, members: dict[Member, tuple[TrainedMember, Answers]], constants: Sequence[str]
) -> Scores:
    scorer = Scorer(RATIO, ROWS, Letters())
    return scored_by(scorer, GROUPS, untrained, members, constants)


@pytest.mark.parametrize(("bad", "value"), [("", "nan"), ("inf", "inf")])
@pytest.mark.parametrize("others", [0, 2])
def test_score_that_is_not_finite_is_refused_with_its_member_and_row(bad: str, value: str, others: int) -> None:
    good = {Member("a", seed): trained_and_answers(seed, "sea", "sea", "sea", "sea") for seed in range(others)}
    members = good | {Member("a", 7): trained_and_answers(7, "sea", bad, "sea", bad)}
    with pytest.raises(ReseedError) as caught:
        scored_by(Scorer(RATIO, ROWS, Letters()), GROUPS, answered("x", "x", "x", "x"), members)
    message = str(caught.value)
    assert message.startswith(
        f"variant 'a', seed 7: row {ROWS[1]['id']} (and 1 more) scores {value} for the answer “{bad}”"
    )
    assert "wanted a finite distance: let `scores` of problem 'prompt-recovery' give every answer a number" in message
    assert "run again; what was trained and predicted is kept" in message


@pytest.mark.parametrize(
    ("untrained", "answer", "constants", "whose"),
    [
        ("", "x", [], "the untrained model: row "),
        ("x", "x", ["fine", "\x1b[31m", ""], "constant “”: row "),
        ("x", "", [], "variant 'a', seed 0: row "),
    ],
)
def test_whoever_scores_nan_is_named(untrained: str, answer: str, constants: list[str], whose: str) -> None:
    members: dict[Member, tuple[TrainedMember, Answers]] = {Member("a", 0): trained_and_answers(0, *[answer] * 4)}
    with pytest.raises(ReseedError, match=whose):
        scored_by(Scorer(RATIO, ROWS, Letters()), GROUPS, answered(*[untrained] * 4), members, constants)


def test_ensemble_that_scores_nan_is_kept_apart_from_its_members() -> None:
    members: dict[Member, tuple[TrainedMember, Answers]] = {Member("a", 0): trained_and_answers(0, "x", "x", "x", "x")}
    nothing = {"a": answered("", "", "", "")}
    answers = {member: own for member, (_, own) in members.items()}
    with pytest.raises(ReseedError, match="variant 'a', its ensemble: row"):
        score_all(Scorer(RATIO, ROWS, Letters()), GROUPS, answered("x", "x", "x", "x"), answers, nothing, [], TRAIN)


def test_what_a_problem_says_of_its_scores_is_reported_with_whose_they_are() -> None:
    def few(answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
        raise ReseedError("problem 'own': scores gave too few")

    with pytest.raises(ReseedError, match="the untrained model: problem 'own': scores gave too few"):
        Scorer(replace(PROBLEM, scores=few), ROWS, Letters()).per_row(answered(*"abcd"), "the untrained model")


def test_blank_answers_are_scored() -> None:
    assert Scorer(PROBLEM, ROWS, Letters()).per_row(answered("", "", "", "sun")).tolist() == [0, 0, 0, 1]


def test_blend_is_the_problems_row_by_row() -> None:
    assert blend(PROBLEM, [answered("a", "b", "c", "d"), answered("a", "x", "", "d")]) == answered("a", "b x", "c", "d")


def test_constants_are_scored_and_the_best_training_answer_with_them() -> None:
    scores = scored({Member("a", 0): trained_and_answers(0, "sea", "sky", "sea", "sun")}, constants=["moon", "sky"])
    assert [(c.text, c.score) for c in scores.constants] == [("moon", 0.0), ("sky", 0.25), ("sea", 0.0)]
    assert scored({Member("a", 0): trained_and_answers(0, "sea", "sky", "sea", "sun")}).constants == ()


def test_best_constant_is_chosen_on_other_groups_than_it_is_scored_on() -> None:
    """For the rows of "sea" the others choose "sky", for those of "sky" and "sun" the others choose "sea": all are wrong."""
    best = best_constant(Scorer(PROBLEM, ROWS, Letters()), TRAIN, GROUPS)
    assert best is not None
    assert (best[0], best[1].tolist()) == ("sea", [0.0, 0.0, 0.0, 0.0])
    assert best_constant(Scorer(PROBLEM, ROWS, Letters()), TRAIN, ["one"] * 4) is None, "nothing to choose it on"


def test_best_constant_of_a_metric_that_should_be_low() -> None:
    train = [PROBLEM.row("x", prompt, "y") for prompt in ("a long one", "abc", "abcdef")]
    best = best_constant(Scorer(DISTANCE, ROWS, Letters()), train, GROUPS)
    assert best is not None
    assert (best[0], best[1].tolist()) == ("abc", [0.0] * 4)


def test_experiment_of_a_metric_that_should_be_low() -> None:
    members: dict[Member, tuple[TrainedMember, Answers]] = {
        Member("a", 0): trained_and_answers(0, "abc", "abc", "abcd", "abcd")
    }
    scores = scored_by(Scorer(DISTANCE, ROWS, Letters()), GROUPS, answered("a", "a", "a", "a"), members, ["abcde"])
    assert (scores.untrained, scores.variants[0].mean) == (2.0, 0.5)
    found = all_comparisons(scores.table, "a", ["abcde"], Rule(higher_is_better=False))
    assert found[0].difference == -1.5, "the difference itself"
    assert (found[0].b, found[0].verdict) == ("untrained", "better")
    assert (scores.constants[0].text, scores.constants[0].score) == ("abcde", 2.0)


def test_candidates_are_limited() -> None:
    many = [PROBLEM.row("x", f"sea {n:03d}", "y") for n in range(50)]
    embed = Letters()
    best_constant(Scorer(PROBLEM, ROWS, embed), many, GROUPS, most=7)
    assert len({text for text in embed.asked if text.startswith("sea ")}) == 7
