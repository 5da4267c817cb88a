"""A model hub on 127.0.0.1 that speaks the few routes of `snapshot_download`, and keeps what was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from web_server import QuietHandler, served_by

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """Its address, the files that it gave, and how often it was asked for a commit."""

    def __init__(self) -> None:
        self.url = ""
        self.given: list[str] = []
        self.asked = 0
        self.status = 200  # of an answer about a commit; 401 and 403 of any answer
        self.said = ""  # with those: its own word about it


@contextmanager
def hub_of(repository: str, folder: Path, kind: str = "model") -> Iterator[Hub]:
    """Serve `folder` as `repository`, a `model` or a `dataset`."""
    hub = Hub()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    about = f"/api/{kind}s/{repository}"
    resolve = f"{'/datasets' if kind == 'dataset' else ''}/{repository}/resolve/{COMMIT}/"

    class Handler(QuietHandler):
        def answer(self, body: bytes, kind: str = "application/json", **headers: str) -> None:
            self.send_response(200)
            given = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:  # noqa: N802
            path = unquote(urlsplit(self.path).path)
            if hub.status in (401, 403):
                self.send_response(hub.status)
                self.send_header("X-Error-Message", hub.said)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path == about or path.startswith(f"{about}/revision/"):
                if path.endswith("/gone") or hub.status != 200:
                    self.send_error(404 if hub.status == 200 else hub.status)
                    return
                hub.asked += 1
                siblings = [{"rfilename": name} for name in files]
                self.answer(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())
            elif path.startswith(f"{about}/tree/"):
                below = path.removeprefix(f"{about}/tree/").partition("/")[2]
                self.answer(json.dumps(tree(files, below, "recursive=true" in self.path.lower())).encode())
            elif path.startswith(resolve) and path.removeprefix(resolve) in files:
                name = path.removeprefix(resolve)
                if self.command == "GET":
                    hub.given.append(name)
                self.answer(files[name].read_bytes(), "application/octet-stream", ETag=f'"{oid(files[name])}"')
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

    with served_by(Handler) as port:
        hub.url = f"http://127.0.0.1:{port}"
        yield hub


def tree(files: dict[str, Path], below: str, recursive: bool) -> list[dict[str, object]]:
    """What is in a folder of the repository, as the hub tells it."""
    place = f"{below}/" if below else ""
    inside = {name: file for name, file in files.items() if name.startswith(place)}
    found: list[dict[str, object]] = [
        {"type": "file", "path": name, "size": file.stat().st_size, "oid": oid(file)}
        for name, file in inside.items()
        if recursive or "/" not in name.removeprefix(place)
    ]
    folders = {place + name.removeprefix(place).partition("/")[0] for name in inside if "/" in name.removeprefix(place)}
    return found + [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]


def oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
