"""A web server of a test's own, on 127.0.0.1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    """Answers, and logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served_by(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[int]:
    """The port of a server whose requests `handler` answers."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
