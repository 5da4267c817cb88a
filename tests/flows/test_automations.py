"""What `reseed up` switches on, on a real server; and the unit, as systemd reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from line_project import LineProject, server_of

from infra.local.api import ask
from infra.local.automations import switch_on
from reseed.records import ReseedError

ROOT = Path(__file__).parents[2]
FILE = Path("infra/prefect/automations.yaml")
Call = Callable[[str, Any, str], Any]


@pytest.fixture
def call(served: LineProject) -> Iterator[Call]:
    """The API of the project's server, whose automations are afterwards as its file says."""
    server = server_of(served)
    call = partial(ask, server)
    yield call
    (served.folder / ".reseed/automated").unlink()
    switch_on(served.folder, server.server_pid, call, print)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the file."""
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / ".reseed").mkdir()
    shutil.copy(ROOT / FILE, tmp_path / FILE)
    return tmp_path


def known(call: Call) -> dict[str, dict[str, Any]]:
    """The server's automations by name."""
    return {found["name"]: found for found in call("/automations/filter", {}, "POST")}


@pytest.mark.slow
def test_automations_follow_their_file_and_nothing_else_is_touched(call: Call, project: Path) -> None:
    entries = yaml.safe_load((project / FILE).read_text())
    before = known(call)
    assert list(before) == sorted(entry["name"] for entry in entries), "`reseed up` did that"
    theirs = call("/automations/", entries[0] | {"name": "a person's own"}, "POST")
    entries[0]["trigger"]["within"] = 77
    (project / FILE).write_text(yaml.safe_dump(entries[:2]))
    said: list[str] = []
    for _ in range(2):
        switch_on(project, 7, call, said.append)
    assert said == ["switched on 2 automations"], "a second time there is nothing to do"
    after = known(call)
    assert set(after) == {"a person's own", entries[0]["name"], entries[1]["name"]}
    changed = after[entries[0]["name"]]
    assert (changed["id"], changed["trigger"]["within"]) == (before[entries[0]["name"]]["id"], 77.0)
    switch_on(project, 8, call, said.append)
    assert len(said) == 2, "another server may have another database"
    call(f"/automations/{theirs['id']}", None, "DELETE")


@pytest.mark.slow
def test_a_refused_automation_names_its_file_and_itself(call: Call, project: Path) -> None:
    text = (project / FILE).read_text()
    (project / FILE).write_text(text.replace("posture: Proactive", "posture: Sleepy"))
    with pytest.raises(
        ReseedError, match=r"(?s)automations\.yaml: .*'reseed: crash runs without a heartbeat'.*posture"
    ):
        switch_on(project, 7, call, print)
    assert not (project / ".reseed/automated").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/reseed").write_text("#!/bin/sh\n")
    (folder / ".venv/bin/reseed").chmod(0o755)
    named = subprocess.run(["systemd-escape", "--path", folder], capture_output=True, text=True, check=True)
    unit = tmp_path / f"reseed@{named.stdout.strip()}.service"
    shutil.copy(ROOT / "infra/systemd/reseed@.service", unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", unit], capture_output=True, text=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
