"""Several ranks: what a label counts, how rows are packed and in which order they come is that of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_training_deepspeed import last_adapter, losses, result, torchrun
from tiny_rows import PROBLEM, SHORT, job, rows

from reseed.training.job import Silent
from reseed.training.loop import train

pytestmark = pytest.mark.slow

SETTINGS: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "batch_size": 8, "loss_on": "weighted", "prompt_weight": 0.3},
    "chat": {"prompt_format": "chat", "system": "Name it.", "too_long": "drop", "max_tokens": 400},
    "grouped": {"group_by_length": True, "batch_size": 8, "epochs": 2},
}


def test_two_ranks_train_as_one(tiny_model: Path, shared_cache: Path, tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = [{"out": str(tmp_path / name), "settings": SETTINGS[name]} for name in SETTINGS]
    half = tmp_path / "half"
    runs.append({"out": str(half), "settings": SETTINGS["grouped"], "stop_after": 8})  # in the second of two epochs
    again = {"out": str(tmp_path / "again"), "settings": SETTINGS["grouped"], "resume": str(half / "seen" / "step-8")}
    whole = [run | {"rows": 40, "settings": {"evaluate_every": 2} | run["settings"]} for run in (*runs, again)]
    torchrun(tmp_path, shared_cache, tiny_model, whole)
    for name in SETTINGS:
        settings = SHORT.model_copy(update=SETTINGS[name])
        place = tmp_path / f"alone-{name}"
        summary = train(job(tiny_model, settings=settings), PROBLEM, rows(40), rows(47)[40:], place / "work", Silent())
        assert summary is not None
        wanted = [point.train or point.validation for point in summary.curve]
        assert losses(result(tmp_path / name)["curve"]) == pytest.approx(wanted, rel=1e-4), name
    assert result(tmp_path / "again")["curve"] == result(tmp_path / "grouped")["curve"]
    assert last_adapter(tmp_path / "again") == last_adapter(tmp_path / "grouped")
