"""Everything that a flow started ends with it, however it ends.

Ray does so by itself. But the temporary Prefect server of a killed flow would go on forever, and take memory from the
next run. So a flow puts a mark into its environment, which all its processes inherit, and starts a watcher that kills
everything with the mark once the flow's process is gone. It also kills a flow that exceeds its time limit.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from typing import IO

import psutil

MARK = "RESEED_FLOW"
_pipe: IO[bytes] | None = None  # to the watcher's input; the kernel closes it when this process ends


def end_together() -> None:
    """Mark this process's environment and start the watcher, once a process."""
    global _pipe
    if _pipe is not None:
        return
    os.environ.pop(MARK, None)  # inherited, if another flow started this one
    mark = uuid.uuid4().hex
    # -P: or modules beside this file would hide installed ones. Its own session: Ctrl-C must not reach the watcher.
    command = [sys.executable, "-P", __file__, mark, str(os.getpid())]
    _pipe = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True).stdin
    os.environ[MARK] = mark


def kill_after(seconds: float | None) -> None:
    """Have the watcher kill this process and all that it started after so many seconds; None cancels that."""
    if _pipe is not None:
        with suppress(BrokenPipeError):  # somebody killed the watcher
            _pipe.write(f"{'inf' if seconds is None else seconds}\n".encode())
            _pipe.flush()


def start_server() -> None:
    """Start Prefect's temporary server, unless another is configured, out of reach of Ctrl-C.

    A terminal sends SIGINT to every process of a command, and with the server gone an interrupted flow would try for
    minutes to report to it. Processes inherit a blocked signal as blocked.
    """
    if os.environ.get("PREFECT_API_URL"):
        return
    from prefect.server.api.server import SubprocessASGIServer

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()  # a singleton: Prefect's clients use the same one
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def watch(mark: str, flow: int) -> None:
    """Wait until the flow ends or its time is over; then kill every process with the mark."""
    end, line = float("inf"), b"inf\n"
    while line:
        left = end - time.monotonic()
        if left <= 0:
            # The flow's own environment lacks the mark. While the flow is our parent, its pid was not reused.
            if os.getppid() == flow:
                sys.stderr.write(f"reseed: flow process {flow} exceeded its time limit and did not end: killed\n")
                os.kill(flow, signal.SIGKILL)
            break
        if select.select([sys.stdin], [], [], min(left, 3600))[0]:
            line = os.read(sys.stdin.fileno(), 4096)
            end = time.monotonic() + float(line.split()[-1]) if line else end
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(MARK) == mark:
            with suppress(psutil.NoSuchProcess):
                process.kill()


if __name__ == "__main__":
    watch(sys.argv[1], int(sys.argv[2]))
