"""`reseed up --stay`: in the foreground, for a supervisor such as systemd."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from infra.local.server import down, running, up
from reseed.records import ReseedError

PATIENCE = 300.0  # seconds in which a busy server may be mute: to start it anew would end its flow runs


def stay(project: Path, port: int, say: Callable[[str], None] = print, every: float = 10.0) -> None:
    """Keep server and worker alive until SIGTERM or Ctrl-C, then stop them.

    Raises `ReseedError`, and stops them too, where one cannot be started at first, or for five minutes: whoever started
    this has to start it again.
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
            except (ReseedError, OSError) as error:  # a full disk too may be over in a while
                if time.monotonic() - good > PATIENCE:
                    raise
                say(f"{error}; trying again")
            over.wait(every)
    finally:
        down(project, say)
