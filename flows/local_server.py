"""The local Prefect server of a project: what `reseed up` starts and `reseed down` stops.

A server (SQLite), the work pool `local-process` and a worker, all under `<project>/.reseed/`, apart from the user's
own Prefect: nothing reads or writes `~/.prefect`, a profile, or an inherited `PREFECT_*` variable.

What starts here has a mark in its environment, the path of its `.reseed/prefect`, and hands it down to flow runs: what
has the mark is ours. So a recycled pid is never touched, and what a killed worker left behind is found.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from flows import automations
from reseed.records import ReseedError

POOL = "local-process"
_HOME = ".reseed/prefect"
_MARK = "RESEED_LOCAL_SERVER"
_EPHEMERAL = {"PREFECT_SERVER_EPHEMERAL_ENABLED": "true", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90"}
_START_SECONDS = 90.0  # the first start migrates a new database: 6.5 s on two cores
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_can_stop = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # `reseed up &` in a script passes on "ignore"
Say = Callable[[str], None]
Started = subprocess.Popen[bytes]


@dataclass(frozen=True)
class LocalServer:
    """A project's Prefect server; a pid is 0 where that process does not run. `home` is its private PREFECT_HOME."""

    port: int
    server_pid: int
    worker_pid: int
    home: str

    @property
    def api_url(self) -> str:
        """What PREFECT_API_URL has to be."""
        return f"{self.ui_url}/api"

    @property
    def ui_url(self) -> str:
        """The page to open in a browser."""
        return f"http://127.0.0.1:{self.port}"


def up(project: Path, port: int = 4200, say: Say = print) -> LocalServer:
    """Start what does not run yet: server, work pool, worker, and the deployments of `prefect.yaml` if it changed.

    Raises `ReseedError` with the end of the log where a process does not start or a deployment is refused.
    """
    with _only_one(project := project.resolve(), say):
        server = _ensure_server(project, port, say)
        automations.switch_on(project, server.server_pid, partial(_call, server), say)
        _deploy(project, server, say)  # not while the worker starts, which saves a second: "database is locked"
        return server if server.worker_pid else _start_worker(project, server, say)


def down(project: Path, say: Say = print) -> bool:
    """Stop the worker, its flow runs, then the server. True if there was something to stop.

    Interrupted flow runs are recorded as Crashed: Prefect's worker kills them when it stops, but leaves them Running
    for ever, where they would also fill their deployment's concurrency limit.
    """
    project, found = project.resolve(), []
    if (project / ".reseed").is_dir():
        with _only_one(project, say):
            server, found = _known(project), _marked(project)
            _stop([p for p in found if p.pid == server.worker_pid])
            _stop([p for p in _marked(project) if p.pid != server.server_pid])
            if server.server_pid:
                _settle(project, server)
            _stop(_marked(project))
            (project / ".reseed/server.json").unlink(missing_ok=True)
    say("Prefect server and worker stopped" if found else "Prefect does not run here")
    return bool(found)


def running(project: Path) -> LocalServer | None:
    """The server if it is alive and answers. Its `worker_pid` is 0 if the worker has died."""
    server = _known(project.resolve())
    return server if server.server_pid and _until(lambda: _call(server, "/health"), None, 1.0) else None


