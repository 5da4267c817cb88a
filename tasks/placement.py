"""Placing work on Ray: the connection, and a pool of engine actors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reseed.models.names import ModelSpec
from reseed.profile import Profile
from reseed.records import Artifact, Generation, Prompt, ReseedError, Row, Sampling

RESTARTS = 5  # of one actor: a machine that keeps killing it is out of memory, and trying for ever would hide that


_connecting = threading.Lock()


def connect(profile: Profile) -> None:
    """Join the cluster that RAY_ADDRESS or the profile names, or start a local Ray in this process."""
    import ray

    with _connecting:
        if not ray.is_initialized():
            start_ray(profile)


def start_ray(profile: Profile) -> None:
    """`ray.init` with what this machine and profile say."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS") or profile.ray_address
    local: dict[str, Any] = {"num_cpus": profile.cpus, "include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="warning", **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ReseedError(
            f"Ray at '{address}' cannot be joined ({error}); start it, mend RAY_ADDRESS or the profile's ray_address, "
            "and share its token (RAY_AUTH_TOKEN_PATH)"
        ) from error


def store_url(profile: Profile) -> str:
    """The store's address for workers, whose working folder is another one."""
    return profile.store if "://" in profile.store else str(Path(profile.store).expanduser().absolute())


_slots: dict[int, threading.BoundedSemaphore] = {}
_slots_lock = threading.Lock()


@contextmanager
def training_slot(profile: Profile) -> Iterator[None]:
    """Wait until the cluster has room for one more member: those that do not fit would only wait inside Ray."""
    import ray

    need = profile.training
    resources = ray.cluster_resources()
    room = [int(resources.get("CPU", 0) // (need.workers * need.cpus))]
    if need.gpus:
        room.append(int(resources.get("GPU", 0) // (need.workers * need.gpus)))
    if min(room) < 1:
        raise ReseedError(
            f"training: {need.workers} workers of {need.cpus} CPU and {need.gpus} GPU each do not fit into this Ray with "
            f"{resources.get('CPU', 0):.0f} CPU and {resources.get('GPU', 0):.0f} GPU; lower the profile's training section"
        )
    with _slots_lock:
        slot = _slots.setdefault(min(room), threading.BoundedSemaphore(min(room)))
    with slot:
        yield


@dataclass(frozen=True)
class Job:
    """One batch of prompts for an engine, or of rows for the student; `id` names it among the others."""

    id: str
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    seed: int
    chat: bool = False  # the prompts are a user's turns, to be put into the model's chat format
    rows: tuple[Row, ...] = ()  # for the student: the problem makes the prompts
    problem: str = ""
    max_tokens: int = 0
    adapter: Artifact | None = None


class EngineActor:
    """A Ray actor that holds one engine."""

    def __init__(self, spec: ModelSpec, batch_size: int, cpus: int, store_url: str) -> None:
        import torch

        from reseed.generation.transformers_engine import TransformersEngine
        from reseed.store import ArtifactStore

        torch.set_num_threads(cpus)
        self.store = ArtifactStore(store_url)
        self.engine = TransformersEngine(spec, batch_size)

    def run(self, job: Job) -> list[Generation]:
        """The job's answers."""
        from reseed.problems import load_problem

        adapter = self.store.fetch(job.adapter) / "adapter" if job.adapter is not None else None
        prompts = list(job.prompts)
        if job.chat:
            prompts = [Prompt(p.id, self.engine.chat(p.text)) for p in prompts]
        if job.rows:
            problem = load_problem(job.problem)
            prompts = [
                Prompt(row["id"], self.engine.question(problem, row, job.sampling, job.max_tokens)) for row in job.rows
            ]
        return self.engine.generate(prompts, job.sampling, job.seed, adapter, templated=job.chat)


class EnginePool:
    """Engine actors that each take the next job when they are free. Ray restarts an actor that dies, and its job."""

    def __init__(self, profile: Profile, spec: ModelSpec, jobs: int) -> None:
        import ray

        need = profile.engines
        actor = ray.remote(EngineActor).options(
            num_cpus=need.cpus, num_gpus=need.gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS
        )
        self.actors = [
            actor.remote(spec, need.batch_size, need.cpus, store_url(profile)) for _ in range(min(need.actors, jobs))
        ]

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Generation]]]:
        """Each job with its answers, as they are done. A job that fails is told of when all others are done."""
        import ray

        waiting = list(jobs)[::-1]
        running: dict[Any, tuple[Any, Job]] = {}
        failed: dict[str, Exception] = {}
        for actor in self.actors:
            if waiting:
                job = waiting.pop()
                running[actor.run.remote(job)] = (actor, job)
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, job = running.pop(done)
            if waiting:
                following = waiting.pop()
                running[actor.run.remote(following)] = (actor, following)
            try:
                answers = ray.get(done)
            except ray.exceptions.RayError as error:
                failed[job.id] = error
                continue
            yield job, answers
        if failed:
            raise_failures(failed, len(jobs))

    def close(self) -> None:
        """End the actors and free what they hold."""
        import ray

        for actor in self.actors:
            ray.kill(actor)


def raise_failures(failed: dict[str, Exception], total: int) -> None:
    """One error for all failed jobs; a mistake of the user's stays what it is."""
    name, error = next(iter(failed.items()))
    cause = getattr(error, "cause", None)
    if isinstance(cause, ReseedError):
        raise cause
    raise ReseedError(
        f"{len(failed)} of {total} jobs failed, the first is {name}: {str(error).strip().splitlines()[-1]}; "
        "the others are done and kept, start the same command again"
    ) from error


@contextmanager
def engine_pool(profile: Profile, spec: ModelSpec, jobs: int) -> Iterator[EnginePool]:
    """A pool for as long as the block runs."""
    connect(profile)
    pool = EnginePool(profile, spec, jobs)
    try:
        yield pool
    finally:
        pool.close()
