"""The whole line on a real S3 server: only the profile's store is another one."""

from __future__ import annotations

import random
import uuid

import pytest
from conftest import MakeProject
from line_project import LineProject, describe, eventually, kill, lineage
from s3_server import SECRET_KEY

from reseed.evaluation.experiment import latest_results
from reseed.store import ArtifactStore

pytestmark = pytest.mark.slow


def test_the_line_and_its_checkpoints_on_s3(
    undisturbed: LineProject, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3_url}/{uuid.uuid4().hex[:12]}"
    log = undisturbed.folder / "s3.txt"
    with log.open("w") as file:
        process = undisturbed.start(
            "run", "tiny-recipe.yaml", "--profile", "tiny.yaml", "--set", f"profile.store={url}",
            "--set", "seeds=[0, 1]", log=file,
        )  # fmt: skip
    try:
        eventually(lambda: process.poll() is not None or "seed 0: step 18, validation" in log.read_text())
        trainers = [p for p in undisturbed.processes() if describe(p).startswith("ray::RayTrainWorker")]
        assert trainers, log.read_text()
        kill(random.Random(1).choice(trainers))
        eventually(lambda: process.poll() is not None)
    finally:
        undisturbed.stop()
    said = log.read_text()
    assert process.returncode == 0, said
    for seed in (0, 1):
        assert said.count(f"seed {seed}: step 9, validation") == 1, "a killed worker went on from a checkpoint"

    monkeypatch.setenv("RESEED_CACHE", str(undisturbed.folder / "s3-cache"))
    store = ArtifactStore(url)
    results = latest_results(store, "tiny")
    assert [member.seed for member in results.variants[0].members] == [0, 1]
    local = {path: m for path, m in lineage(undisturbed.folder / "store").items() if not path.startswith("results/")}
    for path, manifest in local.items():
        stored = next(m for m in store.list(path.split("/")[0]) if m.artifact.path == path)
        assert {f.path: f.sha256 for f in stored.files} == {f["path"]: f["sha256"] for f in manifest["files"]}
        store.fetch(stored.artifact)  # compares every file with its digest
    checkpoints = store.scratch("train")
    assert set(store.fs.find(checkpoints)) <= {checkpoints}, "they are gone; a folder's empty entry may stay"


def test_wrong_credentials_are_one_message(make_project: MakeProject, s3_url: str) -> None:
    project = make_project(AWS_SECRET_ACCESS_KEY="not-the-secret-of-this-server")
    code, output = project.line("--set", f"profile.store={s3_url}/nowhere")
    assert code == 2, output
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL" in output
    assert "Traceback" not in output
    assert "not-the-secret-of-this-server" not in output
    assert SECRET_KEY not in output