def environment(project: Path, server: LocalServer | None) -> dict[str, str]:
    """The whole environment of a process that shall talk to this server; with None, ephemeral mode in the same home.

    It is our own without any `PREFECT_*`, since a key or profile of the user's would win: use it as `env=`, or in this
    process as `os.environ.clear(); os.environ.update(…)` before Prefect is imported, which reads its settings then.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_") and k != _MARK}
    no_proxy = ",".join(filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy"), "127.0.0.1", "localhost"]))
    (home := project.resolve() / _HOME).mkdir(parents=True, exist_ok=True)  # without it ephemeral mode waits in vain
    ours = {"PREFECT_HOME": str(home), "NO_PROXY": no_proxy, "no_proxy": no_proxy}
    ours |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return kept | ours | ({"PREFECT_API_URL": server.api_url} if server else _EPHEMERAL)


@contextmanager
def _only_one(project: Path, say: Say) -> Iterator[None]:
    (project / ".reseed/logs").mkdir(parents=True, exist_ok=True)
    with open(project / ".reseed/lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `reseed up` or `reseed down` of this project")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _known(project: Path) -> LocalServer:
    """What the state file says, with pid 0 for what is no longer ours; port 0 if there is no state file."""
    state = LocalServer(0, 0, 0, "")
    with suppress(OSError, ValueError, TypeError):
        state = LocalServer(**json.loads((project / ".reseed/server.json").read_text()))
    ours = {p.pid for p in _marked(project)}
    server, worker = (pid if pid in ours else 0 for pid in (state.server_pid, state.worker_pid))
    return LocalServer(state.port, server, worker, str(project / _HOME))


def _remember(project: Path, server: LocalServer) -> LocalServer:
    draft = project / ".reseed/server.json.new"  # its only writer holds the lock
    draft.write_text(json.dumps(asdict(server)) + "\n")
    draft.replace(draft.with_suffix(""))
    return server


def _marked(project: Path) -> list[psutil.Process]:
    others = (p for p in psutil.process_iter(["environ"]) if p.pid != os.getpid())
    return [p for p in others if (p.info["environ"] or {}).get(_MARK) == str(project / _HOME)]  # None: not this user's


def _ensure_server(project: Path, port: int, say: Say) -> LocalServer:
    known = _known(project)
    if known.server_pid:
        if not _until(lambda: _call(known, "/health"), None, 30.0):
            mute = f"the Prefect server at {known.ui_url} (pid {known.server_pid}) runs but does not answer"
            raise ReseedError(f"{mute}: wait if the machine is busy, or `reseed down` (ends flow runs) and `reseed up`")
        say(f"Prefect server already runs: {known.ui_url}")
        return known
    if not known.port:
        _stop(_marked(project))  # somebody removed the state file under a running server
    left = _marked(project)  # a worker or flow runs that outlived the server: they look for it where it was
    server = _start_server(project, replace(known, port=known.port if left else port), say)
    if left and server.port != known.port:
        _stop(left)
        server = _remember(project, replace(server, worker_pid=0))
    return server


def _start_server(project: Path, wanted: LocalServer, say: Say) -> LocalServer:
    begin, server = time.monotonic(), replace(wanted, port=_free_port(wanted.port, say))
    say("starting the Prefect server (the first start takes longest)")
    process = _spawn(project, server, "server", "start", "--host", "127.0.0.1", "--port", str(server.port))
    server = _remember(project, replace(server, server_pid=process.pid))
    if _until(lambda: _call(server, "/health"), process):
        say(f"Prefect server started in {time.monotonic() - begin:.1f} s: {server.ui_url}")
        return server
    if process.poll() is None or _free_port(server.port, lambda _: None) == server.port:
        raise _failure(project, "server", process, "mend that, then `reseed up` again")
    return _start_server(project, server, say)  # somebody took the port before our server did


def _start_worker(project: Path, server: LocalServer, say: Say) -> LocalServer:
    """Start the worker, without `--limit`: deployments have limits of their own."""
    _settle(project, server)
    since = datetime.now(UTC)
    process = _spawn(project, server, "worker", "start", "--pool", POOL, "--type", "process", "--name", "reseed")
    server = _remember(project, replace(server, worker_pid=process.pid))
    if not _until(lambda: _online(server, since), process):
        raise _failure(project, "worker", process, "mend that, then `reseed up` again; the server keeps running")
    say(f"Prefect worker started for the work pool {POOL}")
    return server


def _online(server: LocalServer, since: datetime) -> bool:
    workers = _call(server, f"/work_pools/{POOL}/workers/filter", {})
    beats = [w["last_heartbeat_time"] for w in workers if w["name"] == "reseed" and w["status"] == "ONLINE"]
    return any(datetime.fromisoformat(beat) > since for beat in beats)


def _deploy(project: Path, server: LocalServer, say: Say) -> None:
    """`prefect deploy --all`, unless this server has been told this very `prefect.yaml`."""
    wanted, done = project / "prefect.yaml", project / ".reseed/deployed"
    told = f"{server.server_pid} {sha256(wanted.read_bytes()).hexdigest()}" if wanted.exists() else ""
    if not told or (done.exists() and done.read_text() == told):
        return
    if not _call(server, "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}}):
        _call(server, "/work_pools/", {"name": POOL, "type": "process"})  # the worker adds the job template
    process = _spawn(project, server, "deploy", "--all")
    if not _until(lambda: process.poll() == 0, process):
        raise _failure(project, "deploy", process, f"mend {wanted}, then `reseed up` again; the server keeps running")
    done.write_text(told)
    say("deployed what prefect.yaml names")


def _spawn(project: Path, server: LocalServer, command: str, *options: str) -> Started:
    """Start a `prefect` command that outlives us and a Ctrl-C in our terminal.

    Only `deploy` works in the project, whose modules could hide installed ones. The worker looks for runs every 2 s:
    a newcomer would wait Prefect's 10 s for the first.
    """
    env = environment(project, server) | {_MARK: server.home, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    env |= automations.SETTINGS
    line = [sys.executable, "-m", "prefect", "--no-prompt", command, *options]
    cwd = project if command == "deploy" else server.home
    with open(project / ".reseed/logs" / f"{command}.log", "ab") as log, open(os.devnull) as null:
        return subprocess.Popen(
            line, cwd=cwd, env=env, stdin=null, stdout=log, stderr=log, start_new_session=True, preexec_fn=_can_stop
        )


def _until(ready: Callable[[], object], process: Started | None, seconds: float = _START_SECONDS) -> bool:
    """Wait until `ready`; False if the process ends or the time is over first. A request that fails is a no."""
    end, over = time.monotonic() + seconds, False
    while time.monotonic() < end and not over:
        over = process is not None and process.poll() is not None
        with suppress(OSError, ValueError):
            if ready():
                return True
        time.sleep(0.1)
    return False


def _failure(project: Path, command: str, process: Started, cure: str) -> ReseedError:
    code, log = process.poll(), project / ".reseed/logs" / f"{command}.log"
    how = f"was not ready after {_START_SECONDS:.0f} s" if code is None else f"ended with exit code {code}"
    process.terminate()
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    return ReseedError(f"prefect {command} {how}; the end of {log}:\n{tail}\nThe fix: {cure}.")


def _stop(processes: list[psutil.Process]) -> None:
    """SIGTERM, and after 10 s SIGKILL, to the whole group of a process that leads one."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=10)
    for process in alive:
        with suppress(psutil.Error, ProcessLookupError):
            group = os.getpgid(process.pid)
            process.kill()  # raises for a recycled pid
            if group == process.pid:
                os.killpg(group, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=10)


