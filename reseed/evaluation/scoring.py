"""From answers to scores: of members, each variant's ensemble, the untrained model, and fixed answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

from reseed.evaluation.answers import Answers
from reseed.problems import Problem
from reseed.records import ConstantResult, Interval, Member, MemberResult, ReseedError, Row, VariantResult
from reseed.text import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reseed.problems import Embed


@dataclass(frozen=True)
class TrainedMember:
    """What is known about a member besides its answers."""

    best_step: int
    artifact: str


@dataclass(frozen=True)
class Scores:
    """The scores of one experiment."""

    untrained: float
    variants: tuple[VariantResult, ...]
    constants: tuple[ConstantResult, ...]
    gain: Interval


class Scorer:
    """The problem's metric over the held-out rows."""

    def __init__(self, problem: Problem, rows: Sequence[Row], embed: Embed) -> None:
        self.problem, self.rows, self.embed = problem, rows, embed

    def per_row(self, answers: Answers, whose: str = "predictions") -> NDArray[np.float64]:
        """The metric of each held-out row, joined by id. Every row must be answered exactly once, and no other.

        Raises `ReseedError` for a score that is not finite: a single NaN would make every mean NaN.
        """
        wanted = {row["id"] for row in self.rows}
        if wanted != set(answers):
            raise ReseedError(
                f"{whose}: {len(wanted - set(answers))} held-out rows have no answer and {len(set(answers) - wanted)} "
                "answers belong to no held-out row; predict again"
            )
        try:
            scores = self.problem.scores([answers[row["id"]] for row in self.rows], self.rows, self.embed)
        except ReseedError as error:
            raise ReseedError(f"{whose}: {error}") from error
        self.check_finite(scores, answers, whose)
        return scores

    def check_finite(self, scores: NDArray[np.float64], answers: Answers, whose: str) -> None:
        """Refuse scores that are NaN or infinite, naming the row."""
        import numpy as np

        wrong = np.flatnonzero(~np.isfinite(scores))
        if len(wrong):
            row_id = self.rows[wrong[0]]["id"]
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise ReseedError(
                f"{whose}: row {row_id}{more} scores {scores[wrong[0]]} for the answer “{one_line(answers[row_id], 60)}”; "
                f"wanted a finite {self.problem.metric}: let `scores` of problem '{self.problem.name}' give every answer "
                "a number, or use an embedder that does, and run again; what was trained and predicted is kept"
            )

    def constant(self, text: str) -> float:
        """The mean score of one fixed answer."""
        return float(self.per_row({row["id"]: text for row in self.rows}, f"constant “{one_line(text, 60)}”").mean())


def score_experiment(
    scorer: Scorer,
    untrained: Answers,
    members: Mapping[Member, tuple[TrainedMember, Answers]],
    ensembles: Mapping[str, Answers],
    constants: Sequence[str],
    train_rows: Sequence[Row],
) -> Scores:
    """Score everything. If there are constants, the best of the training answers is scored as one more."""
    base = scorer.per_row(untrained, "the untrained model")
    variants = []
    gain: Interval | None = None
    for name in dict.fromkeys(member.variant for member in members):
        own = {member: value for member, value in members.items() if member.variant == name}
        scored = tuple(score_member(scorer, member, *value) for member, value in own.items())
        blended = scorer.per_row(ensembles[name], f"variant '{name}', its ensemble")
        gain = gain or paired_interval(blended, base)
        values = [member.score for member in scored]
        spread = stdev(values) if len(values) > 1 else None
        variants.append(VariantResult(name, scored, mean(values), spread, float(blended.mean())))
    assert gain is not None  # a recipe has at least one variant
    fixed = [ConstantResult(text, scorer.constant(text)) for text in constants]
    if constants:
        fixed.append(best_constant(scorer, train_rows))
    return Scores(float(base.mean()), tuple(variants), tuple(fixed), gain)


def score_member(scorer: Scorer, member: Member, trained: TrainedMember, answers: Answers) -> MemberResult:
    """One member's mean score."""
    scores = scorer.per_row(answers, f"variant '{member.variant}', seed {member.seed}")
    return MemberResult(member.seed, float(scores.mean()), trained.best_step, trained.artifact)


def paired_interval(better: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
    """The mean of the rows' differences with its 95 % normal interval, which has no width if there is only one row."""
    import numpy as np

    difference = better - base
    spread = float(np.std(difference, ddof=1)) if len(difference) > 1 else 0.0
    return Interval(float(difference.mean()), 1.96 * spread / float(np.sqrt(len(difference))))


def best_constant(scorer: Scorer, train_rows: Sequence[Row], most: int = 400) -> ConstantResult:
    """The training answer that scores best on all held-out rows; chosen on those rows, so it is a high bar."""
    texts = sorted({scorer.problem.completion(row).strip() for row in train_rows})[:most]
    scorer.embed(texts)  # in large batches; the embedder caches them
    scored = [ConstantResult(text, scorer.constant(text)) for text in texts]
    sign = 1 if scorer.problem.higher_is_better else -1
    return max(scored, key=lambda result: sign * result.score)
