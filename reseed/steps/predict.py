"""Predict and blend: answers to the held-out rows, by the student with one adapter or none, and by an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from reseed.data.rows import open_rows
from reseed.evaluation.answers import blend, read_answers
from reseed.files import write_jsonl
from reseed.generation.engine import Batch
from reseed.language.prompts import PromptFormat, format_mark, rendering_mark
from reseed.models.names import ModelSpec, attention_mark, identity
from reseed.problems import ProblemModule, load_problem, problem_identity
from reseed.records import Generation, Sampling
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Metrics, Step


@dataclass(frozen=True)
class Predict:
    """The answers of the student with the input adapter; without one, those of the untrained student."""

    verb: ClassVar[str] = "predict"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "predictions"
    problem: ProblemModule
    engine: ModelSpec
    max_new_tokens: int
    max_tokens: int
    batch_size: int  # even greedy text depends on which rows share a batch
    style: PromptFormat

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {
            "problem": problem_identity(self.problem),
            "model": identity(self.engine),
            "sampling": {"max_new_tokens": self.max_new_tokens},
            "max_tokens": self.max_tokens,
            "batch_size": self.batch_size,
            **rendering_mark(self.style),
            **attention_mark(self.engine),
            **format_mark(self.style),
        }

    def batches(self, step: Step[Any], store: ArtifactStore) -> Sequence[Batch]:
        """The held-out rows, those of similar length together."""
        problem = load_problem(self.problem)
        rows = list(open_rows(store.fetch(step.inputs["partition"]), "test"))
        rows.sort(key=lambda row: (len(problem.prompt(row)), row["id"]))
        return [
            Batch(
                id=f"{step.artifact.key}/{start}",
                sampling=Sampling(self.max_new_tokens),
                rows=tuple(rows[start : start + self.batch_size]),
                problem=self.problem,
                max_tokens=self.max_tokens,
                style=self.style,
                adapter=step.inputs.get("adapter"),
            )
            for start in range(0, len(rows), self.batch_size)
        ]

    def keep(self, answers: Sequence[Generation], folder: Path) -> Metrics:
        """Write `predictions.jsonl`, by row id: the text, the answer in it, and how it ended."""
        problem = load_problem(self.problem)
        rows = [{**asdict(one), "answer": problem.parse(one.text)} for one in sorted(answers, key=lambda one: one.id)]
        write_jsonl(folder / "predictions.jsonl", rows)
        return {"rows": len(rows), "ended_by_themselves": sum(one.finish == "stop" for one in answers)}

    def summary(self, metrics: Metrics) -> str:
        """The outcome in a few words."""
        return f"{metrics['ended_by_themselves']} of {metrics['rows']} answers ended by themselves"


@dataclass(frozen=True)
class Blend:
    """An ensemble: the problem's blend of the members' answers, which are its inputs in order."""

    verb: ClassVar[str] = "blend"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "ensemble"
    on_ray: ClassVar[bool] = False
    problem: ProblemModule

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {"problem": problem_identity(self.problem)}

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """Write `predictions.jsonl` by row id, like a member's."""
        blended = blend(load_problem(self.problem), [read_answers(store, member) for member in step.inputs.values()])
        rows = [{"id": row_id, "answer": answer} for row_id, answer in sorted(blended.items())]
        write_jsonl(folder / "predictions.jsonl", rows)
        return {"rows": len(rows), "members": len(step.inputs)}

    def summary(self, metrics: Metrics) -> str:
        """The outcome in a few words."""
        return f"{metrics['rows']} answers of {metrics['members']} members"
