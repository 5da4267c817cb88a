"""The whole line on a real S3 server: only the profile's store is another one, and two drivers share it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid

import pytest
from conftest import MakeProject
from line_project import LineProject, describe, eventually, lineage
from s3_server import SECRET_KEY

from reseed.evaluation.experiment import latest_results
from reseed.store.artifacts import ArtifactStore

pytestmark = pytest.mark.slow


class Driver:
    """The command in a project, on the common store."""

    def __init__(self, project: LineProject, name: str, url: str) -> None:
        self.project, self.log = project, project.folder / f"{name}.txt"
        with self.log.open("w") as file:
            self.process: subprocess.Popen[str] = project.start(
                "run", "tiny-recipe.yaml", "--profile", "tiny.yaml", "--set", f"profile.store={url}",
                "--set", "seeds=[0, 1]", log=file,
            )  # fmt: skip

    def reach(self, text: str) -> None:
        """Wait until the driver says so."""
        eventually(lambda: text in self.says() or self.process.poll() is not None)
        assert text in self.says(), self.says()

    def says(self) -> str:
        return self.log.read_text()

    def ends(self) -> str:
        """Wait for its end, which is a good one; its verdict."""
        eventually(lambda: self.process.poll() is not None)
        assert self.process.returncode == 0, self.says()
        return next(line for line in self.says().splitlines() if line.startswith("default − untrained: "))


def test_two_drivers_that_share_nothing_but_s3(
    undisturbed: LineProject, make_project: MakeProject, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is killed in the middle of a member, with the second one waiting for it, and started again."""
    url = f"{s3_url}/{uuid.uuid4().hex[:12]}"
    home = tempfile.mkdtemp(prefix="rs")  # the path of Ray's sockets must be short
    other = make_project(RESEED_CACHE=f"{home}/cache", HOME=home, TMPDIR=home)
    try:
        first = Driver(undisturbed, "s3-first", url)
        first.reach("seed 0: step 18, validation")
        for process in undisturbed.processes():
            if describe(process).startswith("ray::RayTrainWorker"):
                process.send_signal(signal.SIGSTOP)  # or the member would be done before the second driver comes to it
        second = Driver(other, "s3-second", url)
        second.reach("waits for another flow, which trains it")
        assert f", process {first.process.pid}, since 20" in second.says()
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        again = Driver(undisturbed, "s3-again", url)
        assert second.ends() == again.ends()
    finally:
        undisturbed.stop()
        other.stop()
        shutil.rmtree(home, ignore_errors=True)
    said = first.says() + second.says() + again.says()
    done = [line.split(": done in")[0].split()[-1] for line in said.splitlines() if ": done in" in line]
    trained = [name for name in done if name.startswith("adapter/")]
    assert len(trained) == len(set(trained)) == 2, "each member is trained by one of them"
    assert said.count("seed 0: step 9, validation") == 1, "whoever took it over resumed from the checkpoint"

    monkeypatch.setenv("RESEED_CACHE", str(undisturbed.folder / "s3-cache"))
    store = ArtifactStore(url)
    results = latest_results(store, "tiny")
    assert [member.seed for member in results.variants[0].members] == [0, 1]
    local = {
        path: m
        for path, m in lineage(undisturbed.folder / "store").items()
        if not path.startswith(("results/", "report/", "ensemble/"))
    }
    for path, manifest in local.items():
        stored = next(m for m in store.list(path.split("/")[0]) if m.artifact.path == path)
        assert {f.path: f.sha256 for f in stored.files} == {f["path"]: f["sha256"] for f in manifest["files"]}
        store.fetch(stored.artifact)  # compares every file with its digest
    for place in (store.scratch("train"), store.scratch("leases")):
        assert set(store.fs.find(place)) <= {place}, "they are gone; a folder's empty entry may stay"


def test_wrong_credentials_are_one_message(make_project: MakeProject, s3_url: str) -> None:
    project = make_project(AWS_SECRET_ACCESS_KEY="not-the-secret-of-this-server")
    code, output = project.line("--set", f"profile.store={s3_url}/nowhere")
    assert code == 2, output
    assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL" in output
    assert "Traceback" not in output
    assert "not-the-secret-of-this-server" not in output
    assert SECRET_KEY not in output
