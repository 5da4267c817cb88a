"""From answers to scores: of members, each variant's ensemble, the untrained model, and fixed answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

from reseed.data.partition import rank
from reseed.evaluation.answers import Answers, blend
from reseed.evaluation.crossed import seed_noise
from reseed.evaluation.score_table import (
    BEST_CONSTANT,
    UNTRAINED,
    ScoreTable,
    constant_column,
    crossing,
    ensemble_column,
    member_column,
    without_column,
)
from reseed.evaluation.statistics import cross_fitted_choice
from reseed.problems import Problem
from reseed.records import Member, ReseedError, Row
from reseed.results import ConstantResult, MemberResult, SeedNoise, VariantResult
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
                f"{whose}: held-out rows without an answer: {len(wanted - set(answers))}; answers of no held-out row: "
                f"{len(set(answers) - wanted)}; the first {min(wanted ^ set(answers))}; predict again"
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

    def constant(self, text: str) -> NDArray[np.float64]:
        """The rows' scores of one fixed answer."""
        return self.per_row({row["id"]: text for row in self.rows}, f"constant “{one_line(text, 60)}”")


def score_all(
    scorer: Scorer,
    groups: Sequence[str],
    untrained: Answers,
    members: Mapping[Member, Answers],
    ensembles: Mapping[str, Answers],
    constants: Sequence[str],
    train_rows: Sequence[Row],
) -> tuple[ScoreTable, tuple[ConstantResult, ...]]:
    """Every row's score for everything that answered, and the constants' means.

    An ensemble is scored without each of its members, too: its seeds' part of the noise. If there are constants, the best
    of the training answers is one more.
    """
    columns = {UNTRAINED: scorer.per_row(untrained, "the untrained model")}
    for member, answers in members.items():
        columns[member_column(member)] = scorer.per_row(answers, f"variant '{member.variant}', seed {member.run}")
    for name, blended in ensembles.items():
        columns[ensemble_column(name)] = scorer.per_row(blended, f"variant '{name}', its ensemble")
        columns |= without_each_member(scorer, {m: own for m, own in members.items() if m.variant == name})
    for text in constants:
        columns[constant_column(text)] = scorer.constant(text)
    fixed = [ConstantResult(text, float(columns[constant_column(text)].mean())) for text in constants]
    if constants and (best := best_constant(scorer, train_rows, groups)) is not None:
        text, columns[BEST_CONSTANT] = best
        fixed.append(ConstantResult(text, float(columns[BEST_CONSTANT].mean()), cross_fitted=True))
    return ScoreTable(tuple(row["id"] for row in scorer.rows), tuple(groups), columns), tuple(fixed)


def without_each_member(scorer: Scorer, members: Mapping[Member, Answers]) -> dict[str, NDArray[np.float64]]:
    """The scores of the blends without one member each; none of a single member, nor of split seeds."""
    if len(members) < 2 or crossing(list(members)) is not None:
        return {}
    blends = {
        left_out: blend(scorer.problem, [own for member, own in members.items() if member != left_out])
        for left_out in members
    }
    return {
        without_column(member): scorer.per_row(
            answers, f"variant '{member.variant}', its ensemble without seed {member.run}"
        )
        for member, answers in blends.items()
    }


def variant_results(table: ScoreTable, members: Mapping[Member, TrainedMember]) -> tuple[VariantResult, ...]:
    """The variants' scores, in the order of their members."""
    results = []
    for name in dict.fromkeys(member.variant for member in members):
        own = {member: known for member, known in members.items() if member.variant == name}
        means = {member: float(table.columns[member_column(member)].mean()) for member in own}
        scored = tuple(
            MemberResult(member.seed, means[member], known.best_step, known.artifact, order=member.order)
            for member, known in own.items()
        )
        values, noise = list(means.values()), split_noise(means)
        spread = stdev(values) if len(values) > 1 else None
        if noise is not None:  # members that share a seed differ by less than those of other runs would
            spread = math.hypot(noise.initialisation, noise.order, noise.both)
        results.append(
            VariantResult(
                name,
                scored,
                mean(values),
                spread,
                float(table.columns[ensemble_column(name)].mean()),
                noise,
            )
        )
    return tuple(results)


def split_noise(means: Mapping[Member, float]) -> SeedNoise | None:
    """Where the noise of a variant's seeds comes from, from its members' mean scores; None where seeds are not split."""
    import numpy as np

    members = sorted(means)
    shape = crossing(members)
    return seed_noise(np.reshape([means[member] for member in members], shape)) if shape is not None else None


def best_constant(
    scorer: Scorer, train_rows: Sequence[Row], groups: Sequence[str], most: int = 400
) -> tuple[str, NDArray[np.float64]] | None:
    """The best training answer, chosen for each group of rows on all others: the one chosen most, and the rows' scores.

    Of more than `most` different ones so many are drawn. Chosen on the rows that it is scored on, the best of many equal
    answers would look twice as good as it is. None where there is only one group.
    """
    import numpy as np

    if len(set(groups)) < 2:
        return None
    different = {scorer.problem.completion(row).strip() for row in train_rows}
    texts = sorted(sorted(different, key=lambda text: rank(0, "constant", text))[:most])
    scorer.embed(texts)  # in large batches; the embedder caches them
    scores = np.stack([scorer.constant(text) for text in texts])
    chosen = cross_fitted_choice(scores, groups, scorer.problem.higher_is_better)
    return texts[int(np.bincount(chosen).argmax())], scores[chosen, np.arange(len(groups))]
