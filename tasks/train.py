"""Train: one member under Ray Train with DeepSpeed, from its last checkpoint if there is one."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from prefect import task
from prefect.cache_policies import NO_CACHE

from reseed.line import student, train_step
from reseed.profile import Profile
from reseed.recipe import Recipe
from reseed.records import Artifact, LossPoint, Member, ReseedError
from reseed.steps import Step
from reseed.store import ArtifactStore
from reseed.training.loop import TrainJob
from reseed.training.metric import judge_of
from tasks.cluster import cluster_address, connect
from tasks.mistakes import last_line
from tasks.placement import alone, awaited, store_url, training_slot
from tasks.process_group import LOOPBACK_ONLY, process_group
from tasks.run_once import log
from tasks.training_worker import Assignment, LossFeed, worker

FAILURES = 3  # of a member's workers before the member fails; each one goes on from the last checkpoint
KEPT = 2  # newest checkpoints of a member; the best adapter so far is in each


@task(cache_policy=NO_CACHE, task_run_name="train {member}")
def train(
    recipe: Recipe, profile: Profile, partition: Artifact, member: Member, start: Artifact | None = None
) -> Artifact:
    """One member's adapter, which goes on from the adapter `start`. `recipe` is the variant's."""
    store = ArtifactStore(profile.store)
    step = train_step(recipe, profile, partition, member, start)
    if store.find(step.artifact) is None:
        connect(profile)
        with training_slot(profile), alone(f"train-{step.artifact.key}"):
            started = time.monotonic()
            fit(store, assignment_for(recipe, profile, partition, member, step), profile)
        store.manifest(step.artifact)
        log().info("%s: done in %.1f s", step.artifact, time.monotonic() - started)
    else:
        log().info("%s: in the store", step.artifact)
    store.discard_scratch(scratch_name(step))  # also of a run that was killed after it had stored the adapter
    return step.artifact


def scratch_name(step: Step) -> str:
    """Where the member's checkpoints are, below the store's scratch place."""
    return f"train/{step.artifact.key}"


def assignment_for(recipe: Recipe, profile: Profile, partition: Artifact, member: Member, step: Step) -> Assignment:
    """The records that a worker needs."""
    import ray

    job = TrainJob(
        model=student(recipe, profile),
        settings=recipe.training,
        seed=member.seed,
        world=profile.training.workers,
        micro_batch_size=profile.training.micro_batch_size,
        judge=judge_of(recipe, profile),
    )
    return Assignment(
        step=step,
        problem=recipe.problem,
        job=job,
        partition=partition,
        start=step.inputs.get("start"),
        store_url=store_url(profile),
        run_name=f"{recipe.name} {member}",
        wandb_folder=str(Path(".reseed/wandb").absolute()),
        attempt=uuid.uuid4().hex[:12],
        started=time.time(),
        feed=ray.remote(LossFeed).options(num_cpus=0, max_restarts=-1).remote(),
    )


def fit(store: ArtifactStore, assignment: Assignment, profile: Profile) -> None:
    """Run Ray Train until the member is done, telling of its progress.

    Ray Train itself starts a member's workers again; when its controller dies, it is started again here, and goes on
    from the last checkpoint too.
    """
    import ray
    from ray.train.v2.api.exceptions import TrainingFailedError

    discard_damaged(store, assignment.step)
    for attempt in range(FAILURES + 1):
        if store.find(assignment.step.artifact) is not None:
            return
        try:
            with followed(assignment):
                awaited(trainer_for(store, assignment, profile).fit)
        except TrainingFailedError as error:
            raise_cause(assignment, error)
        except ray.exceptions.RayActorError as error:
            if attempt == FAILURES:
                raise_cause(assignment, error)
            log().warning("%s: Ray Train's controller died, the member goes on", assignment.run_name)


def trainer_for(store: ArtifactStore, assignment: Assignment, profile: Profile) -> Any:
    """Ray Train's trainer of one member."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    need, local = profile.training, cluster_address(profile) is None
    cpu_only = need.gpus == 0
    environment = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if local:
        environment |= LOOPBACK_ONLY
    if cpu_only:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(need.cpus)}
    path, filesystem = checkpoint_storage(store)
    return TorchTrainer(
        worker,
        train_loop_config={"assignment": assignment},
        torch_config=process_group("gloo" if cpu_only else "nccl", local),
        scaling_config=ScalingConfig(
            num_workers=need.workers, use_gpu=not cpu_only, resources_per_worker={"CPU": need.cpus, "GPU": need.gpus}
        ),
        # The run name is the member's key (seed, settings, data): Ray resumes a run of the same name by itself.
        run_config=RunConfig(
            name=assignment.step.artifact.key,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
            callbacks=[no_retry()],
            worker_runtime_env={"env_vars": environment},
        ),
    )


def no_retry() -> Any:
    """A callback of Ray Train's controller that ends the run when a worker met a mistake, which no retry can mend."""
    from ray.train import UserCallback

    class NoRetry(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, ReseedError):
                    raise error

    return NoRetry()


def discard_damaged(store: ArtifactStore, step: Step) -> None:
    """Forget the member's checkpoints if Ray Train was killed while it wrote the list of them: it would never start."""
    place = store.scratch(scratch_name(step))
    try:
        json.loads(store.fs.cat_file(f"{place}/checkpoint_manager_snapshot.json"))
    except FileNotFoundError:
        return
    except ValueError:
        log().warning("%s: its list of checkpoints is damaged, the member begins anew", step.artifact)
        store.discard_scratch(scratch_name(step))


def checkpoint_storage(store: ArtifactStore) -> tuple[str, Any]:
    """Where Ray Train keeps checkpoints: a path, and a pyarrow file system for a store that is no local folder."""
    path = store.scratch("train")
    if store.local:
        return path, None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return path, PyFileSystem(FSSpecHandler(store.fs))


def raise_cause(assignment: Assignment, error: Any) -> NoReturn:
    """A mistake of the user's as it is; anything else with the member's name."""
    if isinstance(mistake := getattr(error, "controller_failure", None), ReseedError):  # see `no_retry`
        raise mistake from None
    raise ReseedError(
        f"training of {assignment.run_name} failed: {last_line(error)}; its last checkpoint is kept, "
        "start the same command again to go on from it"
    ) from error


@contextmanager
def followed(assignment: Assignment) -> Iterator[None]:
    """Log the loss points of rank 0 while the block runs."""
    import ray

    logger, ended = log(), threading.Event()

    def drain() -> None:
        news: list[LossPoint | str] = []
        with suppress(ray.exceptions.RayError):  # a feed that was killed has lost lines of the log, nothing else
            news = ray.get(assignment.feed.drain.remote(), timeout=10)
        for point in news:
            if isinstance(point, str):
                logger.info("%s: %s", assignment.run_name, point)
                continue
            kind, loss = ("train", point.train) if point.validation is None else ("validation", point.validation)
            scored = f", metric {point.metric:.4f}" if point.metric is not None else ""
            logger.info("%s: step %d, %s loss %.4f%s", assignment.run_name, point.step, kind, loss, scored)

    def follow() -> None:
        while not ended.wait(1.0):
            drain()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
        drain()
    finally:
        ended.set()
        thread.join()
