"""The processes and ports of a local Prefect server: which are ours, how they stop, who holds a port."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from infra.local.settings import HOME, MARK, LocalServer
from reseed.records import ReseedError

Say = Callable[[str], None]


def marked_processes(project: Path) -> list[psutil.Process]:
    """All processes that `reseed up` started for this project, and their descendants."""
    others = (p for p in psutil.process_iter(["environ"]) if p.pid != os.getpid())
    return [p for p in others if (p.info["environ"] or {}).get(MARK) == str(project / HOME)]  # None: not this user's


def serves(process: psutil.Process) -> bool:
    """True for a Prefect server, even one that no state file knows any more."""
    with suppress(psutil.Error):
        return {"prefect", "server", "start"} <= set(process.cmdline())
    return False


def stop(processes: list[psutil.Process]) -> None:
    """Send SIGTERM, and after 10 s SIGKILL, also to the group of a process that leads one."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    alive = _alive_after(10.0, processes)
    for process in alive:
        with suppress(psutil.Error, ProcessLookupError):
            group = os.getpgid(process.pid)
            process.kill()  # raises for a reused pid
            if group == process.pid:
                os.killpg(group, signal.SIGKILL)
    _alive_after(10.0, alive)


def _alive_after(seconds: float, processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run after so many seconds; returns early once there are none. Zombies count as ended."""
    end = time.monotonic() + seconds
    while True:
        _, left = psutil.wait_procs(processes, timeout=0)  # reaps our own children
        alive = []
        for process in left:
            with suppress(psutil.NoSuchProcess):
                alive += [process] if process.status() != psutil.STATUS_ZOMBIE else []
        if not alive or time.monotonic() > end:
            return alive
        time.sleep(0.1)


def free_port(port: int, say: Say) -> int:
    """The first free port from `port` up."""
    for candidate in range(max(port, 1), 65536):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            if candidate != port:
                say(f"port {port} is taken by {_holder(port)}: using {candidate}")
            return candidate
    raise ReseedError(f"no free port from {port} up: wanted one of 1 to 65535, for example --port 4200")


def _holder(port: int) -> str:
    with suppress(psutil.Error, OSError, StopIteration):  # on some systems only root may see it
        pid = next(c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid)
        return f"{psutil.Process(pid).name()} (pid {pid})"
    return "another process"


def listens(server: LocalServer) -> bool:
    """True if the server's own process listens on its port: another could take it while ours starts, and learn our key."""
    with suppress(psutil.Error, OSError):
        found = psutil.Process(server.server_pid).net_connections("tcp")
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == server.port for c in found)
    return False
