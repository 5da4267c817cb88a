"""One Ray Train worker of a member. Nothing here imports Prefect, which would take every worker a second."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reseed.data.rows import open_rows
from reseed.files import digest, write_jsonl
from reseed.problems import load_problem, portable_errors
from reseed.records import LossPoint, ReseedError
from reseed.steps.train import Train
from reseed.store.artifacts import ArtifactStore
from reseed.store.lease import LeaseLostError, holder_of
from reseed.store.leftovers import held, remove_temporary_folders
from reseed.store.step import Step
from reseed.training.checkpoints import damage_of
from reseed.training.job import TrainSummary
from reseed.training.loop import train as train_loop
from reseed.training.tracking import OfflineRun, TrackedRun, Tracker, reference


@dataclass(frozen=True)
class Assignment:
    """What a Ray Train worker needs to know. It reads the rows from the store itself."""

    step: Step[Train]
    store_url: str
    wandb_folder: str  # on the flow's node
    node: str  # the flow's, by Ray's id
    lease: str  # on the member's scratch folder
    holder: str  # of the lease: the driver of this worker; names the member's folder on each node
    started: float  # seconds since the epoch
    feed: Any  # a handle of the NewsFeed actor

    @property
    def run_name(self) -> str:
        """What people call the member's run."""
        return self.step.work.run_name


News = LossPoint | OfflineRun | str


class NewsFeed:
    """A tiny actor between rank 0 and the flow: rank 0 puts in points of the loss curve, notes and an offline run's files, and
    the flow takes them out. It also hands rank 0 the variables that W&B reads: unlike a runtime environment, it shows them
    in no log and on no page of Ray's."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.news: list[News] = []
        self.wandb = variables

    def variables(self) -> Mapping[str, str]:
        """Called by rank 0."""
        return self.wandb

    def put(self, news: News) -> None:
        """Called by rank 0."""
        self.news.append(news)

    def drain(self) -> list[News]:
        """Called by the flow: return the news since the last call."""
        news, self.news = self.news, []
        return news


class RayWatcher:
    """Hands checkpoints to Ray Train, loss points to the flow and to the tracker."""

    def __init__(self, assignment: Assignment, rank: int, local_rank: int) -> None:
        self.assignment, self.local_rank = assignment, local_rank
        self.store = ArtifactStore(assignment.store_url)
        self.tracker = self.track() if rank == 0 else None

    def track(self) -> Tracker:
        """Begin the member's tracked run, in a temporary folder unless this is the flow's node."""
        import ray

        assignment, step = self.assignment, self.assignment.step
        variables = ray.get(assignment.feed.variables.remote())
        os.environ.update(variables)
        here = ray.get_runtime_context().get_node_id() == assignment.node
        folder = assignment.wandb_folder if here else tempfile.gettempdir()
        config = {**step.spec, "seed": step.seed}
        run = TrackedRun(step.artifact, step.work.experiment, assignment.run_name, "member", config)
        tracker = Tracker(run, Path(folder), variables["WANDB_MODE"])
        if tracker.warning is not None:
            self.note(tracker.warning)
        return tracker

    def note(self, text: str) -> None:
        """Send a line to the flow."""
        self.assignment.feed.put.remote(text)

    def point(self, point: LossPoint) -> None:
        """Send a point to the flow and the tracker."""
        self.assignment.feed.put.remote(point)
        if self.tracker is not None:
            self.tracker.point(point)

    def checkpoint(self, folder: Path, step: int) -> None:
        """Report a checkpoint: one rank of each node hands over what its ranks wrote, and Ray merges the parts."""
        import ray.train

        part = None
        if self.local_rank == 0:
            check_lease(self.store, self.assignment)
            part = ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report({"step": step}, checkpoint=part)

    def abandon(self) -> None:
        """End the tracked run of a member that failed or will be retried."""
        if self.tracker is not None:
            self.tracker.abandon()
            self.send_offline_run()

    def finish(self, summary: TrainSummary) -> None:
        """End the tracked run of a member whose adapter is in the store."""
        if self.tracker is not None:
            self.tracker.read(reference(self.store, self.assignment.step.inputs["partition"]))
            self.tracker.write(reference(self.store, self.assignment.step.artifact))
            best = {"best_step": summary.best_step, "best_loss": summary.best_loss, "best_metric": summary.best_metric}
            self.tracker.finish({name: value for name, value in best.items() if value is not None})
            self.send_offline_run()

    def send_offline_run(self) -> None:
        """Send an offline run on another node to the flow. If the worker is killed, it stays there."""
        import ray

        if self.tracker is None or ray.get_runtime_context().get_node_id() == self.assignment.node:
            return
        if (run := self.tracker.packed()) is not None:
            ray.get(self.assignment.feed.put.remote(run))


def worker(config: dict[str, Any]) -> None:
    """Run one Ray Train worker. Rank 0 commits the adapter, so that its files need not travel to the flow."""
    import ray.train
    import torch

    assignment: Assignment = config["assignment"]
    context = ray.train.get_context()
    rank, local_rank = context.get_world_rank(), context.get_local_rank()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    build_no_helpers()
    store = ArtifactStore(assignment.store_url)
    step_work, inputs = assignment.step.work, assignment.step.inputs
    rows = store.fetch(inputs["partition"])
    start = store.fetch(inputs["start"]) if "start" in inputs else None
    check_lease(store, assignment)
    with node_folder(assignment, local_rank) as work:
        watcher = RayWatcher(assignment, rank, local_rank)
        try:
            with portable_errors(), checkpoint_to_resume(rank, watcher) as checkpoint:
                summary = train_loop(
                    step_work.job(),
                    load_problem(step_work.problem),
                    open_rows(rows, "train"),
                    open_rows(rows, "validation"),
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


def check_lease(store: ArtifactStore, assignment: Assignment) -> None:
    """End the run if another driver holds the member's lease by now, and with it the scratch folders in the store and here."""
    holder = holder_of(store, assignment.lease)
    if holder != assignment.holder:
        raise LeaseLostError(
            f"training of {assignment.run_name}: this flow did not renew its lease in time, and "
            f"{'another one has taken it over' if holder else 'it is gone'}"
        )


