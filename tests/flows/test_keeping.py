"""`reseed up --stay` outlives a server that does not answer for a while."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local import keeping
from infra.local import server as local_server
from infra.local.server import up
from infra.local.settings import LocalServer
from reseed.records import ReseedError


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """One that runs, whose worker too is known; `prefect.yaml` is not deployed yet."""
    (tmp_path / "prefect.yaml").write_text("deployments: []\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    known = LocalServer(port, 1, 1, str(tmp_path / ".reseed/prefect"))
    monkeypatch.setattr(local_server, "_ensure_server", lambda *_: known)
    return known


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_request_without_an_answer_is_one_message(tmp_path: Path, server: LocalServer) -> None:
    with pytest.raises(ReseedError, match=rf"server at {server.ui_url} does not answer .*does not listen.*: wait if"):
        up(tmp_path, server.port)


def test_who_stays_waits_for_a_server_that_fails_for_a_while(
    tmp_path: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    said: list[str] = []
    ended: list[int] = []
    refusals: list[Exception] = [
        urllib.error.HTTPError("http://x", 500, "database is locked", None, None),  # type: ignore[arg-type]
        OSError(28, "No space left on device"),
    ]
    looks = iter([server])  # the worker lives at first, then it is dead

    def ask(*arguments: Any) -> Any:
        assert not ended
        if refusals:
            raise refusals.pop(0)
        os.kill(os.getpid(), signal.SIGTERM)
        raise TimeoutError

    monkeypatch.setattr(local_server, "ask", ask)
    monkeypatch.setattr(keeping, "running", lambda _: next(looks, None))
    monkeypatch.setattr(keeping, "down", lambda *_: ended.append(len(said)))
    keeping.stay(tmp_path, server.port, said.append, every=0.01)
    tries = [line for line in said if line.endswith("; trying again")]
    assert len(tries) == 3
    assert "HTTP Error 500: database is locked" in tries[0]
    assert "No space left" in tries[1]
    assert ended == [len(said)], "once, when it was told to end"
