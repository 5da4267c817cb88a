"""The benchmarks run, on tiny shapes: those that need a GPU too."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import save_model, save_profile, save_recipe

REPOSITORY = Path(__file__).resolve().parent.parent


NEEDS_A_GPU = {"float16", "adamw-8bit", "paged-adamw-8bit"}


@pytest.mark.slow
def test_gpu_day_runs_on_a_cpu_with_tiny_shapes(tmp_path: Path) -> None:
    """Every section; what a CPU cannot run is a row that says so, and the tables go between their marks."""
    out, page = tmp_path / "day.json", tmp_path / "page.md"
    page.write_text("before\n<!-- gpu-day: begin -->\nold\n<!-- gpu-day: end -->\nafter\n")
    subprocess.run(
        [sys.executable, "bench/gpu_day.py", "--tiny", "--out", str(out), "--write", str(page)],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, check=True, timeout=900,
    )  # fmt: skip
    sections = json.loads(out.read_text())["sections"]
    rows = {name: {row["what"]: row for row in section["rows"]} for name, section in sections.items()}
    assert {what for found in rows.values() for what, row in found.items() if "failed" in row} == NEEDS_A_GPU, rows
    assert {name: len(found) for name, found in rows.items()} == {
        "trainer": 1, "nf4": 3, "precision": 3, "optimisers": 3, "offload": 5, "resume": 3, "engine": 2, "mixtral": 3,
    }  # fmt: skip
    exact = [row for what, row in rows["nf4"].items() if what.endswith("float32")]
    assert all(row["logits off by"] < 1e-4 and row["gradients off by"] < 1e-3 for row in exact), exact
    assert all(row["same adapter"] for row in rows["resume"].values())
    losses = [row["last loss"] for row in rows["offload"].values()]
    assert losses == pytest.approx([losses[0]] * 5, rel=0.01)
    assert all(row["tokens/s"] > 0 and row["planned GiB"] > 0 for row in rows["mixtral"].values())
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert all(f"**{name}**" in text for name in sections)


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


BARE = "import json, sys; sys.path.insert(0, 'bench'); import line; line.RECIPE, line.PROFILE = sys.argv[1:]; "


@pytest.mark.slow
def test_the_bare_script_beside_the_line_runs_on_tiny_models(tmp_path: Path) -> None:
    profile = save_profile(tmp_path, str(tmp_path / "store"))
    recipe = save_recipe(
        tmp_path, training={"epochs": 1, "learning_rate": 0.01, "batch_size": 4, "max_tokens": 512},
        generation={"passages": str(tmp_path / "passages.txt"), "prompts": str(tmp_path / "prompts.txt"), "rows": 48,
                    "max_new_tokens": 200, "temperature": 1.0, "top_p": 1.0},
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", f"{BARE}print(json.dumps(line.bare()))", str(recipe), str(profile)],
        cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY), "RESEED_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert set(json.loads(done.stdout.splitlines()[-1])) == {"untrained", "ensemble", "rows"}


def test_rows_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    (tmp_path / "cache").mkdir()
    profile = save_profile(tmp_path, "unused")
    command = [sys.executable, "bench/rows.py", "--rows", "200", "400", "--profile", str(profile), "--out", str(out)]
    subprocess.run(
        command, cwd=REPOSITORY, check=True, timeout=200,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "RESEED_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert [run["rows"] for run in json.loads(out.read_text())] == [200, 400]


def test_store_answers_from_a_folder(tmp_path: Path) -> None:
    command = [sys.executable, "bench/store.py", "--artifacts", "40", "--where", "folder", "--old"]
    subprocess.run(
        [*command, "--out", str(tmp_path / "out.json")],
        cwd=REPOSITORY, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, check=True, timeout=200,
    )  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["artifacts"] == 40
    assert len(found["seconds"]["folder"]) == 7


def test_truth_is_simulated(tmp_path: Path) -> None:
    """Few comparisons in each of 120 cells are many together; the file keeps what a second run leaves out."""
    out, page = tmp_path / "truth.json", tmp_path / "page.md"
    page.write_text("before\n<!-- truth: begin -->\nold\n<!-- truth: end -->\nafter\n")
    command = [sys.executable, "bench/truth.py", "--members", "20", "--rows", "400", "--out", str(out)]
    for only, more in (
        ("false calls,constants", ["--comparisons", "30", "--processes", "2"]),
        ("constants", ["--comparisons", "30", "--processes", "1", "--write", str(page)]),
    ):
        before = json.loads(out.read_text())["sections"] if out.exists() else {}
        done = [*command, "--only", only, *more]
        subprocess.run(done, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True, timeout=200)
    found = json.loads(out.read_text())["sections"]
    same = {name: section["cells"] for name, section in before.items()}
    assert {name: section["cells"] for name, section in found.items()} == same, (
        "the number of processes changes nothing"
    )
    cells = found["false calls"]["cells"]
    assert len(cells) == 10 * 3 * 4

    def rate(name: str) -> float:
        return float(sum(cell[name][0] for cell in cells.values()) / sum(cell[name][1] for cell in cells.values()))

    assert rate("crossed delete-one jackknife, Satterthwaite t") < 0.06
    assert rate("rows as if independent, ±1.96 · sd/√n") > 0.15
    assert rate("covered") > 0.94
    chosen, fitted = (
        found["constants"]["cells"][""][name][0] / 30 for name in ("chosen on the test rows", "cross-fitted")
    )
    assert chosen > 0.055 > 0.045 > fitted, "each constant is worth 0.03"
    text = page.read_text()
    assert "old" not in text
    assert all(part in text for part in ("**False calls**", "**The best of 140 constants**", "beyond the nine"))