def _free_port(port: int, say: Say) -> int:
    for candidate in range(max(port, 1), 65536):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            if candidate != port:
                say(f"port {port} is taken by {_holder(port)}: using {candidate}")
            return candidate
    raise ReseedError(f"no free port from {port} up: wanted one of 1 to 65535, for example --port 4200")


def _holder(port: int) -> str:
    with suppress(psutil.Error, OSError, StopIteration):  # some systems tell only root
        pid = next(c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid)
        return f"{psutil.Process(pid).name()} (pid {pid})"
    return "another process"


def _call(server: LocalServer, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """One request to the API: without importing Prefect, which takes a second, and past any proxy."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.api_url + path, data, {"Content-Type": "application/json"}, method=method)
    with _direct.open(request, timeout=10) as response:
        return json.loads(response.read() or b"null")


def _settle(project: Path, server: LocalServer) -> None:
    """Record the end of runs of our pool that have no process left (see `down`). Only while no worker lives.

    A run that is to be cancelled has nobody else who would stop its process. A busy server answers 503: asked again.
    """

    def settled() -> bool:
        alive = [(process.info["environ"].get("PREFECT__FLOW_RUN_ID"), process) for process in _marked(project)]
        for run in _call(server, "/flow_runs/filter", query):
            own = [process for owner, process in alive if owner == run["id"]]
            if own and run["state_type"] != "CANCELLING":
                continue
            _stop(own)
            end = "CANCELLED" if run["state_type"] == "CANCELLING" else "CRASHED"
            body = {"state": {"type": end, "message": "its worker was stopped or killed"}}
            _call(server, f"/flow_runs/{run['id']}/set_state", body)
        return True

    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    query = {"flow_runs": {"state": states}, "work_pools": {"name": {"any_": [POOL]}}}
    _until(settled, None, 20.0)
