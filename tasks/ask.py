"""Ask: a pool of engines answers the steps' questions, and each step is committed once its answers are complete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from reseed.generation.engine import Batch
from reseed.models.names import ModelSpec
from reseed.recipe.profile import Profile
from reseed.records import Artifact, Generation, ReseedError
from reseed.steps import Asking
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step
from tasks.engines import engine_pool
from tasks.progress import progress
from tasks.run_once import log, run_once


@task(cache_policy=NO_CACHE, task_run_name="{steps[0].verb}")
def ask(place: Profile, steps: Sequence[Step[Asking]]) -> list[Artifact]:
    """Make the steps' artifacts, with one pool of engines for each of their models."""
    store = ArtifactStore(place.store)
    missing = [step for step in steps if store.find(step.artifact) is None]
    if len(missing) < len(steps):
        log().info("%s: %d of %d are in the store", steps[0].verb, len(steps) - len(missing), len(steps))
    for model in dict.fromkeys(step.work.engine for step in missing):
        answer(place, store, model, [step for step in missing if step.work.engine == model])
    return [step.artifact for step in steps]  # so that the dashboard draws what rests on them


def answer(place: Profile, store: ArtifactStore, model: ModelSpec, steps: Sequence[Step[Asking]]) -> None:
    """Have engines of one model answer the steps' batches; commit each step when its last batch is answered."""
    open_batches = {step.artifact.key: list(step.work.batches(step, store)) for step in steps}
    if silent := [step.artifact for step in steps if not open_batches[step.artifact.key]]:
        raise ReseedError(f"{silent[0]}: there is nothing to ask, because it has no rows")
    batches: list[Batch] = [batch for own in open_batches.values() for batch in own]
    owner = {batch.id: step for step in steps for batch in open_batches[step.artifact.key]}
    answers: dict[str, list[Generation]] = {key: [] for key in open_batches}
    spent = dict.fromkeys(open_batches, 0.0)
    started, tokens = time.monotonic(), 0
    with (
        engine_pool(place, model, len(batches)) as pool,
        progress(f"{steps[0].verb}: rows", sum(map(len, batches))) as shown,
    ):
        for batch, written, seconds in pool.run(batches):
            step = owner[batch.id]
            key = step.artifact.key
            answers[key] += written
            spent[key] += seconds
            open_batches[key].remove(batch)
            tokens += sum(one.tokens for one in written)
            if not open_batches[key]:
                run_once(store, step, partial(step.work.keep, answers.pop(key)), spent[key])
            shown.advance(len(written), f"{tokens / (time.monotonic() - started):.0f} tokens/s")
