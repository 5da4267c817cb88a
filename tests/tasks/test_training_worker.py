"""What a member's worker tells those who watch it, without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reseed.models.names import ModelSpec
from reseed.recipe import TrainingSettings
from reseed.records import Artifact
from reseed.steps import Step
from reseed.tracking import Tracker
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
        run_name="tiny default seed 0",
        wandb_folder=str(folder / "wandb"),
        attempt="a" * 12,
        started=0.0,
        feed=None,
    )


def summary(best_metric: float | None) -> TrainSummary:
    return TrainSummary(
        best_step=4, best_loss=1.5, best_metric=best_metric, steps=8, shortened_rows=0, dropped_rows=0,
        adapter_digest_start="", logit_shift=1.0, tokens_seen=100, parameters={}, curve=(),
    )  # fmt: skip


@pytest.mark.parametrize("metric", [None, 0.25])
def test_the_tracker_is_told_what_chose_the_best_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: float | None
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    told: dict[str, Any] = {}
    finish = Tracker.finish

    def heard(tracker: Tracker, values: Mapping[str, Any]) -> None:
        told.update(values)
        finish(tracker, values)

    monkeypatch.setattr(Tracker, "finish", heard)
    RayWatcher(assignment(tmp_path), rank=0, local_rank=0).finish(summary(metric))
    assert told == {"best_step": 4, "best_loss": 1.5} | ({"best_metric": metric} if metric is not None else {})


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
    watcher.finish(summary(0.25))
    assert not (tmp_path / "wandb").exists()
