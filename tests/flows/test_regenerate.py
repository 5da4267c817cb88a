"""The nightly: a day has one version, however often it is run; `latest` is the newest day."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from line_project import LineProject, manifests, server_of

from infra.local.settings import environment
from reseed.data.sources import DATASET

pytestmark = pytest.mark.slow
SCRIPT = """
import sys
from datetime import date
from flows.regenerate import regenerate
print(regenerate("tiny-recipe.yaml", "tiny.yaml", date.fromisoformat(sys.argv[1])).path)
"""


def start(project: LineProject, day: str) -> subprocess.Popen[str]:
    """The flow for one day, in a process of its own, on the project's server."""
    server = environment(project.folder, server_of(project))
    whole = {**server, **project.whole_environment, "PYTHONPATH": str(project.folder)}
    kept = {key: value for key, value in whole.items() if not key.startswith("PREFECT_") or key in server}
    kept |= {key: value for key, value in server.items() if key.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, day], cwd=project.folder, env=kept | {"HOME": os.environ["HOME"]},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    """The artifact's path, the last line that the process printed."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def first(served: LineProject) -> str:
    """The version of 20 November."""
    return ended(start(served, "2026-11-20"))


def test_a_second_run_for_one_day_makes_nothing_new(served: LineProject, first: str) -> None:
    before = manifests(served.folder / "store")
    assert ended(start(served, "2026-11-20")) == first
    assert manifests(served.folder / "store") == before
    assert {"2026-11-20", "latest"} <= set(served.store.refs(DATASET, "tiny"))


def test_latest_is_the_newest_day_not_the_last_run(served: LineProject, first: str) -> None:
    newer = ended(start(served, "2026-11-21"))
    older = ended(start(served, "2026-11-19"))
    refs = {name: artifact.path for name, artifact in served.store.refs(DATASET, "tiny").items()}
    assert len({first, newer, older}) == 3, "another day draws other rows"
    assert refs["2026-11-19"] == older
    assert refs["latest"] == refs["2026-11-21"] == newer


def test_two_at_once_make_one_version(served: LineProject, first: str) -> None:
    racers = [start(served, "2026-11-18") for _ in range(2)]
    made = {ended(racer) for racer in racers}
    assert made == {served.store.refs(DATASET, "tiny")["2026-11-18"].path}


def test_a_recipe_trains_on_a_version_by_its_name(served: LineProject, first: str) -> None:
    told = [served.run("plan", "tiny-recipe.yaml", "--profile", "tiny.yaml", "--set", f"data.train=tiny@{ref}")
            for ref in ("latest", "2026-11-20", "2020-01-01")]  # fmt: skip
    assert [code for code, _ in told] == [0, 0, 2]
    assert "import" in told[0][1]
    assert "generate" not in told[0][1]
    assert "tiny@2020-01-01" in told[2][1]
    assert "2026-11-20" in told[2][1], "the versions that exist are named"
