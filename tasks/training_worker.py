"""One Ray Train worker of a member. Nothing here needs Prefect: every worker process would import it for a second."""

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

from reseed.files import digest, read_jsonl, write_jsonl
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
    """What a Ray Train worker is given: records only, it reads the rows from the store itself."""

    step: Step[Train]
    store_url: str
    wandb_folder: str  # on the flow's node
    node: str  # the flow's, by Ray's id
    lease: str  # on the member's scratch place
    holder: str  # of that lease, of whose driver this is; names the member's folder on each node
    started: float  # seconds since the epoch
    feed: Any  # a handle of the LossFeed actor

    @property
    def run_name(self) -> str:
        """What people call the member's run."""
        return self.step.work.run_name


News = LossPoint | OfflineRun | str


class LossFeed:
    """A tiny actor between rank 0 and the flow: points of the loss curve, notes and the files of an offline run come in,
    the flow drains them. It also hands out the variables that W&B reads: there they are in no log and on no page of Ray's,
    as a runtime environment would be."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.news: list[News] = []
        self.wandb = variables

    def variables(self) -> Mapping[str, str]:
        """To rank 0."""
        return self.wandb

    def put(self, news: News) -> None:
        """From rank 0."""
        self.news.append(news)

    def drain(self) -> list[News]:
        """To the flow."""
        news, self.news = self.news, []
        return news


class RayWatcher:
    """Hands checkpoints to Ray Train, loss points to the flow and to the tracker."""

    def __init__(self, assignment: Assignment, rank: int, local_rank: int) -> None:
        self.assignment, self.local_rank = assignment, local_rank
        self.store = ArtifactStore(assignment.store_url)
        self.tracker = self.track() if rank == 0 else None

    def track(self) -> Tracker:
        """Begin the member's run; on another node than the flow's, in a temporary folder."""
        import ray

        given, step = self.assignment, self.assignment.step
        variables = ray.get(given.feed.variables.remote())
        os.environ.update(variables)
        here = ray.get_runtime_context().get_node_id() == given.node
        folder = given.wandb_folder if here else tempfile.gettempdir()
        config = {**step.spec, "seed": step.seed}
        run = TrackedRun(step.artifact, step.work.experiment, given.run_name, "member", config)
        tracker = Tracker(run, Path(folder), variables["WANDB_MODE"])
        if tracker.warning is not None:
            self.note(tracker.warning)
        return tracker

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

        part = None
        if self.local_rank == 0:
            check_lease(self.store, self.assignment)
            part = ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report({"step": step}, checkpoint=part)

    def abandon(self) -> None:
        """The member failed, or is to be tried again."""
        if self.tracker is not None:
            self.tracker.abandon()
            self.send_home()

    def finish(self, summary: TrainSummary) -> None:
        """The member is done, and its adapter in the store."""
        if self.tracker is not None:
            self.tracker.read(reference(self.store, self.assignment.step.inputs["partition"]))
            self.tracker.write(reference(self.store, self.assignment.step.artifact))
            best = {"best_step": summary.best_step, "best_loss": summary.best_loss, "best_metric": summary.best_metric}
            self.tracker.finish({name: value for name, value in best.items() if value is not None})
            self.send_home()

    def send_home(self) -> None:
        """Hand an offline run that lies on another node to the flow; one whose worker is killed stays behind."""
        import ray

        if self.tracker is None or ray.get_runtime_context().get_node_id() == self.assignment.node:
            return
        if (run := self.tracker.packed()) is not None:
            ray.get(self.assignment.feed.put.remote(run))


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
    given, inputs = assignment.step.work, assignment.step.inputs
    rows = store.fetch(inputs["partition"])
    start = store.fetch(inputs["start"]) if "start" in inputs else None
    check_lease(store, assignment)
    with node_folder(assignment, local_rank) as work:
        watcher = RayWatcher(assignment, rank, local_rank)
        try:
            with portable_errors(), resumed(rank, watcher) as checkpoint:
                summary = train_loop(
                    given.job(),
                    load_problem(given.problem),
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


def check_lease(store: ArtifactStore, assignment: Assignment) -> None:
    """End the run if another driver has the member by now: its scratch place, on the store and here, is that one's."""
    holder = holder_of(store, assignment.lease)
    if holder != assignment.holder:
        raise LeaseLostError(
            f"training of {assignment.run_name}: this flow did not renew its lease in time, and "
            f"{'another one has taken it over' if holder else 'it is gone'}"
        )


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

    The lease's holder alone trains a member of a store, so what is there of this member was left by a worker that was
    killed; one that took a while to die may have written after the start. Temporary files go into the folder too: Ray ends its
    workers without the clean-up that wandb leaves to the end of the process, or while they fetch a checkpoint.
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
        remove_temporary_folders()  # of members that nobody went on with: on a cluster no flow runs on this node
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
    """True when another driver works on the member, or may do so: the store does not say."""
    try:
        return holder_of(ArtifactStore(assignment.store_url), assignment.lease) not in ("", assignment.holder)
    except ReseedError:
        return True


@contextmanager
def resumed(rank: int, watcher: RayWatcher) -> Iterator[Path | None]:
    """The folder of the newest whole checkpoint, or None for a member that starts. Rank 0 looks, for all ranks."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    newest = ray.train.get_checkpoint()
    if newest is None:
        yield None
        return
    with ExitStack() as stack:
        folder, path = first_whole(newest, watcher, stack) if rank == 0 else (None, None)
        path = broadcast_from_rank_zero(path)
        if rank != 0 and path is not None:
            checkpoint = ray.train.Checkpoint(path, filesystem=newest.filesystem)
            folder = Path(stack.enter_context(checkpoint.as_directory()))
        yield folder


def first_whole(newest: Any, watcher: RayWatcher, stack: ExitStack) -> tuple[Path | None, str | None]:
    """The first checkpoint, newest first, that is as it was handed over: its folder, open in `stack`, and its path."""
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
