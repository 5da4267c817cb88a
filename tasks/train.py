"""Train: one member under Ray Train with DeepSpeed, resumed from its last checkpoint if there is one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from reseed.recipe.profile import Profile, cluster_address
from reseed.records import Artifact, ReseedError
from reseed.steps.train import Train
from reseed.store.artifacts import ArtifactStore
from reseed.store.errors import explained
from reseed.store.lease import Lease, LeaseLostError, discard
from reseed.store.step import Step
from reseed.training.tracking import OfflineRun, find_account
from tasks.cluster import connect, store_url
from tasks.mistakes import last_line
from tasks.process_group import LOOPBACK_ONLY, process_group
from tasks.progress import progress
from tasks.run_once import log
from tasks.slots import training_slot
from tasks.training_worker import Assignment, News, NewsFeed, worker
from tasks.waiting import wait_for_result, wait_until

FAILURES = 3  # of a member's workers before the member fails; each time they resume from the last checkpoint
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's list of checkpoints
KEPT = 2  # newest checkpoints of a member; each has the best adapter so far


@task(cache_policy=NO_CACHE, task_run_name="train {step.work.member}")
def train(place: Profile, step: Step[Train]) -> Artifact:
    """Train one member's adapter, unless the store has it or another flow trains it."""
    store = ArtifactStore(place.store)
    lease = Lease(store, f"train-{step.artifact.key}")
    there = store.find(step.artifact) is not None
    if there:
        log().info("%s: in the store", step.artifact)
    while not there:
        connect(place)
        with training_slot(place):
            taken = lease.take()
            if taken:
                with lease.keep():
                    fit_once(store, assignment_for(place, step, lease), place)
        if not taken:
            log().info("%s: waits for another flow, which trains it: %s", step.artifact, lease.describe())
            wait_until(lease.looks_free, every=2.0)
        there = store.find(step.artifact) is not None
    tidy(store, step, lease)
    return step.artifact


def train_all(place: Profile, steps: Sequence[Step[Train]]) -> None:
    """One task a member, all at once as far as there is room, each after the one that it continues."""
    running: dict[Artifact, PrefectFuture[Artifact]] = {}
    for step in steps:
        before = running.get(step.inputs["start"]) if "start" in step.inputs else None
        running[step.artifact] = train.submit(
            place, step, return_state=False, wait_for=[before] if before is not None else []
        )
    with progress("train: members", len(steps), quiet=300) as shown:  # losses are logged in between
        for future in running.values():
            future.result()
            shown.advance(1)


def fit_once(store: ArtifactStore, assignment: Assignment, profile: Profile) -> None:
    """Train the member, unless the lease's previous holder has done so."""
    artifact, started = assignment.step.artifact, time.monotonic()
    if store.find(artifact) is not None:
        log().info("%s: another flow has made it", artifact)
        return
    try:
        fit(store, assignment, profile)
    except LeaseLostError as error:
        log().warning("%s", error)
        return
    store.manifest(artifact)
    log().info("%s: done in %.1f s", artifact, time.monotonic() - started)


def tidy(store: ArtifactStore, step: Step[Train], lease: Lease) -> None:
    """Remove the checkpoints of a finished member, even if a run was killed after it had stored the adapter.

    Those of another holder of the lease stay, since its workers may still write them, unless it has fallen silent.
    """
    if lease.is_there() and (lease.take() or lease.is_silent()):
        store.discard_scratch(scratch_name(step))
        discard(store, lease.name)


def scratch_name(step: Step[Train]) -> str:
    """The folder of the member's checkpoints, below the store's scratch folder."""
    return f"train/{step.artifact.key}"


def assignment_for(profile: Profile, step: Step[Train], lease: Lease) -> Assignment:
    """What the member's workers need to know."""
    import ray

    account = find_account()
    if account.warning is not None:
        log().warning(account.warning)
    return Assignment(
        step=step,
        store_url=store_url(profile),
        wandb_folder=account.folder,
        node=ray.get_runtime_context().get_node_id(),
        lease=lease.name,
        holder=lease.holder,
        started=time.time(),
        feed=ray.remote(NewsFeed).options(num_cpus=0, max_restarts=-1).remote(account.variables),
    )


