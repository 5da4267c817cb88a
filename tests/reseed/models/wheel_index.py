"""A package index on 127.0.0.1, as PyPI's: JSON or HTML pages and files, with the faults that a test asks for."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from web_server import QuietHandler, served_by

PROJECT, WHEEL = "tiny-model", "tiny_model-1.0-py3-none-any.whl"


def record_line(name: str, content: bytes) -> str:
    checksum = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f'"{name}",sha256={checksum},{len(content)}' if "," in name else f"{name},sha256={checksum},{len(content)}"


def wheel_files(model: Path) -> dict[str, bytes]:
    """What a wheel that ships the model in folder `model` holds."""
    files = {f"tiny_model/weights/{p.name}": p.read_bytes() for p in sorted(model.iterdir())}
    files["tiny_model/notes, of all.py"] = b""
    info = "tiny_model-1.0.dist-info"
    files[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [record_line(name, content) for name, content in files.items()]
    files[f"{info}/RECORD"] = "\r\n".join([*record, "", f"{info}/RECORD,,", ""]).encode()
    return files


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Index:
    """What the server offers, how it misbehaves, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.stated: dict[str, str] = {}  # digests other than the true ones
        self.html = False
        self.cuts = 0  # answers that break off in the middle
        self.ranges = True
        self.silent = 0.0  # seconds before a file comes
        self.asked: list[tuple[str, str | None, str | None]] = []  # path, Range, Authorization

    def offer(self, files: dict[str, bytes], name: str = WHEEL) -> None:
        self.files[name] = packed(files)

    def page(self) -> tuple[str, bytes]:
        digests = {name: self.stated.get(name, hashlib.sha256(body).hexdigest()) for name, body in self.files.items()}
        if self.html:
            links = [f'<a href="../../files/{name}#sha256={sum_}">x</a><br>' for name, sum_ in digests.items()]
            return "text/html", f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
        files = [{"filename": n, "url": f"/files/{n}", "hashes": {"sha256": s}} for n, s in digests.items()]
        return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files, "name": PROJECT}).encode()


@contextmanager
def served() -> Iterator[Index]:
    index = Index()

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            wanted = self.headers.get("Range")
            index.asked.append((self.path, wanted, self.headers.get("Authorization")))
            if self.path == f"/simple/{PROJECT}/":
                kind, body = index.page()
            elif self.path.startswith("/files/"):
                kind, body = "application/octet-stream", index.files[self.path.removeprefix("/files/")]
                time.sleep(index.silent)
            else:
                self.send_error(404)
                return
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and index.ranges else 0
            body = body[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path.startswith("/files/") and index.cuts > 0:
                index.cuts -= 1
                body = body[: len(body) // 2]
            self.wfile.write(body)

    with served_by(Handler) as port:
        index.url = f"http://127.0.0.1:{port}/simple"
        yield index
