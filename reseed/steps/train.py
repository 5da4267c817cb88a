"""Train: one member's adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from reseed.language.prompts import prompt_format, rendering_mark
from reseed.models.names import ModelSpec, identity
from reseed.problems import ProblemModule, problem_identity
from reseed.records import Member
from reseed.settings import TrainingSettings
from reseed.training.job import Judge, TrainJob


@dataclass(frozen=True)
class Train:
    """An adapter trained on the partition; it continues the input `start` if there is one, whatever its variant's name.

    The number of workers and their micro-batches change the last bits, so they are in the key.
    """

    verb: ClassVar[str] = "train"
    version: ClassVar[int] = 3
    kind: ClassVar[str] = "adapter"
    problem: ProblemModule
    model: ModelSpec
    settings: TrainingSettings
    workers: int
    micro_batch_size: int
    judge: Judge | None
    member: Member  # for people, like the experiment: neither is in the key
    experiment: str

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        spec: dict[str, Any] = {
            "problem": problem_identity(self.problem),
            "model": identity(self.model),
            "training": self.settings.model_dump(mode="json", exclude={"start_from"}),
            "workers": self.workers,
            "micro_batch_size": self.micro_batch_size,
            **rendering_mark(prompt_format(self.settings)),
            **({"order": self.member.order} if self.member.order is not None else {}),
        }
        if self.judge is not None:
            judge = {"embedder": identity(self.judge.embedder), "max_new_tokens": self.judge.max_new_tokens}
            spec["judge"] = judge | ({"problem": problem_identity(self.judge.problem)} if self.judge.problem else {})
        return spec

    @property
    def run_name(self) -> str:
        """What people call the member's run."""
        return f"{self.experiment} {self.member}"

    def job(self) -> TrainJob:
        """What every rank needs to know."""
        return TrainJob(
            model=self.model,
            settings=self.settings,
            seed=self.member.seed,
            order=self.member.order,
            world=self.workers,
            micro_batch_size=self.micro_batch_size,
            judge=self.judge,
        )
