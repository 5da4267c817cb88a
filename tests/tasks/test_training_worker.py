"""What a member's worker tells those who watch it, without Ray."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reseed.models.names import ModelSpec
from reseed.recipe import TrainingSettings
from reseed.records import Artifact
from reseed.steps import Step
from reseed.store import ArtifactStore
from reseed.training.loop import TrainJob, TrainSummary
from tasks.training_worker import Assignment, RayWatcher, node_folder


def assignment(folder: Path) -> Assignment:
    return Assignment(
        step=Step("train", 1, "adapter", "tiny-default", {"training": {"rank": 8}}, seed=0),
        problem="prompt-recovery",
        job=TrainJob(ModelSpec(name="tiny"), TrainingSettings(), seed=0, world=1, micro_batch_size=1),
        partition=Artifact("partition", "tiny", "0" * 32),
        start=None,
        store_url=str(folder / "store"),
        experiment="tiny",
        run_name="tiny default seed 0",
        wandb_folder=str(folder),
        node="",
        attempt="a" * 12,
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
        killed = folder.with_name(folder.name.replace(own.attempt, "b" * 12))
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
    watcher.finish(summary(0.25), ArtifactStore(str(tmp_path / "store")))
    assert not (tmp_path / "wandb").exists()