def fit(store: ArtifactStore, assignment: Assignment, profile: Profile) -> None:
    """Run Ray Train until the member is done, and log its progress.

    Ray Train itself restarts a member's workers. If its controller dies, it is restarted here, and also resumes from the
    last checkpoint.
    """
    import ray

    mend_list(store, assignment.step)
    for attempt in range(FAILURES + 1):
        try:
            with log_news(assignment):
                wait_for_result(trainer_for(store, assignment, profile).fit)
            return
        except Exception as error:
            if store.find(assignment.step.artifact) is not None:
                log().info("%s: it failed here, but another flow has made it", assignment.run_name)
                return
            if attempt == FAILURES or not isinstance(error, ray.exceptions.RayActorError):
                raise_cause(assignment, error)
            log().warning("%s: Ray Train's controller died, the member resumes", assignment.run_name)


def trainer_for(store: ArtifactStore, assignment: Assignment, profile: Profile) -> Any:
    """Ray Train's trainer for one member."""
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
        # Ray resumes a run of the same name by itself, so the name is the member's key (seed, settings, data).
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
    """A callback of Ray Train's controller that ends the run on a user's mistake, which no retry can mend."""
    from ray.train import UserCallback

    class NoRetry(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, ReseedError):
                    raise error

    return NoRetry()


def mend_list(store: ArtifactStore, step: Step[Train]) -> None:
    """Mend Ray Train's list of the member's checkpoints, so that it can start from it.

    A list that was cut off while it was written is removed, with the checkpoints; a missing checkpoint is removed from
    the list. The workers look at what is in a checkpoint.
    """
    place = store.scratch(scratch_name(step))
    snapshot = f"{place}/{SNAPSHOT}"
    with explained(store.url):
        content = store.objects.read(f"scratch/{scratch_name(step)}/{SNAPSHOT}")
    if content is None:
        return
    checkpoints = parse_list(content)
    if checkpoints is None:
        log().warning("%s: %s is damaged, the member begins anew", step.artifact, snapshot)
        store.discard_scratch(scratch_name(step))
        return
    named = [one["checkpoint_dir_name"] for one in checkpoints["checkpoint_results"]]
    with explained(store.url):
        there = [number for number, name in enumerate(named) if store.fs.exists(f"{place}/{name}")]
    if len(there) == len(named):
        return
    if not there:
        log().warning("%s: no checkpoint that %s names is there, the member begins anew", step.artifact, snapshot)
        store.discard_scratch(scratch_name(step))
        return
    log().warning("%s: of %d checkpoints that %s names %d are there", step.artifact, len(named), snapshot, len(there))
    for what in ("checkpoint_results", "checkpoint_report_indices"):
        checkpoints[what] = [checkpoints[what][number] for number in there]
    checkpoints["latest_checkpoint_result"] = checkpoints["checkpoint_results"][-1]
    with explained(store.url):
        store.fs.pipe_file(snapshot, json.dumps(checkpoints).encode())


def parse_list(content: bytes) -> dict[str, Any] | None:
    """Ray Train's list of checkpoints; None if it is damaged."""
    try:
        checkpoints: dict[str, Any] = json.loads(content)
        names = [one["checkpoint_dir_name"] for one in checkpoints["checkpoint_results"]]
        return checkpoints if len(checkpoints["checkpoint_report_indices"]) == len(names) else None
    except (ValueError, KeyError, TypeError):
        return None


def checkpoint_storage(store: ArtifactStore) -> tuple[str, Any]:
    """Where Ray Train keeps checkpoints: a path, and a pyarrow file system if the store is not a local folder."""
    path = store.scratch("train")
    if store.local:
        return path, None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return path, PyFileSystem(FSSpecHandler(store.fs))


def raise_cause(assignment: Assignment, error: Exception) -> NoReturn:
    """Raise a user's mistake as it is; anything else with the member's name."""
    mistake = getattr(error, "controller_failure", error)  # see `no_retry`
    if isinstance(mistake, ReseedError):
        raise mistake from None
    raise ReseedError(
        f"training of {assignment.run_name} failed: {last_line(error)}; its last checkpoint is kept, "
        "start the same command again to resume from it"
    ) from error


@contextmanager
def log_news(assignment: Assignment) -> Iterator[None]:
    """Log rank 0's news while the block runs."""
    import ray

    logger, ended = log(), threading.Event()

    def drain() -> None:
        news: list[News] = []
        with suppress(ray.exceptions.RayError):  # a killed feed loses lines of the log, nothing else
            news = ray.get(assignment.feed.drain.remote(), timeout=10)
        for point in news:
            if isinstance(point, OfflineRun):
                point.unpack(Path(assignment.wandb_folder))
                continue
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
    finally:
        ended.set()
        thread.join()
        drain()
