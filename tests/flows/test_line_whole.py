"""The whole line, undisturbed: what a run prints, stores and tracks, and that a second run does nothing again.

It takes a minute, and is not marked slow: without it `make test` would start neither Prefect nor Ray nor DeepSpeed.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from line_project import LineProject, broken, lineage, manifests
from offline_runs import read_back

from reseed.data.rows import open_rows
from reseed.evaluation.score_table import load_scores

KINDS = {"shard": 6, "rows": 1, "curated": 1, "partition": 1, "adapter": 1, "predictions": 2, "ensemble": 1,
         "results": 1, "report": 1}  # fmt: skip
ABSOLUTE = re.compile(r"""(?<![\w.~…*:/}>-])/(?:tmp|home|root|var|usr|work|Users|private)/[^\s"'<]*|file://""")


def only(root: Path, kind: str) -> tuple[dict[str, Any], Path]:
    """The only artifact of a kind: its manifest and its files' folder."""
    ((path, manifest),) = [entry for entry in lineage(root).items() if entry[0].startswith(f"{kind}/")]
    return manifest, root / path / manifest["attempt"]


def test_every_artifact_is_there_and_nothing_else(undisturbed: LineProject) -> None:
    root = undisturbed.folder / "store"
    assert list(broken(root)) == []
    kinds = [path.split("/")[0] for path in lineage(root)]
    assert {kind: kinds.count(kind) for kind in kinds} == KINDS
    known = {root / path / m["attempt"] / file["path"] for path, m in manifests(root).items() for file in m["files"]}
    known |= {root / path / "manifest.json" for path in manifests(root)} | set((root / "refs").rglob("*.json"))
    left = {path for path in root.rglob("*") if path.is_file()} - known
    assert {path for path in left if path.suffix != ".lock"} == set(), "no checkpoints, no parts of anything"


