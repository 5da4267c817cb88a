"""One Ray Train worker of a member. Nothing here needs Prefect: every worker process would import it for a second."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reseed.files import digest, read_jsonl, write_jsonl
from reseed.leftovers import held, take_away_temporary
from reseed.problems import load_problem
from reseed.records import Artifact, LossPoint
from reseed.steps import Step
from reseed.store import ArtifactStore
from reseed.tracking import Tracker
from reseed.training.loop import TrainJob, TrainSummary
from reseed.training.loop import train as train_loop


@dataclass(frozen=True)
class Assignment:
    """What a Ray Train worker is given: records only, it reads the rows from the store itself."""

    step: Step
    problem: str
    job: TrainJob
    partition: Artifact
    start: Artifact | None  # the adapter that the member goes on from
    store_url: str
    run_name: str
    wandb_folder: str
    attempt: str  # names this attempt's scratch folder
    started: float  # seconds since the epoch
    feed: Any  # a handle of the LossFeed actor


class LossFeed:
    """A tiny actor between rank 0 and the flow: points of the loss curve and notes come in, the flow drains them."""

    def __init__(self) -> None:
        self.news: list[LossPoint | str] = []

    def put(self, news: LossPoint | str) -> None:
        """From rank 0."""
        self.news.append(news)

    def drain(self) -> list[LossPoint | str]:
        """To the flow."""
        news, self.news = self.news, []
        return news


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

    def note(self, text: str) -> None:
        """To the flow."""
        self.assignment.feed.put.remote(text)

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

    def abandon(self) -> None:
        """The member failed, or is to be tried again."""
        if self.tracker is not None:
            self.tracker.abandon()

    def finish(self, summary: TrainSummary) -> None:
        """The member is done."""
        if self.tracker is not None:
            best = {"best_step": summary.best_step, "best_loss": summary.best_loss, "best_metric": summary.best_metric}
            self.tracker.finish({name: value for name, value in best.items() if value is not None})


def worker(config: dict[str, Any]) -> None:
    """One Ray Train worker. Rank 0 commits the adapter, so that the files need not travel again."""
    import ray.train
    import torch

    assignment: Assignment = config["assignment"]
    context = ray.train.get_context()
    rank, local_rank = context.get_world_rank(), context.get_local_rank()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    build_no_helpers()
    store = ArtifactStore(assignment.store_url)
    rows = store.fetch(assignment.partition)
    start = store.fetch(assignment.start) if assignment.start is not None else None
    with node_folder(assignment, local_rank) as work, resumed() as checkpoint:
        watcher = RayWatcher(assignment, rank, local_rank)
        try:
            summary = train_loop(
                assignment.job,
                load_problem(assignment.problem),
                read_jsonl(rows / "train.jsonl"),
                read_jsonl(rows / "validation.jsonl"),
                work,
                watcher,
                checkpoint,
                start,
            )
        except Exception:
            watcher.abandon()
            raise
        if summary is not None:
            commit(store, assignment, work, summary)
            watcher.finish(summary)


def build_no_helpers() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce, which only inference uses.

    That takes a minute of two cores, again whenever another environment of this user built it in between, and a worker
    killed meanwhile leaves torch's lock file, for which every later run would wait for ever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def commit(store: ArtifactStore, assignment: Assignment, work: Path, summary: TrainSummary) -> None:
    """The member's artifact: `adapter/` with its two files, `curve.jsonl`, and the optimiser's state if it is kept."""
    best = work / "best"
    (best / "best.json").unlink()
    curve = [asdict(point) for point in summary.curve]
    write_jsonl(best / "curve.jsonl", curve)
    metrics = {key: value for key, value in asdict(summary).items() if key != "curve"}
    store.write(assignment.step, best, metrics, time.time() - assignment.started)


@contextmanager
def node_folder(assignment: Assignment, local_rank: int) -> Iterator[Path]:
    """A folder that the ranks of one node share, empty at the start and gone at the end.

    One flow at a time trains a member of a store, so what is there of this member was left by a worker that was killed;
    one that took a while to die may have written after the start. Temporary files go into the folder too: Ray ends its
    workers without the clean-up that wandb leaves to the end of the process, or while they fetch a checkpoint.
    """
    import torch

    temporary = Path(tempfile.gettempdir())
    name = f"reseed-train-{digest([assignment.store_url, assignment.step.artifact.key], 12)}"
    folder = temporary / f"{name}-{assignment.attempt}"

    def clear() -> None:
        for left in temporary.glob(f"{name}-*"):
            shutil.rmtree(left, ignore_errors=True)

    if local_rank == 0:
        clear()
        take_away_temporary()  # of members that nobody went on with: on a cluster no flow runs on this node
        folder.mkdir(mode=0o700)
    torch.distributed.barrier()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with held(folder):
            yield folder
    finally:
        tempfile.tempdir = before
        if local_rank == 0:
            clear()


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
