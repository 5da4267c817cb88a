"""Engines turn prompts into text. Other modules know only this protocol; `open_engine` finds the engine by its name."""

from __future__ import annotations

import importlib
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
    """Prompts for a generator, or rows for the student, that one engine answers together; `id` begins with the key of the
    artifact that the answers are for."""

    id: str
    sampling: Sampling
    seed: int = 0
    prompts: tuple[Prompt, ...] = ()
    chat: bool = False  # the prompts are user turns, to be put into the model's chat format
    rows: tuple[Row, ...] = ()  # for the student: the problem turns them into prompts
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
        """The student's prompt for a row, cut to leave room for the answer. Raises TooLongError if it cannot be."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, adapter: Path | None = None
    ) -> list[Generation]:
        """One answer for each prompt, in order and with its id. On one machine, equal arguments give equal answers."""
        ...


def open_engine(spec: ModelSpec, batch_size: int) -> Engine:
    """Load a model into the engine that its spec names: each one's module has an `open_engine` of its own."""
    module = importlib.import_module(f"reseed.generation.engines.{spec.engine}_engine")
    opened: Engine = module.open_engine(spec, batch_size)
    return opened