def build_no_helpers() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce, which only inference uses.

    That takes two cores a minute, again whenever another environment of this user compiled it in between, and a worker
    killed meanwhile leaves torch's lock file, for which every later run would wait forever.
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
    """A folder that the ranks of one node share, empty at the start and removed at the end.

    Only the lease's holder trains a member, so whatever is there of this member was left by a killed worker, even after
    the start if that was slow to die. Temporary files go into the folder too: Ray ends its workers without the clean-up
    at exit that wandb relies on, or while they fetch a checkpoint.
    """
    import torch

    temporary = Path(tempfile.gettempdir())
    name = f"reseed-train-{digest([assignment.store_url, assignment.step.artifact.key], 12)}"
    folder = temporary / f"{name}-{assignment.holder}"

    def clear(pattern: str) -> None:
        for left in temporary.glob(f"{name}-{pattern}"):
            shutil.rmtree(left, ignore_errors=True)

    if local_rank == 0:
        clear("*")
        remove_temporary_folders()  # also of members that were never resumed: on a cluster no flow runs on this node
        folder.mkdir(mode=0o700)
    torch.distributed.barrier()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with held(folder):
            yield folder
    finally:
        tempfile.tempdir = before
        if local_rank == 0:
            clear(assignment.holder if is_taken_over(assignment) else "*")


def is_taken_over(assignment: Assignment) -> bool:
    """True if another driver has the member, or may have it because the store does not answer."""
    try:
        return holder_of(ArtifactStore(assignment.store_url), assignment.lease) not in ("", assignment.holder)
    except ReseedError:
        return True


@contextmanager
def checkpoint_to_resume(rank: int, watcher: RayWatcher) -> Iterator[Path | None]:
    """The folder of the newest whole checkpoint, or None for a new member. Rank 0 chooses it for all ranks."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    newest = ray.train.get_checkpoint()
    if newest is None:
        yield None
        return
    with ExitStack() as stack:
        folder, path = newest_whole(newest, watcher, stack) if rank == 0 else (None, None)
        path = broadcast_from_rank_zero(path)
        if rank != 0 and path is not None:
            checkpoint = ray.train.Checkpoint(path, filesystem=newest.filesystem)
            folder = Path(stack.enter_context(checkpoint.as_directory()))
        yield folder


def newest_whole(newest: Any, watcher: RayWatcher, stack: ExitStack) -> tuple[Path | None, str | None]:
    """The newest undamaged checkpoint: its folder, which `stack` keeps open, and its path."""
    import ray.train

    older = [reported.checkpoint for reported in ray.train.get_all_reported_checkpoints()][::-1]
    for checkpoint in [newest, *(one for one in older if one.path != newest.path)]:
        with ExitStack() as opened:
            try:
                folder = Path(opened.enter_context(checkpoint.as_directory()))
                damage = damage_of(folder)
            except FileNotFoundError:
                damage = "it is not there"
            if damage is None:
                stack.enter_context(opened.pop_all())
                return folder, checkpoint.path
        watcher.note(f"the checkpoint {checkpoint.path} is damaged ({damage}); training resumes from the one before")
    watcher.note("no whole checkpoint is left, the member begins anew")
    return None, None
