"""A folder with the tiny recipe and profile, the `reseed` command started in it as a user does, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import psutil

from infra.local.processes import marked_processes
from infra.local.server import running
from infra.local.settings import LocalServer
from reseed.store.artifacts import ArtifactStore

RESEED = Path(sys.executable).parent / "reseed"
MARK = "RESEED_TEST_PROJECT"  # in the environment of every process that is started here
PATIENCE = 580  # seconds for a whole line, which takes 45 on two idle cores


@dataclass(frozen=True)
class LineProject:
    """A user's working folder."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_environment(self) -> dict[str, str]:
        """Nothing of the user's Weights & Biases account; the folder's own mark."""
        ours = {MARK: str(self.folder), "NO_COLOR": "1", "COLUMNS": "200", **self.environment}
        return {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"WANDB_MODE": "offline"} | ours

    @property
    def store(self) -> ArtifactStore:
        """The profile's store."""
        return ArtifactStore(str(self.folder / "store"))

    def start(self, *arguments: str, log: IO[str] | int) -> subprocess.Popen[str]:
        """The command in a process group of its own, as a shell starts it; SIGINT is not ignored."""
        command = [str(RESEED), *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.whole_environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, text=True, process_group=0, preexec_fn=default_interrupt,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a command that ends by itself."""
        with self.start(*arguments, log=subprocess.PIPE) as process:
            try:
                output, _ = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        return process.returncode, output

    def line(self, *arguments: str) -> tuple[int, str]:
        """`reseed run` of the tiny recipe."""
        return self.run("run", "tiny-recipe.yaml", "--profile", "tiny.yaml", *arguments)

    def processes(self) -> list[psutil.Process]:
        """Everything that was started here and lives."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            if (process.info["environ"] or {}).get(MARK) == str(self.folder) and process.pid != os.getpid():
                found.append(process)
        return [process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]

    def left_after(self, seconds: float) -> list[str]:
        """The processes that still live after so many seconds, as text; none as soon as there is none."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        return [describe(process) for process in left]

    def stop(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            kill(process)


def listening(processes: Sequence[psutil.Process]) -> set[str]:
    """The addresses and programs of the ports on which they listen."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):  # one that ends just now
            for port in process.net_connections("inet"):
                if port.status == psutil.CONN_LISTEN:
                    found.add(f"{port.laddr.ip} {process.name()}")
    return found


def visible_gpus(processes: Sequence[psutil.Process]) -> set[str]:
    """What computing workers saw of the machine's GPUs."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            title = describe(process)
            for worker in ("ray::EngineActor", "ray::RayTrainWorker", "ray::make_in_worker"):
                if title.startswith(worker):
                    found.add(f"{worker}={process.environ().get('CUDA_VISIBLE_DEVICES')!r}")
    return found


def default_interrupt() -> None:
    """A job in the background of a script is started with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def kill(process: psutil.Process) -> None:
    """SIGKILL, if it still lives."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def describe(process: psutil.Process) -> str:
    """What a process is."""
    try:
        return " ".join(process.cmdline())[:100]
    except psutil.Error:
        return "gone"


def eventually(true: Callable[[], object], seconds: float = PATIENCE, every: float = 0.1) -> None:
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(every)


def server_of(project: LineProject) -> LocalServer:
    """The project's Prefect server. A machine with too much to do may keep it from answering for a while."""
    found: list[LocalServer] = []
    try:
        eventually(lambda: found.extend(filter(None, [running(project.folder)])) or found, 90)
    except AssertionError:
        log = (project.folder / ".reseed/logs/server.log").read_text()[-4000:]
        own = [describe(process) for process in marked_processes(project.folder)]
        raise AssertionError(f"no server answers; what runs: {own}; the end of its log:\n{log}") from None
    return found[0]


def manifests(root: Path) -> dict[str, dict[str, Any]]:
    """Every manifest in a local store, by the artifact's path."""
    found = {path: path.read_bytes() for path in root.glob("*/*/*/manifest.json") if path.parts[-4] != "scratch"}
    return {path.parent.relative_to(root).as_posix(): json.loads(content) for path, content in found.items()}


def lineage(root: Path) -> dict[str, dict[str, Any]]:
    """The manifests of all that the newest result of the tiny recipe rests on, its own, and its pages'."""
    every, target = manifests(root), json.loads((root / "refs/results/tiny/latest.json").read_bytes())
    found, open_paths = {}, [f"{target['kind']}/{target['name']}/{target['key']}"]
    while open_paths:
        path = open_paths.pop()
        found[path] = every[path]
        open_paths += found[path]["inputs"].values()
    pages = {path: m for path, m in every.items() if path.startswith("report/") and m["inputs"]["results"] in found}
    return found | pages


def contents(root: Path) -> dict[str, dict[str, str]]:
    """The SHA-256 of every file of that lineage, as the manifests say."""
    return {path: {file["path"]: file["sha256"] for file in m["files"]} for path, m in lineage(root).items()}


def broken(root: Path) -> Iterator[str]:
    """What a reader of a local store finds half-written: a manifest without its files, or files that are not what it says."""
    for path, manifest in manifests(root).items():
        for file in manifest["files"]:
            stored = root / path / manifest["attempt"] / file["path"]
            if not stored.is_file():
                yield f"{stored}: missing"
            elif sha256(stored.read_bytes()).hexdigest() != file["sha256"]:
                yield f"{stored}: not what its manifest says"
    for ref in (root / "refs").glob("*/*/*.json"):
        target = json.loads(ref.read_bytes())
        if not (root / target["kind"] / target["name"] / target["key"] / "manifest.json").is_file():
            yield f"{ref}: points at nothing"


def look(root: Path) -> None:
    """Look at a local store forever, and print what no reader may see."""
    seen: dict[str, dict[str, Any]] = {}
    while True:
        now = manifests(root)
        for line in broken(root):
            print(line, flush=True)
        for path, manifest in seen.items():
            if now.get(path) != manifest:
                print(f"{path}: was committed, and has changed", flush=True)
        seen |= now
        time.sleep(0.05)
