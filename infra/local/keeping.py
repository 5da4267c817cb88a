"""`reseed up --stay`: stays in the foreground, for a supervisor such as systemd."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from infra.local.server import down, running, up
from reseed.records import ReseedError

PATIENCE = 300.0  # seconds that a busy server may not answer: restarting it would end its flow runs


def stay(project: Path, port: int, say: Callable[[str], None] = print, every: float = 10.0) -> None:
    """Keep server and worker alive until SIGTERM or Ctrl-C, then stop them.

    If one cannot be started at first, or later for five minutes, it stops them and raises `ReseedError`: the
    supervisor has to start it again.
    """
    over, good = threading.Event(), float("-inf")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    try:
        while not over.is_set():
            try:
                server = running(project)
                if server is None or not server.worker_pid:
                    up(project, port, say)
                good = time.monotonic()
            except (ReseedError, OSError) as error:  # a full disk may pass, too
                if time.monotonic() - good > PATIENCE:
                    raise
                say(f"{error}; trying again")
            over.wait(every)
    finally:
        down(project, say)
