"""Downloads from servers that break off, give parts of their own choice, or change the file meanwhile."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from web_server import QuietHandler, served_by

from reseed.network.downloads import NoRoomError, download

OLD, NEW = (b"%s row\n" % word * 50_000 for word in (b"old", b"NEW"))
Answer = Callable[[QuietHandler, int], None]


def say(handler: QuietHandler, status: int, body: bytes, cut: int | None = None, **headers: str) -> None:
    """An answer; with `cut` the connection ends after so many bytes of it."""
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body[:cut])
    if cut is not None:
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)


def fetched(answer: Answer, target: Path) -> bytes:
    """What comes from a server that answers so, given the place that it was asked to start at."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            answer(self, int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-")))

    with served_by(Handler) as port:
        download(f"http://127.0.0.1:{port}/rows.csv", target, secret=True)
    return target.read_bytes()


def test_a_part_of_another_version_is_not_added(tmp_path: Path) -> None:
    """Some servers read `Range` and not `If-Range`."""

    def answer(handler: QuietHandler, start: int) -> None:
        if answered:
            say(handler, 206 if start else 200, NEW[start:], ETag='"2"', Content_Range=f"bytes {start}-399999/400000")
        else:
            answered.append(start)
            say(handler, 200, OLD, 250_000, ETag='"1"')

    answered: list[int] = []
    assert fetched(answer, tmp_path / "rows.csv") == NEW


def test_a_part_that_ends_early_is_not_the_end(tmp_path: Path) -> None:
    def answer(handler: QuietHandler, start: int) -> None:
        asked.append(start)
        if len(asked) == 1:
            say(handler, 200, OLD, 150_000, ETag='"1"')
        else:
            part = OLD[start : start + 100_000]
            say(handler, 206, part, ETag='"1"', Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(OLD)}")

    asked: list[int] = []
    assert fetched(answer, tmp_path / "rows.csv") == OLD
    assert len(asked) > 2


def test_a_connection_that_breaks_again_and_again_gets_on(tmp_path: Path) -> None:
    def answer(handler: QuietHandler, start: int) -> None:
        say(handler, 206 if start else 200, OLD[start:], 100_000, ETag='"1"',
            **({"Content_Range": f"bytes {start}-399999/400000"} if start else {}))  # fmt: skip

    assert fetched(answer, tmp_path / "rows.csv") == OLD


def test_a_range_that_a_server_cannot_give_is_asked_for_anew(tmp_path: Path) -> None:
    """All bytes came, but the answer broke before its end: there is nothing left to ask for."""

    def answer(handler: QuietHandler, start: int) -> None:
        asked.append(start)
        if start:
            say(handler, 416, b"")
        elif len(asked) == 1:
            handler.send_response(200)
            for name, value in (("Transfer-Encoding", "chunked"), ("ETag", '"1"')):
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(OLD), OLD))
            handler.close_connection = True
        else:
            say(handler, 200, OLD, ETag='"1"')

    QuietHandler.protocol_version = "HTTP/1.1"
    asked: list[int] = []
    assert fetched(answer, tmp_path / "rows.csv") == OLD


def test_a_full_disk_is_no_matter_of_the_network(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(NoRoomError, match="no space left for it in"):
            fetched(lambda handler, start: say(handler, 200, OLD), tmp_path / "rows.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
