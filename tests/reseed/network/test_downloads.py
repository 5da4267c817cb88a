"""Downloads from servers that break off, give parts of their own choice, or change the file meanwhile."""

from __future__ import annotations

import gzip
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from web_server import QuietHandler, served_by

from reseed.network.downloads import NoRoomError, download
from reseed.records import ReseedError

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


def test_a_part_that_does_not_say_its_version_is_not_added(tmp_path: Path) -> None:
    def answer(handler: QuietHandler, start: int) -> None:
        if start:
            say(handler, 206, NEW[start:], Content_Range=f"bytes {start}-399999/400000")
        else:
            say(handler, 200, NEW if answered else OLD, None if answered else 250_000, ETag='"1"')
            answered.append(start)

    answered: list[int] = []
    assert fetched(answer, tmp_path / "rows.csv") == NEW


def test_an_answer_without_a_file_is_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ReseedError, match="it answered 204, with no file; wanted 200"):
        fetched(lambda handler, start: say(handler, 204, b""), tmp_path / "rows.csv")


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


def test_packed_bytes_are_not_counted_as_the_file_s(tmp_path: Path) -> None:
    """What cannot be packed is longer packed; some servers pack whatever is asked for."""
    noise = os.urandom(5000)
    packed = gzip.compress(noise)
    assert len(packed) > len(noise)
    answer = fetched(lambda handler, start: say(handler, 200, packed, Content_Encoding="gzip"), tmp_path / "rows.csv")
    assert answer == noise


def test_a_server_that_never_gets_further_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks off at the same place, and then gives a part that was not asked for."""

    def answer(handler: QuietHandler, start: int) -> None:
        asked.append(start)
        if len(asked) > 20:
            say(handler, 200, OLD)
        elif start:
            later = start + 1000
            say(handler, 206, OLD[later:], ETag='"1"', Content_Range=f"bytes {later}-399999/400000")
        else:
            say(handler, 200, OLD, 250_000, ETag='"1"')

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    asked: list[int] = []
    with pytest.raises(ReseedError, match="did not give it whole"):
        fetched(answer, tmp_path / "rows.csv")
    assert len(asked) == 5


def test_a_file_that_was_just_changed_is_not_continued_by_its_time(tmp_path: Path) -> None:
    """Within a second it may be changed again, and have the same time."""

    def answer(handler: QuietHandler, start: int) -> None:
        asked.append(start)
        body, cut = (OLD, 250_000) if len(asked) == 1 else (NEW[start:], None)
        part = {"Content_Range": f"bytes {start}-399999/400000"} if start else {}
        changed.append(handler.date_time_string())
        say(handler, 206 if start else 200, body, cut, Last_Modified=changed[0], **part)

    asked: list[int] = []
    changed: list[str] = []  # `Date`, which is sent too, is as late
    assert fetched(answer, tmp_path / "rows.csv") == NEW
