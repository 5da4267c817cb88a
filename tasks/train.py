"""Train: one member under Ray Train with DeepSpeed, from its last checkpoint if there is one."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from reseed.files import read_jsonl, write_jsonl
from reseed.line import train_step
from reseed.problems import load_problem
from reseed.profile import Profile
from reseed.recipe import Recipe
from reseed.records import Artifact, LossPoint, Member, ReseedError
from reseed.steps import Step
from reseed.store import ArtifactStore
from reseed.tracking import Tracker
from reseed.training.loop import TrainJob, TrainSummary
from reseed.training.loop import train as train_loop
from tasks.placement import connect, store_url, training_slot
from tasks.run_once import log

FAILURES = 3  # of a member's workers before the member fails; each one goes on from the last checkpoint


@dataclass(frozen=True)
class Assignment:
    """What a Ray Train worker is given: records only, it reads the rows from the store itself."""

    step: Step
    problem: str
    job: TrainJob
    partition: Artifact
    store_url: str
    run_name: str
    wandb_folder: str
    attempt: str  # names this attempt's scratch folder
    started: float  # seconds since the epoch
    feed: Any  # a handle of the LossFeed actor


class LossFeed:
    """A tiny actor between rank 0 and the flow: points of the loss curve come in, the flow drains them."""

    def __init__(self) -> None:
        self.points: list[LossPoint] = []

    def put(self, point: LossPoint) -> None:
        """From rank 0."""
        self.points.append(point)

    def drain(self) -> list[LossPoint]:
        """To the flow."""
        points, self.points = self.points, []
        return points


class RayWatcher:
    """Hands checkpoints to Ray Train, loss points to the flow and to the tracker."""

    def __init__(self, assignment: Assignment, rank: int, local_rank: int) -> None:
        self.assignment, self.local_rank = assignment, local_rank
        step = assignment.step
        self.tracker = (
            Tracker(
                step.artifact.key,
                step.name,
                assignment.run_name,
                {**step.spec, "seed": step.seed},
                Path(assignment.wandb_folder),
            )
            if rank == 0
            else None
        )

    def point(self, point: LossPoint) -> None:
        """To the tracker and the flow."""
        self.assignment.feed.put.remote(point)
        if self.tracker is not None:
            self.tracker.point(point)

    def checkpoint(self, folder: Path, step: int) -> None:
        """One rank of each node hands over what all ranks of that node wrote; the parts are merged."""
        import ray.train

        held = ray.train.Checkpoint.from_directory(str(folder)) if self.local_rank == 0 else None
        ray.train.report({"step": step}, checkpoint=held)

    def finish(self, summary: TrainSummary) -> None:
        """The member is done."""
        if self.tracker is not None:
            self.tracker.finish({"best_step": summary.best_step, "best_loss": summary.best_loss})


def worker(config: dict[str, Any]) -> None:
    """One Ray Train worker. Rank 0 commits the adapter, so that the files need not travel again."""
    import ray.train
    import torch

    assignment: Assignment = config["assignment"]
    context = ray.train.get_context()
    rank, local_rank = context.get_world_rank(), context.get_local_rank()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    store = ArtifactStore(assignment.store_url)
    rows = store.fetch(assignment.partition)
    watcher = RayWatcher(assignment, rank, local_rank)
    with node_folder(assignment.attempt, local_rank) as work, resumed() as checkpoint:
        summary = train_loop(
            assignment.job,
            load_problem(assignment.problem),
            read_jsonl(rows / "train.jsonl"),
            read_jsonl(rows / "validation.jsonl"),
            work,
            watcher,
            checkpoint,
        )
        if summary is not None:
            commit(store, assignment, work, summary)
            watcher.finish(summary)


def commit(store: ArtifactStore, assignment: Assignment, work: Path, summary: TrainSummary) -> None:
    """The member's artifact: `adapter/` with its two files, and `curve.json`."""
    best = work / "best"
    (best / "best.json").unlink()
    curve = [asdict(point) for point in summary.curve]
    write_jsonl(best / "curve.jsonl", curve)
    metrics = {key: value for key, value in asdict(summary).items() if key != "curve"}
    store.write(assignment.step, best, metrics, time.time() - assignment.started)


