"""Ctrl-C in the middle of training, with no Prefect server of the project: the temporary one has to go too.

Before the same command goes on, the newest checkpoint is damaged.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import MakeProject
from line_project import LineProject, contents, describe, eventually

pytestmark = pytest.mark.slow


def trainers(project: LineProject) -> list[str]:
    """The training workers that live."""
    return [name for name in map(describe, project.processes()) if name.startswith("ray::RayTrainWorker")]


def listed(project: LineProject) -> list[Path]:
    """The member's checkpoints that Ray Train knows, oldest first."""
    for snapshot in (project.folder / "store" / "scratch" / "train").glob("*/checkpoint_manager_snapshot.json"):
        with suppress(ValueError):  # it is just written
            names = json.loads(snapshot.read_text())["checkpoint_results"]
            return [snapshot.parent / one["checkpoint_dir_name"] for one in names]
    return []


def cut(checkpoint: Path) -> None:
    """Half of the moments is lost."""
    (moments,) = checkpoint.rglob("*optim_states.pt")
    with moments.open("r+b") as file:
        file.truncate(moments.stat().st_size // 2)


def test_ctrl_c_ends_everything_and_the_same_command_goes_on(
    undisturbed: LineProject, make_project: MakeProject
) -> None:
    project = make_project()
    for kind in ("shard", "rows", "curated", "partition"):  # the line up to training
        shutil.copytree(undisturbed.folder / "store" / kind, project.folder / "store" / kind)
    log = project.folder / "output.txt"
    with log.open("w") as file:
        process = project.start("run", "tiny-recipe.yaml", "--profile", "tiny.yaml", log=file)
    eventually(lambda: process.poll() is not None or len(listed(project)) == 2)
    assert trainers(project), log.read_text()
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to every process of the command
    begin = time.monotonic()
    code = process.wait(timeout=60)
    seconds = time.monotonic() - begin
    said = log.read_text()
    assert code == 130, said
    assert said.count("reseed: stopped; what was finished is kept, run the same command again to continue") == 1
    assert "Traceback" not in said
    assert project.left_after(30) == []
    assert seconds < 30, "it does not wait for the training to end"
    assert not list((project.folder / "store" / "adapter").glob("*/*/manifest.json"))

    _, damaged = listed(project)
    cut(damaged)
    code, said = project.line()
    assert code == 0, said
    assert f"{damaged.name}isdamaged(state/global_step" in "".join(said.split()), said  # a long line is wrapped
    assert "step 9, validation" not in said, "it did not begin anew"
    assert contents(project.folder / "store") == contents(undisturbed.folder / "store")
    assert project.left_after(30) == []
