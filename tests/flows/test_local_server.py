"""A real Prefect server under a temporary project; the user's home is a temporary folder too, and has to stay empty."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from infra.local import server as local_server
from infra.local.api import ask
from infra.local.secret import make_secret, secret_file
from infra.local.server import down, running, up
from infra.local.settings import MARK, LocalServer, environment, make_temporary, remove_temporary, shell_lines
from reseed.records import ReseedError
from tasks.sessions import session_root

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FLOWS = """
import subprocess, sys, time
from prefect import flow

@flow
def hello():
    pass

@flow
def endless():
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)"])
"""
DEPLOYMENTS = """
deployments:
- {name: hello, entrypoint: some_flows.hello, work_pool: {name: local-process}, concurrency_limit: 1}
- {name: endless, entrypoint: some_flows.endless, work_pool: {name: local-process}, concurrency_limit: 1}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with Prefect settings of their own, and a proxy that would swallow requests to 127.0.0.1."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    theirs = {"PROFILE": "theirs", "API_KEY": "secret", "API_URL": "https://example.invalid/api"}
    for name, value in theirs.items():
        monkeypatch.setenv(f"PREFECT_{name}", value)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "internal")
    return home


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Iterator[Path]:
    project = tmp_path / "a project"
    project.mkdir()
    yield project
    down(project, say=lambda _: None)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def eventually(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def answer(url: str, origin: str | None = None) -> tuple[int, str | None]:
    """What a page's text/plain post without a key gets, and the origin whose pages may read it."""
    headers = {"Content-Type": "text/plain"} | ({"Origin": origin} if origin else {})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(urllib.request.Request(url, b"{}", headers), timeout=10) as response:
            return response.status, response.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Access-Control-Allow-Origin"]


def write_state(project: Path, server: LocalServer) -> Path:
    state = project / ".reseed" / "server.json"
    state.parent.mkdir(exist_ok=True)
    state.write_text(json.dumps(server.__dict__))
    return state


@pytest.mark.slow
def test_two_ups_a_taken_port_a_killed_worker_and_down(project: Path, home: Path, port: int) -> None:
    said: list[str] = []
    with socket.socket() as other, ThreadPoolExecutor(2) as pool:
        other.bind(("127.0.0.1", port))
        other.listen()
        first, second = pool.map(lambda _: up(project, port, said.append), range(2))
    assert first == second == running(project)
    assert first.port > port
    assert any(f"port {port} is taken by " in line and f"using {first.port}" in line for line in said)
    assert any(str(os.getpid()) in line for line in said), "the taken port's holder is this process"
    assert ask(first, "/health") is True
    assert ask(first, "/work_pools/local-process")["base_job_template"]["variables"]

    begin = time.monotonic()
    assert up(project, port, said.append) == first
    assert time.monotonic() - begin < 1
    assert "already runs" in said[-2]
    assert said[-1].startswith(f"nothing is deployed, since there is no {project}/prefect.yaml")

    os.kill(first.worker_pid, signal.SIGKILL)
    eventually(lambda: not alive(first.worker_pid))
    assert running(project) == replace(first, worker_pid=0)
    # A shell starts its background jobs with SIGINT ignored; the worker has to stop nevertheless.
    program = f"from pathlib import Path; from infra.local.server import up; up(Path({str(project)!r}))"
    subprocess.run(["sh", "-c", '"$0" -c "$1" & wait', sys.executable, program], cwd=ROOT, check=True, timeout=120)
    again = running(project)
    assert again is not None
    assert again.server_pid == first.server_pid
    assert again.worker_pid not in {first.worker_pid, 0}
    for pid in (again.server_pid, again.worker_pid):
        assert os.getsid(pid) == pid, "a Ctrl-C in the caller's terminal does not reach it"

    assert [answer(f"{again.api_url}/flow_runs/filter", origin) for origin in (again.ui_url, "http://evil.test")] == [
        (401, again.ui_url), (401, None),
    ]  # fmt: skip
    program = (
        f"from pathlib import Path; from infra.local.keeping import stay; stay(Path({str(project)!r}), 0, every=0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as keeper:
        os.kill(again.worker_pid, signal.SIGKILL)
        eventually(lambda: getattr(running(project), "worker_pid", 0) not in {again.worker_pid, 0}, 60)
        assert ask(again, "/health") is True
        again = running(project)
        assert again is not None
        os.kill(keeper.pid, signal.SIGSTOP)  # so that it does not see what comes next, but hears of its end first
        (project / ".reseed" / "server.json").unlink()  # even so, its processes are found
        begin = time.monotonic()
        keeper.terminate()
        os.kill(keeper.pid, signal.SIGCONT)
        assert keeper.wait(60) == 0
    assert time.monotonic() - begin < 20, "ten seconds for each that has to be killed"
    log = (project / ".reseed/logs/worker.log").read_text()
    assert log.count("Worker 'reseed' stopped!") == 1, "when asked to; those before it were killed"
    assert not alive(again.server_pid)
    assert not alive(again.worker_pid)
    assert running(project) is None
    assert not (project / ".reseed" / "server.json").exists()
    assert down(project, said.append) is False
    assert not list(home.rglob("*prefect*"))


@pytest.mark.slow
def test_deployments_run_and_leave_nothing_behind_when_stopped(
    project: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prefect(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "prefect", *arguments]
        env = environment(project, running(project))
        return subprocess.run(command, env=env, cwd=project, capture_output=True, text=True, timeout=120, check=False)

    def grandchild() -> list[int]:
        found = psutil.process_iter(["cmdline", "environ"])
        sleeps = [p for p in found if "import time; time.sleep(1000)" in (p.info["cmdline"] or [])]
        home = str(project / ".reseed" / "prefect")
        return [p.pid for p in sleeps if (p.info["environ"] or {}).get("PREFECT_HOME") == home]

    def states(server: LocalServer) -> list[str]:
        runs = ask(server, "/flow_runs/filter", {"sort": "START_TIME_ASC"})
        return [run["state_type"] for run in runs]

    def slots(server: LocalServer) -> int:
        hello = ask(server, "/deployments/name/hello/hello")
        return int(hello["global_concurrency_limit"]["active_slots"])

    automations = project / "infra/prefect/automations.yaml"
    automations.parent.mkdir(parents=True)
    automations.write_text((ROOT / "infra/prefect/automations.yaml").read_text().replace("within: 300", "within: 10"))
    (project / "some_flows.py").write_text(FLOWS)
    (project / "prefect.yaml").write_text(DEPLOYMENTS.replace("some_flows.hello", "some_flows.hullo"))
    with monkeypatch.context() as earlier:
        earlier.setattr(local_server, "server_settings", lambda server: {})  # an earlier version's server: open to all
        with pytest.raises(
            ReseedError, match=r"(?s)prefect deploy ended with exit code 1.*hullo.*mend .*prefect\.yaml"
        ):
            up(project, port)
    assert running(project) is None, "it is not used as it is"
    said: list[str] = []
    (project / "prefect.yaml").write_text(DEPLOYMENTS)
    server = up(project, port, said.append)
    assert "asks for no key, so any web page could use it: starting it again with this project's key" in said[0]
    assert running(project) == server
    words = 'eval "$("$0" env)" && exec "$1" deployment run hello/hello --watch'  # as the README says it
    ran = subprocess.run(
        ["sh", "-c", words, BIN / "reseed", BIN / "prefect"],
        cwd=project, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    secret = server.secret.removeprefix("reseed:")
    assert not [p for p in psutil.process_iter(["cmdline"]) if secret in " ".join(p.info["cmdline"] or [])]
    files = [path for path in (project / ".reseed").rglob("*") if path.is_file()]
    assert [path.name for path in files if secret.encode() in path.read_bytes()] == ["secret"]
    assert list((project / ".reseed" / "tmp" / "runner_storage").iterdir()), "the worker's, and no other user's"

    assert prefect("deployment", "run", "endless/endless").returncode == 0
    eventually(grandchild)
    assert down(project) is True  # the worker stops its flow run
    assert not grandchild()
    assert not alive(server.server_pid)
    assert not alive(server.worker_pid)
    assert not (project / ".reseed" / "server.json").exists()
    assert not (project / ".reseed" / "tmp").exists()
    with sqlite3.connect(project / ".reseed" / "prefect" / "prefect.db") as database:
        database.execute("UPDATE flow_run SET end_time = datetime('now', '-91 days') WHERE state_type = 'COMPLETED'")
    database.close()
    server = up(project, server.port)
    eventually(lambda: states(server) == ["CRASHED"], 60)  # what is older than 90 days is forgotten

    assert prefect("deployment", "run", "endless/endless").returncode == 0
    eventually(grandchild)
    assert list((project / ".reseed/prefect/concurrency_leases").glob("*-*.json")), "a lease outlives the server"
    os.kill(server.worker_pid, signal.SIGKILL)
    eventually(lambda: not alive(server.worker_pid))
    hello = ask(server, "/deployments/name/hello/hello")
    pending = ask(server, f"/deployments/{hello['id']}/create_flow_run", {})["id"]
    ask(server, f"/flow_runs/{pending}/set_state", {"state": {"type": "PENDING"}})  # as the worker did before it died
    assert slots(server) == 1
    server = up(project, server.port)
    assert grandchild(), "a flow run outlives its worker"
    assert ask(server, f"/flow_runs/{pending}")["state_type"] == "CRASHED"
    assert slots(server) == 0
    assert [state for state in states(server) if state != "CRASHED"] == ["RUNNING"]

    os.kill(server.worker_pid, signal.SIGKILL)
    eventually(lambda: not alive(server.worker_pid))
    (running_one,) = ask(server, "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    ask(server, f"/flow_runs/{running_one['id']}/set_state", {"state": {"type": "CANCELLING"}})
    server = up(project, server.port)
    assert not grandchild(), "nobody else would stop it"
    assert ask(server, f"/flow_runs/{running_one['id']}")["state_type"] == "CANCELLED"

    begun = datetime.now(UTC).isoformat()
    assert prefect("deployment", "run", "endless/endless").returncode == 0
    eventually(grandchild)
    flow = psutil.Process(grandchild()[0]).parent()
    beat = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "occurred": {"since": begun}}}
    eventually(lambda: ask(server, "/events/filter", beat)["events"], 60)  # a run that never sent one is the worker's
    flow.suspend()
    eventually(lambda: states(server)[-1] == "CRASHED", 90)  # none within ten seconds
    os.kill(server.worker_pid, signal.SIGKILL)
    down(project)  # nobody but us stops it now
    assert not grandchild()
    assert not alive(flow.pid)


@pytest.mark.slow
def test_a_server_that_dies_says_why(project: Path, port: int) -> None:
    (project / ".reseed" / "prefect" / "prefect.db").mkdir(parents=True)
    with pytest.raises(ReseedError, match=r"(?s)prefect server ended with exit code .*server\.log.*unable to open"):
        up(project, port)
    assert running(project) is None


def test_a_recycled_pid_is_not_ours(project: Path, home: Path) -> None:
    mine = os.getpid()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        state = write_state(project, LocalServer(4200, mine, other.pid, str(project / ".reseed" / "prefect")))
        assert running(project) is None
        assert down(project) is False
        assert not state.exists()
        assert other.poll() is None
        other.kill()


def test_down_leaves_no_trace_where_nothing_ran(project: Path) -> None:
    assert down(project) is False
    assert list(project.iterdir()) == []


def test_environment_keeps_the_users_prefect_out(project: Path, home: Path) -> None:
    server = LocalServer(4321, 1, 2, str(project / ".reseed" / "prefect"))
    env = environment(project, server)
    assert env["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert env["PREFECT_HOME"] == server.home
    assert env["NO_PROXY"] == "internal,127.0.0.1,localhost"
    assert env["PATH"] == os.environ["PATH"]
    assert not {"PREFECT_PROFILE", "PREFECT_API_KEY"} & env.keys()
    alone = environment(project, None)
    assert "PREFECT_API_URL" not in alone
    assert alone["PREFECT_SERVER_EPHEMERAL_ENABLED"] == "true"
    assert alone["PREFECT_SERVER_API_AUTH_STRING"] == alone["PREFECT_API_AUTH_STRING"] == env["PREFECT_API_AUTH_STRING"]


def test_the_secret_is_made_once_and_for_its_owner_only(project: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        (secret,) = set(pool.map(lambda _: make_secret(project), range(32)))
    user, _, password = secret.partition(":")
    assert (user, len(password)) == ("reseed", 43)
    assert stat.S_IMODE(secret_file(project).stat().st_mode) == 0o600
    assert [path.name for path in (project / ".reseed").iterdir()] == ["secret"]
    secret_file(project).chmod(0o640)
    with pytest.raises(ReseedError, match=r"\.reseed/secret has mode 0640, wanted 0600: .*delete the file"):
        make_secret(project)


DAMAGED = [b"", b"reseed:", b"reseed:a\nb", "reseed:é".encode(), b"reseed:" + b"\xff" * 43, b"other:" + b"a" * 43]


@pytest.mark.parametrize("text", [None, *DAMAGED])
def test_down_stops_a_server_whose_key_is_damaged(project: Path, text: bytes | None) -> None:
    make_secret(project)
    if text is None:
        secret_file(project).chmod(0o644)
    else:
        secret_file(project).write_bytes(text)
    home = str(project / ".reseed" / "prefect")
    with subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: home}) as server:
        write_state(project, LocalServer(1, server.pid, 0, home))
        with pytest.raises(ReseedError, match=r"key .*secret (has mode|holds no|cannot be).*: `reseed down`, delete"):
            environment(project, None)
        assert down(project) is True
        assert not alive(server.pid)
    assert not (project / ".reseed" / "server.json").exists()


def test_a_shell_gets_the_server_and_nothing_of_the_users(project: Path, home: Path) -> None:
    server = LocalServer(4321, 1, 2, str(project / ".reseed" / "prefect"))
    make_secret(project)
    script = f"{shell_lines(server, os.environ)}\nexec env"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    shown = dict(line.split("=", 1) for line in ran.stdout.splitlines() if line.startswith(("PREFECT_", "NO_PROXY")))
    assert shown == {
        "PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": server.secret, "PREFECT_HOME": server.home,
        "NO_PROXY": "internal,127.0.0.1,localhost",
    }  # fmt: skip


def test_no_shell_line_where_no_server_is_up(project: Path) -> None:
    ran = subprocess.run([BIN / "reseed", "env"], cwd=project, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"reseed: no Prefect server of {project} is up with its key: `reseed up` there starts it\n"


def test_temporary_files_have_a_private_folder_that_sockets_fit_in(tmp_path: Path) -> None:
    for name in ("short", "long" * 20):
        project = tmp_path / name
        (project / ".reseed").mkdir(parents=True)
        folder = Path(make_temporary(project)["TMPDIR"])
        assert make_temporary(project)["TMPDIR"] == str(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / ("s" * 46)))
        remove_temporary(project)
        assert not folder.exists()
        assert list((project / ".reseed").iterdir()) == []


def test_a_temporary_folder_that_became_anothers_is_not_used(tmp_path: Path) -> None:
    project = tmp_path / ("long" * 20)
    (project / ".reseed").mkdir(parents=True)
    folder = Path(make_temporary(project)["TMPDIR"])
    folder.chmod(0o777)
    (folder / "theirs").touch()
    ours = Path(make_temporary(project)["TMPDIR"])
    assert ours != folder
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    (project / ".reseed/tmp").unlink()
    (project / ".reseed/tmp").symlink_to(folder)
    remove_temporary(project)
    assert (folder / "theirs").exists()
    assert not (project / ".reseed/tmp").is_symlink()
    shutil.rmtree(folder)
    ours.rmdir()
    (project / ".reseed/tmp").touch()
    with pytest.raises(ReseedError, match=r"\.reseed/tmp is not this user's folder: .*remove it"):
        make_temporary(project)


def test_ray_goes_on_where_it_was_unless_its_sockets_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".reseed").mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("long" * 15)
    long.mkdir()
    before = session_root()
    for folder, wanted in ((str(long), "/tmp"), ("/tmp", "/tmp"), ("/dev/shm", "/dev/shm")):
        monkeypatch.setattr(tempfile, "tempdir", folder)
        assert make_temporary(tmp_path)["RAY_TMPDIR"] == wanted
    assert before == session_root()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    assert make_temporary(tmp_path)["RAY_TMPDIR"] == str(long)


def test_a_folder_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (Path("/proc"), tmp_path / "file"):  # root may write everywhere else
        for attempt in (lambda at: up(at), lambda at: environment(at, None)):
            with pytest.raises(ReseedError, match=f"cannot write in {folder}/.reseed.*run reseed in a folder that you"):
                attempt(folder)


def test_a_port_that_cannot_be(project: Path) -> None:
    with pytest.raises(ReseedError, match="70000"):
        up(project, 70000)


@pytest.mark.slow
def test_ephemeral_mode_runs_in_the_private_home(project: Path, home: Path) -> None:
    program = (
        "from prefect import flow\n@flow\ndef f(): return 3\nassert f() == 3\n"
        "from prefect.server.api.server import SubprocessASGIServer\n"
        "print(SubprocessASGIServer().api_url, flush=True)\ninput()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, env=environment(project, None), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None
        url = ran.stdout.readline().strip()
        answers = [answer(f"{url}/flow_runs/filter", origin) for origin in (None, "http://evil.test")]
        ran.communicate("\n", timeout=60)
    assert ran.returncode == 0
    assert answers == [(401, None), (401, None)], "it is as closed as the server of `up`"
    assert (project / ".reseed" / "prefect" / "prefect.db").exists()
    assert not list(home.rglob("*prefect*"))
