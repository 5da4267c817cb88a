"""Make: turn files into files, here or on one Ray worker, unless the store has them."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from reseed.problems import portable_errors
from reseed.recipe.profile import Profile
from reseed.records import Artifact
from reseed.steps import Making, make_step
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step
from tasks.cluster import connect, store_url, without_gpu
from tasks.mistakes import unwrap_errors
from tasks.run_once import log, make_here


@task(cache_policy=NO_CACHE, task_run_name="{step.verb}")
def make(place: Profile, step: Step[Making]) -> Artifact:
    """Make the step's artifact, unless the store has it."""
    store = ArtifactStore(place.store)
    if step.work.on_ray and store.find(step.artifact) is None:
        make_on_ray(place, step)
        made = store.manifest(step.artifact)
        log().info("%s: done in %.1f s: %s", step.artifact, made.seconds, step.work.summary(made.metrics))
        return step.artifact
    return make_here(store, step)


def make_on_ray(place: Profile, step: Step[Making]) -> None:
    """Make it on a worker with an engine's resources, which also commits the files: they need not travel back."""
    import ray

    connect(place)
    need = place.engines
    options: dict[str, Any] = {"num_cpus": need.cpus, "num_gpus": need.gpus, "max_retries": 2}
    worker = ray.remote(**options, **without_gpu(need.gpus))(make_in_worker)
    with unwrap_errors():
        ray.get(worker.remote(store_url(place), step))


def make_in_worker(url: str, step: Step[Making]) -> None:
    """Make the step's artifact, in the worker."""
    with portable_errors():
        make_step(ArtifactStore(url), step)
