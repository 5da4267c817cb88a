"""A pool of Ray actors, each of which holds an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

from reseed.generation.engine import Batch, Engine, open_engine
from reseed.models.names import ModelSpec
from reseed.problems import portable_errors
from reseed.recipe.profile import Profile
from reseed.records import Generation
from reseed.store.artifacts import ArtifactStore
from tasks.cluster import connect, store_url, without_gpu
from tasks.mistakes import raise_failures

RESTARTS = 5  # of one actor, and new actors in place of dead ones; if that is not enough, it is out of memory


class EngineActor:
    """A Ray actor that holds one engine."""

    def __init__(self, spec: ModelSpec, batch_size: int, cpus: int, store_url: str) -> None:
        self.spec, self.batch_size, self.cpus, self.store_url = spec, batch_size, cpus, store_url

    @cached_property
    def store(self) -> ArtifactStore:
        """The store, opened by the first job."""
        return ArtifactStore(self.store_url)

    @cached_property
    def engine(self) -> Engine:
        """The engine, loaded by the first job: an error here comes back as itself, one in `__init__` would not."""
        import torch

        torch.set_num_threads(self.cpus)
        return open_engine(self.spec, self.batch_size)

    @portable_errors()
    def run(self, job: Batch) -> list[Generation]:
        """Answer one job."""
        from reseed.language.tokens import TooLongError
        from reseed.problems import load_problem

        adapter = self.store.fetch(job.adapter) / "adapter" if job.adapter is not None else None
        prompts = [self.engine.chat(p) for p in job.prompts] if job.chat else list(job.prompts)
        unanswered = []
        if job.problem is not None:
            problem = load_problem(job.problem)
            for row in job.rows:
                try:
                    prompts.append(self.engine.question(problem, row, job.sampling, job.max_tokens, job.style))
                except TooLongError:
                    unanswered.append(Generation(row["id"], "", "too-long", 0))
        return [*self.engine.generate(prompts, job.sampling, job.seed, adapter), *unanswered]


class EnginePool:
    """Engine actors that take the next job whenever they are free. Ray restarts an actor that dies, and its job."""

    def __init__(self, profile: Profile, spec: ModelSpec, jobs: int) -> None:
        import ray

        need = profile.engines
        actor = ray.remote(EngineActor).options(
            num_cpus=need.cpus, num_gpus=need.gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS,
            **without_gpu(need.gpus),
        )  # fmt: skip
        self.start: Callable[[], Any] = partial(actor.remote, spec, need.batch_size, need.cpus, store_url(profile))
        self.successors = 0
        self.running: dict[Any, tuple[Any, Batch, float]] = {}
        self.actors = [self.start() for _ in range(min(need.actors, jobs))]

    def run(self, jobs: Sequence[Batch]) -> Iterator[tuple[Batch, list[Generation], float]]:
        """Yield each batch with its answers and the seconds they took, in the order of completion.

        Failures are raised when all other batches are done.
        """
        import ray

        waiting = list(jobs)[::-1]
        running = self.running
        failed: dict[str, Exception] = {}

        def hand_out(actor: Any) -> None:
            if waiting:
                job = waiting.pop()
                running[actor.run.remote(job)] = (actor, job, time.monotonic())

        for actor in self.actors:
            hand_out(actor)
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, job, started = running.pop(done)
            answers: list[Generation] | None = None
            try:
                answers = ray.get(done)
            except ray.exceptions.RayError as error:
                failed[job.id] = error
                if isinstance(error, ray.exceptions.ActorDiedError):
                    actor = self._successor(actor)
            hand_out(actor)  # before the caller does something with the answers
            if answers is not None:
                yield job, answers, time.monotonic() - started
        if failed:
            raise_failures(failed, len(jobs))

    def _successor(self, dead: Any) -> Any:
        """A new actor for one that Ray no longer restarts, which would at once fail every waiting job.

        After `RESTARTS` successors that is what happens: the dead one is returned.
        """
        if self.successors == RESTARTS:
            return dead
        self.successors += 1
        new = self.start()
        self.actors = [new if actor is dead else actor for actor in self.actors]
        return new

    def close(self) -> None:
        """End the actors and free what they hold. Jobs that are left are cancelled first: else Ray would print of each,
        perhaps after the command's last line, that it will be retried."""
        import ray

        for job in self.running:
            ray.cancel(job)
        for actor in self.actors:
            ray.kill(actor)


@contextmanager
def engine_pool(profile: Profile, spec: ModelSpec, jobs: int) -> Iterator[EnginePool]:
    """A pool that lives as long as the block."""
    connect(profile)
    pool = EnginePool(profile, spec, jobs)
    try:
        yield pool
    finally:
        pool.close()
