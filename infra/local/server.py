"""The local Prefect server of a project: what `reseed up` starts and `reseed down` stops.

A server (SQLite), the work pool `local-process` and a worker, all under `<project>/.reseed/`, apart from the user's
own Prefect: nothing reads or writes `~/.prefect`, a profile, or an inherited `PREFECT_*` variable.

Everything started here has a mark in its environment, the path of its `.reseed/prefect`, which flow runs inherit. So a
reused pid is never touched, and what a killed worker left behind is found.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

import psutil

from infra.local import automations
from infra.local.api import answered, ask
from infra.local.processes import Say, free_port, listens, marked_processes, serves, stop
from infra.local.settings import (
    ELSEWHERE,
    HOME,
    MARK,
    LocalServer,
    environment,
    make_temporary,
    remove_temporary,
    server_settings,
)
from reseed.files import writable
from reseed.records import ReseedError

POOL = "local-process"
_START_SECONDS = 90.0  # the first start migrates a new database: 6.5 s on two cores
_LOG_BYTES = 20_000_000  # a longer log is rotated at the next start
_can_stop = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # `reseed up &` in a script would pass on "ignore"
Started = subprocess.Popen[bytes]
T = TypeVar("T")


def up(project: Path, port: int = 4200, say: Say = print) -> LocalServer:
    """Start what is not running yet: server, work pool, worker, and the deployments of `prefect.yaml` if it changed.

    Raises `ReseedError` with the end of the log if a process does not start or a deployment is refused.
    """
    with _only_one(project := project.resolve(), say):
        server = _ensure_server(project, port, say)
        with answered(server):
            automations.switch_on(project, server.server_pid, partial(ask, server), say)
            _deploy(project, server, say)  # not while the worker starts, to save a second: "database is locked"
        return server if server.worker_pid else _start_worker(project, server, say)


def down(project: Path, say: Say = print) -> bool:
    """Stop the worker, its flow runs, then the server. True if there was something to stop.

    Interrupted flow runs are recorded as Crashed: Prefect's worker kills them when it stops, but leaves them Running
    forever, where they would also fill their deployment's concurrency limit.
    """
    project, found = project.resolve(), []
    if (project / ".reseed").is_dir():
        with _only_one(project, say):
            found = _end(project)
            remove_temporary(project)
    say("Prefect server and worker stopped" if found else f"no Prefect server of {project} runs")
    return bool(found)


def _end(project: Path) -> list[psutil.Process]:
    server, found = _known(project), marked_processes(project)
    stop([p for p in found if p.pid == server.worker_pid])
    # flow runs report their end to the server, and would wait for a dead one
    stop([p for p in marked_processes(project) if not serves(p)])
    if server.server_pid:
        with suppress(ReseedError):  # a damaged key, whose cure is `down`; the next `up` records how the runs ended
            _settle(project, server)
    stop(marked_processes(project))
    (project / ".reseed/server.json").unlink(missing_ok=True)
    return found


def running(project: Path) -> LocalServer | None:
    """The server, if it is alive and accepts the project's key. Its `worker_pid` is 0 if the worker has died."""
    server = _known(project.resolve())
    return server if server.server_pid and _until(lambda: _key_of(server) == "ours", None, 1.0) else None


@contextmanager
def _only_one(project: Path, say: Say) -> Iterator[None]:
    for folder in (".reseed", ".reseed/logs"):
        writable(project / folder, ELSEWHERE)
    with open(project / ".reseed/lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `reseed up` or `reseed down` of this project")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _known(project: Path) -> LocalServer:
    """What the state file says, with pid 0 for what has ended; port 0 if there is no state file."""
    state = LocalServer(0, 0, 0, "")
    with suppress(OSError, ValueError, TypeError):
        state = LocalServer(**json.loads((project / ".reseed/server.json").read_text()))
    ours = {p.pid for p in marked_processes(project)}
    server, worker = (pid if pid in ours else 0 for pid in (state.server_pid, state.worker_pid))
    return LocalServer(state.port, server, worker, str(project / HOME))


