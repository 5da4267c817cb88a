"""The benchmarks run, on tiny shapes: those that need a GPU too."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import save_model

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_gpu_training_runs_on_a_cpu_with_a_tiny_shape(tmp_path: Path, method: str) -> None:
    command = [sys.executable, "bench/gpu_training.py", "--shape", "tiny", "--method", method, "--tokens", "32", "64"]
    subprocess.run(
        [*command, "--steps", "2", "--out", str(tmp_path / "out.json")],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}, check=True, timeout=200,
    )  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [one["tokens"] for one in found] == [32, 64]
    assert all(one["tokens_per_second"] > 0 and one["planned_bytes"] > 0 and one["peak_bytes"] is None for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("contender", ["reseed, packed", "reseed under DeepSpeed, as in a flow", "trl, and packed"])
def test_training_runs_on_a_tiny_model(tmp_path: Path, contender: str) -> None:
    if contender.startswith("trl"):
        pytest.importorskip("trl")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["original_text", "rewritten_text", "rewrite_prompt"])
        for n in range(16):
            text = f"The boat lay in the sun for {n} days and nobody came by."
            table.writerow([text, text.upper(), f"Shout about boat {n}."])
    out = tmp_path / "out.json"
    command = [sys.executable, "bench/training.py", "--data", str(tmp_path / "rows.csv"), "--only", contender]
    command += ["--model", str(save_model(tmp_path / "model")), "--rows", "12", "--validation", "4", "--rounds", "1"]
    subprocess.run(
        [*command, "--threads", "1", "--out", str(out)],
        cwd=REPOSITORY, check=True, timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "RESEED_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    (run,) = json.loads(out.read_text())[contender]
    assert run["tokens_per_second"] > 0
    assert run["curve"]


def test_store_answers_from_a_folder(tmp_path: Path) -> None:
    command = [sys.executable, "bench/store.py", "--artifacts", "40", "--where", "folder", "--old"]
    subprocess.run(
        [*command, "--out", str(tmp_path / "out.json")],
        cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True, timeout=200,
    )  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["artifacts"] == 40
    assert len(found["seconds"]["folder"]) == 7
