"""What a member's worker tells those who watch it, and whose its places are; without a running Ray."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reseed.models.names import ModelSpec
from reseed.problems import ProblemModule
from reseed.records import Artifact, Member
from reseed.settings import TrainingSettings
from reseed.steps.train import Train
from reseed.store.artifacts import ArtifactStore
from reseed.store.lease import Lease, LeaseLostError
from reseed.store.step import Step
from reseed.training.checkpoints import assemble_checkpoint
from reseed.training.job import TrainSummary
from tasks.training_worker import Assignment, RayWatcher, check_lease, newest_whole, node_folder


def assignment(folder: Path) -> Assignment:
    work = Train(
        ProblemModule("prompt-recovery"), ModelSpec(name="owner/tiny"), TrainingSettings(), 1, 1, None,
        Member("default", 0), "tiny",
    )  # fmt: skip
    return Assignment(
        step=Step(work, "tiny-default", {"partition": Artifact("partition", "tiny", "0" * 32)}, 0),
        store_url=str(folder / "store"),
        wandb_folder=str(folder),
        node="",
        lease="train-tiny",
        holder="a" * 32,
        started=0.0,
        feed=None,
    )


def summary(best_metric: float | None) -> TrainSummary:
    return TrainSummary(
        best_step=4, best_loss=1.5, best_metric=best_metric, steps=8, shortened_rows=0, dropped_rows=0,
        adapter_digest_start="", logit_shift=1.0, tokens_seen=100, parameters={}, curve=(),
    )  # fmt: skip


def test_a_worker_leaves_no_folder_of_its_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)  # of the only rank
    own = assignment(tmp_path)
    other = replace(own, step=replace(own.step, seed=1))
    with node_folder(other, 0) as of_another_member:
        pass
    of_another_member.mkdir()
    with node_folder(own, 0) as folder:
        killed = folder.with_name(folder.name.replace(own.holder, "b" * 32))
        killed.mkdir()
        assert Path(tempfile.mkdtemp()).parent == folder
    assert list(tmp_path.iterdir()) == [of_another_member]
    killed.mkdir()
    with node_folder(own, 0) as folder:
        assert not killed.exists(), "left by a worker before this one"
        (killed / "best").mkdir(parents=True)  # it took a while to die
    assert list(tmp_path.iterdir()) == [of_another_member]


def test_another_rank_has_no_tracker(tmp_path: Path) -> None:
    watcher = RayWatcher(assignment(tmp_path), rank=1, local_rank=1)
    assert watcher.tracker is None
    watcher.finish(summary(0.25))
    assert not (tmp_path / "wandb").exists()


def test_a_worker_whose_driver_was_taken_for_dead_ends(
    store: ArtifactStore, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hands over nothing more, and leaves the folder that the new one's workers have on its node."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    slow, second = (Lease(store, "train-tiny", seconds=0.0) for _ in range(2))
    assert slow.take()
    of_slow = replace(assignment(tmp_path), store_url=store_url, holder=slow.holder)
    check_lease(store, of_slow)
    with node_folder(of_slow, 0) as old:
        second.looks_free()
        assert second.take(), "nothing was heard of the first one"
        new = old.with_name(old.name.replace(slow.holder, second.holder))
        new.mkdir()
        with pytest.raises(LeaseLostError, match=r"tiny default seed 0: .* another one has taken it over"):
            RayWatcher(of_slow, rank=1, local_rank=0).checkpoint(tmp_path, 4)
    assert new.is_dir()
    assert not old.exists()


@dataclass
class Listener:
    """Collects what is sent to the flow."""

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)


def checkpoints(place: Path) -> list[Any]:
    """Two, as they were handed over; the newest last."""
    import ray.train

    made = []
    for step in (2, 4):
        work = place / f"work-{step}"
        (work / f"checkpoint-{step}").mkdir(parents=True)
        (work / "origin.json").write_text("{}")
        (work / f"checkpoint-{step}" / "optim_states.pt").write_bytes(b"moments" * 1000 * step)
        shutil.move(assemble_checkpoint(work, step, 0), place / f"step-{step}")
        made.append(ray.train.Checkpoint.from_directory(str(place / f"step-{step}")))
    return made


@pytest.mark.parametrize("harmed", [(), (4,), (2, 4), (2,)])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmed: tuple[int, ...]
) -> None:
    import ray.train

    older, newest = checkpoints(tmp_path)
    reported = [SimpleNamespace(checkpoint=one) for one in (older, newest)]
    monkeypatch.setattr(ray.train, "get_all_reported_checkpoints", lambda: reported)
    for step in harmed:
        path = tmp_path / f"step-{step}" / "state" / "optim_states.pt"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    listener: Any = Listener()
    with ExitStack() as stack:
        folder, whole_path = newest_whole(newest, listener, stack)
    if harmed == (2, 4):
        assert (folder, whole_path) == (None, None)
        assert listener.notes[-1] == "no whole checkpoint is left, the member begins anew"
    else:
        step = 2 if 4 in harmed else 4
        assert folder == tmp_path / f"step-{step}"
        assert whole_path == str(folder)
        assert json.loads((folder / "origin.json").read_text()) == {}
    told = [
        f"{tmp_path}/step-4 is damaged (state/optim_states.pt has 14000 bytes, not 28000)" in n for n in listener.notes
    ]
    assert sum(told) == (4 in harmed)