def _remember(project: Path, server: LocalServer) -> LocalServer:
    draft = project / ".reseed/server.json.new"  # its only writer holds the lock
    draft.write_text(json.dumps(asdict(server)) + "\n")
    draft.replace(draft.with_suffix(""))
    return server


def _ensure_server(project: Path, port: int, say: Say) -> LocalServer:
    known = _known(project)
    if known.server_pid:
        key = _until(lambda: _key_of(known), None, 30.0)
        if not key:
            mute = f"the Prefect server at {known.ui_url} (pid {known.server_pid}) runs but does not answer"
            raise ReseedError(f"{mute}: wait if the machine is busy, or `reseed down` (ends flow runs) and `reseed up`")
        if key == "ours":
            say(f"Prefect server already runs: {known.ui_url}")
            return known
        why = "asks for no key, so any web page could use it" if key == "none" else "has another key"
        say(f"the Prefect server at {known.ui_url} {why}: starting it again with this project's key")
        say("its flow runs are ended; started again, they continue from the store")
        _end(project)
        return _start_server(project, LocalServer(known.port, 0, 0, known.home), say)
    if not known.port:
        stop(marked_processes(project))  # somebody removed the state file under a running server
    left = marked_processes(project)  # a worker or flow runs that outlived the server look for it at its old port
    server = _start_server(project, replace(known, port=known.port if left else port), say)
    return _stop_strangers(project, server)


def _stop_strangers(project: Path, server: LocalServer) -> LocalServer:
    """Stop processes that cannot reach the server because they have another address or key."""
    ours = {"PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": server.secret}
    others = [p for p in marked_processes(project) if p.pid != server.server_pid]
    strangers = [p for p in others if not ours.items() <= p.info["environ"].items()]
    stop(strangers)
    if server.worker_pid in {p.pid for p in strangers}:
        return _remember(project, replace(server, worker_pid=0))
    return server


def _start_server(project: Path, wanted: LocalServer, say: Say) -> LocalServer:
    begin, server = time.monotonic(), replace(wanted, port=free_port(wanted.port, say))
    say("starting the Prefect server (the first start takes longest)")
    process = _spawn(project, server, "server", "start", "--host", "127.0.0.1", "--port", str(server.port))
    server = _remember(project, replace(server, server_pid=process.pid))
    if _until(lambda: listens(server) and ask(server, "/health", key=False), process):
        say(f"Prefect server started in {time.monotonic() - begin:.1f} s: {server.ui_url}")
        return server
    if process.poll() is None or free_port(server.port, lambda _: None) == server.port:
        raise _failure(project, "server", process, "mend that, then `reseed up` again")
    return _start_server(project, server, say)  # another process took the port first


def _start_worker(project: Path, server: LocalServer, say: Say) -> LocalServer:
    """Start the worker, without `--limit`, since deployments have their own limits."""
    _settle(project, server)
    since = datetime.now(UTC)
    process = _spawn(project, server, "worker", "start", "--pool", POOL, "--type", "process", "--name", "reseed")
    server = _remember(project, replace(server, worker_pid=process.pid))
    if not _until(lambda: _online(server, since), process):
        raise _failure(project, "worker", process, "mend that, then `reseed up` again; the server keeps running")
    say(f"Prefect worker started for the work pool {POOL}")
    return server


def _online(server: LocalServer, since: datetime) -> bool:
    workers = ask(server, f"/work_pools/{POOL}/workers/filter", {})
    beats = [w["last_heartbeat_time"] for w in workers if w["name"] == "reseed" and w["status"] == "ONLINE"]
    return any(datetime.fromisoformat(beat) > since for beat in beats)


