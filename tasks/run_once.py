"""The one mechanism behind caching, resuming and lineage: a step whose manifest exists is not run again."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from reseed.records import Artifact
from reseed.steps import Asking, Making, Write, commit
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step


def run_once(store: ArtifactStore, step: Step[Making | Asking], write: Write, spent: float = 0.0) -> Artifact:
    """Commit what `write` writes, unless the store has the artifact; `spent` are the seconds that it took so far."""
    if store.find(step.artifact) is not None:
        log().info("%s: in the store", step.artifact)
        return step.artifact
    metrics, seconds = commit(store, step, write, spent)
    log().info("%s: done in %.1f s: %s", step.artifact, seconds, step.work.summary(metrics))
    return step.artifact


def make_here(store: ArtifactStore, step: Step[Making]) -> Artifact:
    """Make the step's artifact in this process, unless the store has it."""
    return run_once(store, step, partial(step.work.make, step, store))


def log() -> Any:
    """The run's logger, whose lines the dashboard shows; outside a run, an ordinary one."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("reseed")
