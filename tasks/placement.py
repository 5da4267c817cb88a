"""Placing work on Ray: who may run when, and a pool of engine actors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reseed.models.names import ModelSpec
from reseed.problems import ProblemModule
from reseed.profile import Profile
from reseed.records import Artifact, Generation, Prompt, ReseedError, Row, Sampling
from reseed.store import ArtifactStore
from reseed.training.prompts import TEXT, PromptFormat
from tasks.cluster import connect, without_gpu
from tasks.mistakes import raise_failures

if TYPE_CHECKING:
    from reseed.generation.transformers_engine import TransformersEngine

T = TypeVar("T")
RESTARTS = 5  # of one actor, and actors in its place: a machine that keeps killing them is out of memory, say so


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
    waited_for(lambda: slot.acquire(blocking=False))
    try:
        yield
    finally:
        slot.release()


_stopped = threading.Event()


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C and a cancelled flow run reach the main thread alone: let the threads that wait for Ray give up too."""
    _stopped.clear()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            _stopped.set()
        raise


def waited_for(ready: Callable[[], bool], every: float = 0.1) -> None:
    """Wait until `ready`, or raise KeyboardInterrupt because the flow was stopped."""
    while not ready():
        if _stopped.wait(every):
            raise KeyboardInterrupt


def awaited(work: Callable[[], T]) -> T:
    """The result of work that waits for Ray, given up when the flow is stopped; Ray ends with the flow."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    waited_for(result.done)
    return result.result()


@dataclass(frozen=True)
class Job:
    """One batch of prompts for an engine, or of rows for the student; `id` names it among the others."""

    id: str
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    seed: int
    chat: bool = False  # the prompts are a user's turns, to be put into the model's chat format
    rows: tuple[Row, ...] = ()  # for the student: the problem makes the prompts
    problem: ProblemModule | None = None
    max_tokens: int = 0
    style: PromptFormat = TEXT
    adapter: Artifact | None = None


class EngineActor:
    """A Ray actor that holds one engine."""

    def __init__(self, spec: ModelSpec, batch_size: int, cpus: int, store_url: str) -> None:
        self.spec, self.batch_size, self.cpus, self.store_url = spec, batch_size, cpus, store_url

    @cached_property
    def store(self) -> ArtifactStore:
        """The store, opened by the first job."""
        return ArtifactStore(self.store_url)

    @cached_property
    def engine(self) -> TransformersEngine:
        """The engine, loaded by the first job: an error here would come back as itself, one in `__init__` would not."""
        import torch

        from reseed.generation.transformers_engine import TransformersEngine

        torch.set_num_threads(self.cpus)
        return TransformersEngine(self.spec, self.batch_size)

    def run(self, job: Job) -> list[Generation]:
        """The job's answers."""
        from reseed.problems import load_problem
        from reseed.training.tokens import TooLongError

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
    """Engine actors that each take the next job when they are free. Ray restarts an actor that dies, and its job."""

    def __init__(self, profile: Profile, spec: ModelSpec, jobs: int) -> None:
        import ray

        need = profile.engines
        actor = ray.remote(EngineActor).options(
            num_cpus=need.cpus, num_gpus=need.gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS,
            **without_gpu(need.gpus),
        )  # fmt: skip
        self.start: Callable[[], Any] = partial(actor.remote, spec, need.batch_size, need.cpus, store_url(profile))
        self.successors = 0
        self.actors = [self.start() for _ in range(min(need.actors, jobs))]

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Generation]]]:
        """Each job with its answers, as they are done. A job that fails is told of when all others are done."""
        import ray

        waiting = list(jobs)[::-1]
        running: dict[Any, tuple[Any, Job]] = {}
        failed: dict[str, Exception] = {}

        def hand_out(actor: Any) -> None:
            if waiting:
                job = waiting.pop()
                running[actor.run.remote(job)] = (actor, job)

        for actor in self.actors:
            hand_out(actor)
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, job = running.pop(done)
            answers: list[Generation] | None = None
            try:
                answers = ray.get(done)
            except ray.exceptions.RayError as error:
                failed[job.id] = error
                if isinstance(error, ray.exceptions.ActorDiedError):
                    actor = self._successor(actor)
            hand_out(actor)  # before the caller does something with the answers
            if answers is not None:
                yield job, answers
        if failed:
            raise_failures(failed, len(jobs))

    def _successor(self, dead: Any) -> Any:
        """A new actor for one that Ray restarts no more: it would fail all jobs that wait, at once. That is what is left
        to do, too, when `RESTARTS` successors have died."""
        if self.successors == RESTARTS:
            return dead
        self.successors += 1
        new = self.start()
        self.actors = [new if actor is dead else actor for actor in self.actors]
        return new

    def close(self) -> None:
        """End the actors and free what they hold."""
        import ray

        for actor in self.actors:
            ray.kill(actor)


@contextmanager
def engine_pool(profile: Profile, spec: ModelSpec, jobs: int) -> Iterator[EnginePool]:
    """A pool for as long as the block runs."""
    connect(profile)
    pool = EnginePool(profile, spec, jobs)
    try:
        yield pool
    finally:
        pool.close()
