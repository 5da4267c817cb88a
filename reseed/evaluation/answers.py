"""Answers to the held-out rows: a member's, or an ensemble's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reseed.files import read_jsonl
from reseed.problems import Problem
from reseed.records import Artifact, ReseedError
from reseed.store.artifacts import ArtifactStore

Answers = Mapping[str, str]
"""Row id → answer."""


def read_answers(store: ArtifactStore, predictions: Artifact) -> Answers:
    """The answers of a member or an ensemble. Raises ReseedError if a row is answered twice."""
    rows = read_jsonl(store.fetch(predictions) / "predictions.jsonl")
    answers = {str(row["id"]): str(row["answer"]) for row in rows}
    if len(answers) != len(rows):
        raise ReseedError(
            f"{predictions}: rows answered twice: {len(rows) - len(answers)}; remove it and predict again"
        )
    return answers


def blend(problem: Problem, answers: Sequence[Answers]) -> dict[str, str]:
    """The problem's blend of several members' answers, row by row. All must have answered the same rows."""
    for other in answers[1:]:
        if unshared := set(other) ^ set(answers[0]):
            raise ReseedError(f"predictions: rows that not every member answered: {len(unshared)}; predict again")
    return {row_id: problem.blend([member[row_id] for member in answers]) for row_id in answers[0]}