def _deploy(project: Path, server: LocalServer, say: Say) -> None:
    """Call `prefect deploy --all`, unless this server already has this very `prefect.yaml`."""
    wanted, done = project / "prefect.yaml", project / ".reseed/deployed"
    version = f"{server.server_pid} {sha256(wanted.read_bytes()).hexdigest()}" if wanted.exists() else ""
    if not version:
        say(f"nothing is deployed, since there is no {wanted}: `reseed up` belongs where it is, as in a copy of reseed")
    if not version or (done.exists() and done.read_text() == version):
        return
    if not ask(server, "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}}):
        ask(server, "/work_pools/", {"name": POOL, "type": "process"})  # the worker adds the job template
    process = _spawn(project, server, "deploy", "--all")
    if not _until(lambda: process.poll() == 0, process):
        raise _failure(project, "deploy", process, f"mend {wanted}, then `reseed up` again; the server keeps running")
    done.write_text(version)
    say("deployed what prefect.yaml names")


def _spawn(project: Path, server: LocalServer, command: str, *options: str) -> Started:
    """Start a `prefect` command that outlives this process and a Ctrl-C in its terminal.

    Only `deploy` runs in the project's folder, whose modules could hide installed ones. The worker looks for runs every
    2 s: with Prefect's default, a first run would wait 10 s.
    """
    env = environment(project, server) | {MARK: server.home, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    env |= automations.SETTINGS
    env |= server_settings(server) if command == "server" else make_temporary(project)
    line = [sys.executable, "-m", "prefect", "--no-prompt", command, *options]
    cwd = project if command == "deploy" else server.home
    path = project / ".reseed/logs" / f"{command}.log"
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    with open(path, "ab") as log, open(os.devnull) as null:
        return subprocess.Popen(
            line, cwd=cwd, env=env, stdin=null, stdout=log, stderr=log, start_new_session=True, preexec_fn=_can_stop
        )


def _until(ready: Callable[[], T], process: Started | None, seconds: float = _START_SECONDS) -> T | None:
    """Wait until `ready`; None if the process ends or the time is over first. A failed request counts as not ready."""
    end, over = time.monotonic() + seconds, False
    while time.monotonic() < end and not over:
        over = process is not None and process.poll() is not None
        with suppress(OSError, ValueError):
            if found := ready():
                return found
        time.sleep(0.1)
    return None


def _failure(project: Path, command: str, process: Started, cure: str) -> ReseedError:
    code, log = process.poll(), project / ".reseed/logs" / f"{command}.log"
    how = f"was not ready after {_START_SECONDS:.0f} s" if code is None else f"ended with exit code {code}"
    process.terminate()
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    return ReseedError(f"prefect {command} {how}; the end of {log}:\n{tail}\nThe fix: {cure}.")


def _key_of(server: LocalServer) -> Literal["ours", "another", "none"]:
    """Which key a server asks for; none if an old version of reseed started it. Raises `OSError` if it does not answer."""

    def refused(key: bool) -> bool:
        try:
            ask(server, "/admin/version", key=key)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            return True
        return False

    if not listens(server):
        raise ConnectionRefusedError
    if not refused(key=False):
        return "none"
    return "another" if refused(key=True) else "ours"


def _settle(project: Path, server: LocalServer) -> None:
    """Record the end of runs of our pool that have no process left (see `down`). Call it only while no worker lives.

    It also stops the process of a run to be cancelled, which nobody else would. A busy server is asked again.
    """

    if not listens(server):
        return

    def settle_runs() -> bool:
        alive = [
            (process.info["environ"].get("PREFECT__FLOW_RUN_ID"), process) for process in marked_processes(project)
        ]
        for run in ask(server, "/flow_runs/filter", query):
            own = [process for owner, process in alive if owner == run["id"]]
            if own and run["state_type"] != "CANCELLING":
                continue
            stop(own)
            end = "CANCELLED" if run["state_type"] == "CANCELLING" else "CRASHED"
            body = {"state": {"type": end, "message": "its worker was stopped or killed"}}
            ask(server, f"/flow_runs/{run['id']}/set_state", body)
        return True

    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    query = {"flow_runs": {"state": states}, "work_pools": {"name": {"any_": [POOL]}}}
    _until(settle_runs, None, 20.0)
