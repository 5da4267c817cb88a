"""Requests to the project's Prefect server: without importing Prefect, which takes a second, and past any proxy."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.local.processes import listens
from infra.local.settings import LocalServer
from reseed.records import ReseedError

BUSY_TRIES, BUSY_SECONDS = 20, 0.5  # the server answers 503 while SQLite is locked
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(server: LocalServer, path: str, body: Any = None, method: str | None = None, key: bool = True) -> Any:
    """The answer to a request to the API, None if it is empty; a busy server is asked again.

    The key goes to our server only: another process on its port would learn it. Raises `urllib.error.HTTPError` for a
    refusal and `OSError` if our server does not answer.
    """
    if key and not listens(server):
        raise ConnectionRefusedError(f"the Prefect server does not listen at {server.ui_url}")
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(server.authorization if key else {})}
    request = urllib.request.Request(server.api_url + path, data, headers, method=method)
    for attempt in range(BUSY_TRIES):
        try:
            with _direct.open(request, timeout=10) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == BUSY_TRIES - 1:
                raise
            time.sleep(BUSY_SECONDS)
    raise AssertionError("unreachable")


@contextmanager
def answered(server: LocalServer) -> Iterator[None]:
    """Raise `ReseedError` if the server refuses a request of the block or does not answer it."""
    try:
        yield
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException, json.JSONDecodeError) as e:
        cure = "wait if the machine is busy, then `reseed up` again; if that does not help, see .reseed/logs/server.log"
        raise ReseedError(f"the Prefect server at {server.ui_url} does not answer as it should ({e}): {cure}") from e