@contextmanager
def node_folder(attempt: str, local_rank: int) -> Iterator[Path]:
    """A folder that the ranks of one node share, empty at the start and gone at the end."""
    import torch

    folder = Path(tempfile.gettempdir()) / f"reseed-train-{attempt}"
    if local_rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    torch.distributed.barrier()
    try:
        yield folder
    finally:
        if local_rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def resumed() -> Iterator[Path | None]:
    """The last checkpoint's folder, or None for a member that starts."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


@task(cache_policy=NO_CACHE, task_run_name="train {member}")
def train(recipe: Recipe, profile: Profile, partition: Artifact, member: Member) -> Artifact:
    """One member's adapter. `recipe` is the variant's."""
    store = ArtifactStore(profile.store)
    step = train_step(recipe, profile, partition, member)
    if store.find(step.artifact) is not None:
        log().info("%s: in the store", step.artifact)
        return step.artifact
    connect(profile)
    with training_slot(profile):
        started = time.monotonic()
        fit(store, assignment_for(recipe, profile, partition, member, step), profile)
    store.manifest(step.artifact)
    store.discard_scratch(f"train/{step.artifact.key}")
    log().info("%s: done in %.1f s", step.artifact, time.monotonic() - started)
    return step.artifact


def assignment_for(recipe: Recipe, profile: Profile, partition: Artifact, member: Member, step: Step) -> Assignment:
    """The records that a worker needs."""
    import ray

    job = TrainJob(
        model=profile.student(recipe.model),
        settings=recipe.training,
        seed=member.seed,
        world=profile.training.workers,
        micro_batch_size=profile.training.micro_batch_size,
    )
    return Assignment(
        step=step,
        problem=recipe.problem,
        job=job,
        partition=partition,
        store_url=store_url(profile),
        run_name=f"{recipe.name} {member}",
        wandb_folder=str(Path(".reseed/wandb").absolute()),
        attempt=uuid.uuid4().hex[:12],
        started=time.time(),
        feed=ray.remote(LossFeed).options(num_cpus=0).remote(),
    )


def fit(store: ArtifactStore, assignment: Assignment, profile: Profile) -> None:
    """Run Ray Train until the member is done, telling of its progress."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    need = profile.training
    cpu_only = need.gpus == 0
    environment = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if cpu_only:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(need.cpus)}
    path, filesystem = checkpoint_storage(store)
    trainer = TorchTrainer(
        worker,
        train_loop_config={"assignment": assignment},
        torch_config=TorchConfig(backend="gloo" if cpu_only else "nccl"),
        scaling_config=ScalingConfig(
            num_workers=need.workers, use_gpu=not cpu_only, resources_per_worker={"CPU": need.cpus, "GPU": need.gpus}
        ),
        # The run name is the member's key (seed, settings, data): Ray resumes a run of the same name by itself.
        run_config=RunConfig(
            name=assignment.step.artifact.key,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": environment},
        ),
    )
    try:
        with followed(assignment):
            trainer.fit()
    except TrainingFailedError as error:
        raise_cause(assignment, error)


def checkpoint_storage(store: ArtifactStore) -> tuple[str, Any]:
    """Where Ray Train keeps checkpoints: a path, and a pyarrow file system for a store that is no local folder."""
    path = store.scratch("train")
    if store.local:
        return path, None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return path, PyFileSystem(FSSpecHandler(store.fs))


def raise_cause(assignment: Assignment, error: Any) -> None:
    """A mistake of the user's as it is; anything else with the member's name."""
    for cause in (getattr(error, "worker_failures", None) or {}).values():
        inner = getattr(cause, "cause", cause)
        if isinstance(inner, ReseedError):
            raise inner
    raise ReseedError(
        f"training of {assignment.run_name} failed: {str(error).strip().splitlines()[-1]}; its last checkpoint is kept, "
        "start the same command again to go on from it"
    ) from error


@contextmanager
def followed(assignment: Assignment) -> Iterator[None]:
    """Log the loss points of rank 0 while the block runs."""
    import ray

    logger, ended = log(), threading.Event()

    def drain() -> None:
        for point in ray.get(assignment.feed.drain.remote()):
            kind, loss = ("train", point.train) if point.validation is None else ("validation", point.validation)
            logger.info("%s: step %d, %s loss %.4f", assignment.run_name, point.step, kind, loss)

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
