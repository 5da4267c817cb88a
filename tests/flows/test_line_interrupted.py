"""Ctrl-C in the middle of training, with no Prefect server of the project: the temporary one has to go too."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
from conftest import MakeProject
from line_project import LineProject, contents, describe, eventually

pytestmark = pytest.mark.slow


def trainers(project: LineProject) -> list[str]:
    """The training workers that live."""
    return [name for name in map(describe, project.processes()) if name.startswith("ray::RayTrainWorker")]


def test_ctrl_c_ends_everything_and_the_same_command_goes_on(
    undisturbed: LineProject, make_project: MakeProject
) -> None:
    project = make_project()
    for kind in ("shard", "rows", "curated", "partition"):  # the line up to training
        shutil.copytree(undisturbed.folder / "store" / kind, project.folder / "store" / kind)
    log = project.folder / "output.txt"
    with log.open("w") as file:
        process = project.start("run", "tiny-recipe.yaml", "--profile", "tiny.yaml", log=file)
    eventually(lambda: process.poll() is not None or trainers(project))
    assert process.poll() is None, log.read_text()
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to every process of the command
    begin = time.monotonic()
    code = process.wait(timeout=60)
    seconds = time.monotonic() - begin
    said = log.read_text()
    assert code == 130, said
    assert said.count("reseed: stopped; what was finished is kept, the same command goes on from there") == 1
    assert "Traceback" not in said
    assert project.left_after(30) == []
    assert seconds < 30, "it does not wait for the training to end"
    assert not list((project.folder / "store" / "adapter").glob("*/*/manifest.json"))

    code, said = project.line()
    assert code == 0, said
    assert contents(project.folder / "store") == contents(undisturbed.folder / "store")
    assert project.left_after(30) == []
