"""What steps do, a verb or two in each file, and the ways to make an artifact: `Making`, `Asking`, and training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from reseed.generation.engine import Batch
from reseed.models.names import ModelSpec
from reseed.records import Artifact, Generation
from reseed.store.artifacts import ArtifactStore
from reseed.store.leftovers import work_folder
from reseed.store.step import Metrics, Step, Work

Write = Callable[[Path], Metrics]
"""Writes files into a folder and returns metrics for the manifest."""


class Making(Work, Protocol):
    """Work that turns files into files, where the flow runs or on one Ray worker."""

    on_ray: ClassVar[bool]

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """Write the artifact's files into `folder`."""
        ...

    def summary(self, metrics: Metrics) -> str:
        """The outcome in a few words, for the log."""
        ...


def commit(store: ArtifactStore, step: Step[Any], write: Write, spent: float = 0.0) -> tuple[Metrics, float]:
    """Store what `write` writes as the step's artifact; return its metrics and seconds, including those already `spent`."""
    started = time.monotonic()
    with work_folder() as folder:
        metrics = write(folder)
        seconds = spent + time.monotonic() - started
        store.write(step, folder, metrics, seconds)
    return metrics, seconds


def make_step(store: ArtifactStore, step: Step[Making]) -> Artifact:
    """The step's artifact, made in this process unless the store has it."""
    if store.find(step.artifact) is None:
        commit(store, step, partial(step.work.make, step, store))
    return step.artifact


class Asking(Work, Protocol):
    """Work that a pool of engines does: questions out, answers in."""

    @property
    def engine(self) -> ModelSpec:
        """The model that answers."""
        ...

    def batches(self, step: Step[Any], store: ArtifactStore) -> Sequence[Batch]:
        """The questions. One engine answers a whole batch."""
        ...

    def keep(self, answers: Sequence[Generation], folder: Path) -> Metrics:
        """Write the artifact's files from the answers to all batches, which come in any order."""
        ...

    def summary(self, metrics: Metrics) -> str:
        """The outcome in a few words, for the log."""
        ...