def test_nothing_listens_but_on_loopback(undisturbed: LineProject) -> None:
    """Ray's own processes, its workers, a member's ranks, and Prefect's server."""
    listened = (undisturbed.folder / "listening.txt").read_text().splitlines()
    for program in ("gcs_server", "raylet", "ray::EngineActor", "ray::RayTrainWorker"):
        assert any(f" {program}" in line for line in listened), "it was looked at"
    assert [line for line in listened if line.split()[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


def test_work_without_a_gpu_sees_none(undisturbed: LineProject) -> None:
    seen = dict(line.split("=", 1) for line in (undisturbed.folder / "visible.txt").read_text().splitlines())
    assert seen == {"ray::EngineActor": "''", "ray::RayTrainWorker": "''", "ray::make_in_worker": "''"}


def test_manifests_tell_where_things_came_from(undisturbed: LineProject) -> None:
    root = undisturbed.folder / "store"
    every = lineage(root)
    for path, manifest in every.items():
        assert manifest["attempt"]
        assert {"torch", "transformers", "ray", "prefect"} <= set(manifest["packages"])
        for given in manifest["inputs"].values():
            assert given in every, f"{path} says that it came from {given}"
    adapter, _ = only(root, "adapter")
    assert adapter["seed"] == 0
    assert adapter["metrics"]["steps"] > 27
    assert list(adapter["inputs"]) == ["partition"]
    results, _ = only(root, "results")
    assert set(results["inputs"]) == {
        "partition default", "adapter default seed 0", "predictions default seed 0", "predictions untrained",
        "ensemble default",
    }  # fmt: skip


def test_rows_too_long_for_the_generator_are_counted(undisturbed: LineProject) -> None:
    manifest, folder = only(undisturbed.folder / "store", "curated")
    assert manifest["metrics"]["dropped"]["too-long"] == 4
    kept = list(open_rows(folder))
    assert kept
    assert all(len(row["original_text"]) < 200 for row in kept)


def test_an_adapter_is_two_files_that_name_no_place(undisturbed: LineProject) -> None:
    manifest, folder = only(undisturbed.folder / "store", "adapter")
    names = {file["path"] for file in manifest["files"]}
    assert names == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "curve.jsonl"}
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert not config["base_model_name_or_path"].startswith("/")
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    validated = [point["step"] for point in curve if point["validation"] is not None]
    assert validated[0] == 9
    assert validated[-1] == manifest["metrics"]["steps"]


def text_of(path: Path) -> str:
    """A file's text; of Parquet both what its bytes show and what its rows hold."""
    if path.suffix == ".parquet":
        return path.read_bytes().decode(errors="replace") + json.dumps(list(open_rows(path.parent, path.stem)))
    return path.read_text(encoding="utf-8")


def test_no_text_in_the_store_names_a_place_or_holds_a_secret(undisturbed: LineProject) -> None:
    found = []
    for path in (undisturbed.folder / "store").rglob("*"):
        if path.is_file() and path.suffix not in {".safetensors", ".lock"}:
            text = text_of(path)
            found += [f"{path}: {hit.group()[:80]}" for hit in ABSOLUTE.finditer(text)]
            found += [str(path) for _ in re.finditer(re.escape(undisturbed.environment["PLANTED_SECRET"]), text)]
    assert found == []


def test_results_as_json_and_as_pages(undisturbed: LineProject) -> None:
    code, output = undisturbed.run("results", "tiny", "--json", "--profile", "tiny.yaml")
    assert code == 0, output
    found = json.loads(output)
    assert {"experiment", "question", "metric", "rows", "train_rows", "untrained", "variants", "gain"} <= set(found)
    pairs = [(one["a"], one["b"], one["estimand"]) for one in found["comparisons"]]
    assert pairs[0] == ("default", "untrained", "member")
    assert [b for _, b, _ in pairs[1:]] == ["constant “Improve the text to this.”", "best constant"]
    _, scored = only(undisturbed.folder / "store", "results")
    table = load_scores(scored, "results")
    assert {"untrained", "member/default/0", "ensemble/default", "best constant"} <= set(table.columns)
    assert table.columns["untrained"].mean() == pytest.approx(found["untrained"]["score"])
    (variant,) = found["variants"]
    assert [member["seed"] for member in variant["members"]] == [0]
    assert {"mean", "std", "ensemble"} <= set(variant)
    _, folder = only(undisturbed.folder / "store", "report")
    assert {path.name for path in folder.iterdir()} == {"report.md", "report.html"}
    assert "<html" in (folder / "report.html").read_text()


def test_weights_and_biases_has_a_run_of_the_member_and_one_of_the_experiment(undisturbed: LineProject) -> None:
    adapter, _ = only(undisturbed.folder / "store", "adapter")
    results, _ = only(undisturbed.folder / "store", "results")
    runs = read_back(undisturbed.folder / "undisturbed")
    assert set(runs) == {adapter["key"][:16], results["key"][:16]}
    (member,), (whole,) = runs[adapter["key"][:16]], runs[results["key"][:16]]
    assert (member.group, member.job_type, member.ended) == ("tiny", "member", True)
    assert (whole.group, whole.job_type, whole.ended) == ("tiny", "results", True)
    assert member.history[-1]["validation/loss"] > 0
    assert {"default/mean", "default/ensemble", "untrained"} <= set(whole.summary)
    assert {entry["path"] for entry in member.artifacts["model"]["manifest"]["contents"]} == {
        file["path"] for file in adapter["files"]
    }
    assert {"dataset", "model", "run_table"} <= set(whole.artifacts)
    assert member.measured, "of the machine"


def test_it_says_what_it_does_and_ends_with_a_table(undisturbed: LineProject) -> None:
    output = (undisturbed.folder / "output.txt").read_text()
    for said in ("generate: rows: 48 of 48", "dropped: {", "train, ", "step 9, validation loss", "± std", "untrained"):
        assert said in output, output
    assert "Traceback" not in output


def test_a_second_run_does_nothing_again(undisturbed: LineProject) -> None:
    """Not even where the parts of joined rows are gone."""
    root = undisturbed.folder / "store"
    (root / "shard").rename(undisturbed.folder / "shards")
    try:
        check_second_run(undisturbed)
        assert not (root / "shard").exists()
    finally:
        shutil.rmtree(root / "shard", ignore_errors=True)
        (undisturbed.folder / "shards").rename(root / "shard")


def check_second_run(undisturbed: LineProject) -> None:
    root = undisturbed.folder / "store"
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*/*/manifest.json")}
    begin = time.monotonic()
    code, output = undisturbed.line()
    seconds = time.monotonic() - begin
    assert code == 0, output
    assert output.count(": in the store") == 7, output  # rows, curated, partition, adapter, ensemble, results, report
    assert "generate: rows" not in output
    assert "predict: 2 of 2 are in the store" in output
    assert ": done in" not in output
    assert {path: path.stat().st_mtime_ns for path in root.glob("*/*/*/manifest.json")} == before
    assert seconds < 30, "nothing heavy was started"
    assert undisturbed.left_after(10) == []


def test_a_result_that_a_killed_flow_did_not_track_is_tracked_by_the_next(undisturbed: LineProject) -> None:
    """It had made the pages."""
    tracked = (undisturbed.folder / "store" / "refs" / "results" / "tiny").glob("tracked-*.json")
    for path in tracked:
        path.unlink()
    shutil.rmtree(undisturbed.folder / "wandb")
    for _ in range(2):
        code, output = undisturbed.line()
        assert code == 0, output
        assert len(list((undisturbed.folder / "wandb").glob("offline-run-*"))) == 1
    results, _ = only(undisturbed.folder / "store", "results")
    assert list(read_back(undisturbed.folder)) == [results["key"][:16]]
