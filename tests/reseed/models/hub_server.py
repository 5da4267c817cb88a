"""A model hub on 127.0.0.1 that speaks the few routes of `snapshot_download`, and keeps what was asked for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """Its address, and the files that it gave."""

    def __init__(self) -> None:
        self.url = ""
        self.given: list[str] = []


@contextmanager
def hub_of(repository: str, folder: Path) -> Iterator[Hub]:
    """Serve `folder` as `repository`."""
    hub = Hub()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bytes, kind: str = "application/json", **headers: str) -> None:
            self.send_response(200)
            given = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            resolve = f"/{repository}/resolve/{COMMIT}/"
            if path.startswith(f"/api/models/{repository}/revision/"):
                self.answer(json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
            elif path.startswith(f"/api/models/{repository}/tree/"):
                tree = [{"type": "file", "path": name, "size": file.stat().st_size, "oid": oid(file)}
                        for name, file in files.items()]  # fmt: skip
                self.answer(json.dumps(tree).encode())
            elif path.startswith(resolve) and path.removeprefix(resolve) in files:
                name = path.removeprefix(resolve)
                if self.command == "GET":
                    hub.given.append(name)
                self.answer(files[name].read_bytes(), "application/octet-stream", ETag=f'"{oid(files[name])}"')
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
