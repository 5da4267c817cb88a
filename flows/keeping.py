"""`reseed up --stay`: in the foreground, for a supervisor such as systemd."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from flows.local_server import down, running, up


def stay(project: Path, port: int, say: Callable[[str], None] = print, every: float = 10.0) -> None:
    """Keep server and worker alive until SIGTERM or Ctrl-C, then stop them.

    Raises `ReseedError`, and stops them too, where one cannot be started or the server runs but does not answer: whoever
    started this has to start it again.
    """
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    try:
        while not over.is_set():
            server = running(project)
            if server is None or not server.worker_pid:
                up(project, port, say)
            over.wait(every)
    finally:
        down(project, say)
