"""What turns prompts into text: everybody else knows the protocol only, and `open_engine` the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reseed.language.prompts import TEXT, PromptFormat
from reseed.models.names import ModelSpec
from reseed.problems import Problem, ProblemModule
from reseed.records import Artifact, Generation, Prompt, Row, Sampling


@dataclass(frozen=True)
class Batch:
    """Prompts for a generator, or rows for the student, that one engine answers together; `id` begins with the key of
    the artifact that the answers belong to."""

    id: str
    sampling: Sampling
    seed: int = 0
    prompts: tuple[Prompt, ...] = ()
    chat: bool = False  # the prompts are a user's turns, to be put into the model's chat format
    rows: tuple[Row, ...] = ()  # for the student: the problem makes the prompts
    problem: ProblemModule | None = None
    max_tokens: int = 0
    style: PromptFormat = TEXT
    adapter: Artifact | None = None

    def __len__(self) -> int:
        return len(self.prompts) + len(self.rows)


class Engine(Protocol):
    """A loaded model that continues prompts."""

    def chat(self, prompt: Prompt) -> Prompt:
        """A user's turn in the model's own chat format."""
        ...

    def question(
        self, problem: Problem, row: Row, sampling: Sampling, max_tokens: int, style: PromptFormat = TEXT
    ) -> Prompt:
        """The student's prompt for a row, cut so that the answer has its room. Raises TooLongError if it cannot be."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, adapter: Path | None = None
    ) -> list[Generation]:
        """One answer a prompt, in their order and with their ids; equal prompts, sampling and seed give equal answers on
        the same machine."""
        ...


def open_engine(spec: ModelSpec, batch_size: int) -> Engine:
    """The engine that runs a model."""
    from reseed.generation.engines.transformers_engine import TransformersEngine

    return TransformersEngine(spec, batch_size)
