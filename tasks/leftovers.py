"""What a flow started ends with it, however it ends.

Ray sees to that by itself. The temporary Prefect server of a flow that was killed would serve nobody for ever, and take
memory from the next run. So a flow puts a mark into its environment, which all its processes inherit, and starts a
watcher that kills what has the mark when the flow's process is gone. It also kills a flow that is over its time.
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
_pipe: IO[bytes] | None = None  # its other end is the watcher's input; the kernel closes it when this process ends


def end_together() -> None:
    """Mark this process's environment and start the watcher, once a process."""
    global _pipe
    if _pipe is not None:
        return
    os.environ.pop(MARK, None)  # not of a flow that started this one
    mark = uuid.uuid4().hex
    # -P: the modules beside this file do not hide installed ones. Its own session: a Ctrl-C is not for the watcher.
    command = [sys.executable, "-P", __file__, mark, str(os.getpid())]
    _pipe = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True).stdin
    os.environ[MARK] = mark


def kill_after(seconds: float | None) -> None:
    """Let the watcher kill this process and all it started when so many seconds are over; None takes that back."""
    if _pipe is not None:
        with suppress(BrokenPipeError):  # somebody killed the watcher
            _pipe.write(f"{'inf' if seconds is None else seconds}\n".encode())
            _pipe.flush()


def start_server() -> None:
    """Start Prefect's temporary server, where no other is named, out of reach of Ctrl-C.

    A terminal's SIGINT is for every process of a command. Without the server, an interrupted flow would try for minutes
    to tell it so. A blocked signal stays blocked in the processes that are started meanwhile.
    """
    if os.environ.get("PREFECT_API_URL"):
        return
    from prefect.server.api.server import SubprocessASGIServer

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()  # the one that Prefect's clients use
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def watch(mark: str, flow: int) -> None:
    """Wait for the flow's end, or for that of the time it was given; then kill every process with the mark."""
    end, told = float("inf"), b"inf\n"
    while told:
        left = end - time.monotonic()
        if left <= 0:
            # The flow's own environment was made before the mark. While it is our parent its pid is not another's.
            if os.getppid() == flow:
                sys.stderr.write(f"reseed: flow process {flow} is over its time and did not end: killed\n")
                os.kill(flow, signal.SIGKILL)
            break
        if select.select([sys.stdin], [], [], min(left, 3600))[0]:
            told = os.read(sys.stdin.fileno(), 4096)
            end = time.monotonic() + float(told.split()[-1]) if told else end
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(MARK) == mark:
            with suppress(psutil.NoSuchProcess):
                process.kill()


if __name__ == "__main__":
    watch(sys.argv[1], int(sys.argv[2]))
