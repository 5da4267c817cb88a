"""A project with tiny models for the tests of the whole line, and one undisturbed run that several tests look at."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from line_project import LineProject, listening, visible_gpus
from tiny import save_profile, save_recipe

from infra.local.server import down, up

ROOT = Path(__file__).parents[2]
MakeProject = Callable[..., LineProject]


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeProject]:
    """Makes working folders; they share the tiny models and the model cache. What runs in them at the end is killed."""
    shared = tmp_path_factory.mktemp("shared")
    save_profile(shared, store="store")
    made: list[LineProject] = []

    def make(**environment: str) -> LineProject:
        folder = tmp_path_factory.mktemp("project")
        shutil.copy(shared / "tiny.yaml", folder)
        save_recipe(folder)
        made.append(LineProject(folder, {"RESEED_CACHE": str(shared / "cache"), **environment}))
        return made[-1]

    yield make
    for project in made:
        project.stop()


@pytest.fixture(scope="session")
def served(make_project: MakeProject) -> Iterator[LineProject]:
    """A copy of the repository with the tiny recipe and profile, and its Prefect server."""
    project = make_project(PLANTED_SECRET="a-value-that-must-not-travel")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, project.folder / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in project.environment.items():
            patch.setenv(name, value)
        try:
            up(project.folder, port, say=lambda _: None)
        except BaseException:
            down(project.folder, say=lambda _: None)  # a server whose deployments were refused goes on otherwise
            raise
    yield project
    down(project.folder, say=lambda _: None)


@pytest.fixture(scope="session")
def undisturbed(served: LineProject) -> LineProject:
    """The project after one whole run of the line, with its output, where it listened, and what it tracked, kept aside."""
    listened, visible, ended = set[str](), set[str](), threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            processes = served.processes()
            listened.update(listening(processes))
            visible.update(visible_gpus(processes))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        code, output = served.line()
    finally:
        ended.set()
        watching.join()
    (served.folder / "output.txt").write_text(output)
    (served.folder / "listening.txt").write_text("\n".join(sorted(listened)))
    (served.folder / "visible.txt").write_text("\n".join(sorted(visible)))
    shutil.copytree(served.folder / "wandb", served.folder / "undisturbed" / "wandb", symlinks=True)
    assert code == 0, output
    return served
