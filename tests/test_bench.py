"""The benchmarks that need a GPU run here too, on a tiny shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
