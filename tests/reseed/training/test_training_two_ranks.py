"""Two ranks under DeepSpeed do as one process alone: stages, optimiser state, metric, and a loss that is NaN or infinite."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from test_training_deepspeed import losses, result, torchrun
from tiny import save_embedder
from tiny_rows import PROBLEM, SHORT, Recorder, job, rows

from reseed.models.names import ModelSpec
from reseed.training.job import Judge, TrainSummary
from reseed.training.loop import train

pytestmark = pytest.mark.slow
FIRST: dict[str, Any] = {"keep_optimizer": True, "evaluate_every": 5}
SECOND: dict[str, Any] = FIRST | {
    "gradient_checkpointing": True, "schedule": "cyclic", "cycles": 2, "choose_by": "metric", "metric_rows": 5,
}  # fmt: skip


def alone(place: Path, model: Path, settings: dict[str, Any], judge: Judge | None, start: Path | None) -> TrainSummary:
    """One process without DeepSpeed."""
    what = replace(job(model, settings=SHORT.model_copy(update=settings)), judge=judge)
    seen = Recorder(place / "seen")
    summary = train(what, PROBLEM, rows(40), rows(47)[40:], place / "work", seen, start=start)
    assert summary is not None
    return summary


def test_two_ranks_do_as_one_process(tiny_model: Path, shared_cache: Path, tmp_path: Path) -> None:
    embedder = str(save_embedder(tmp_path / "embedder"))
    judge = Judge(ModelSpec(name=embedder, dtype="float32"), 12, True)
    one, two, wild = (tmp_path / name for name in ("one", "two", "wild"))
    first = alone(tmp_path / "first", tiny_model, FIRST, None, None)
    second = alone(tmp_path / "second", tiny_model, SECOND, judge, tmp_path / "first" / "work" / "best")
    runs: list[dict[str, Any]] = [
        {"out": str(one), "settings": FIRST},
        {"out": str(two), "settings": SECOND, "start": str(one / "work" / "best"), "embedder": embedder},
        {"out": str(wild), "settings": {"learning_rate": 1e30, "evaluate_every": 100}},
    ]
    torchrun(tmp_path, shared_cache, tiny_model, [run | {"rows": 40} for run in runs])
    for there, here in ((one, first), (two, second)):
        curve = result(there)["curve"]
        assert result(there)["tokens_seen"] == here.tokens_seen
        assert losses(curve) == pytest.approx([point.train or point.validation for point in here.curve], rel=1e-4)
        assert [p["metric"] or 0.0 for p in curve] == pytest.approx(
            [point.metric or 0.0 for point in here.curve], rel=1e-3
        )
    for place, folder in ((one, "first"), (two, "second")):
        kept = load_file(place / "work" / "best" / "optimizer.safetensors")
        wanted = load_file(tmp_path / folder / "work" / "best" / "optimizer.safetensors")
        assert kept.keys() == wanted.keys()
        assert kept["step"] == wanted["step"]
        for name, value in wanted.items():
            assert float((kept[name] - value).norm()) <= 1e-2 * float(value.norm()), name
    said = re.match(r"training: the loss is (nan|inf) at step 2, in the batch of rows (.*?);", result(wild)["error"])
    assert said is not None, result(wild)
    assert len(said[2].split(", ")) == 4, "the rows of both ranks"
