"""Waiting for Ray in a way that can be given up: Ctrl-C and a cancelled flow run reach the main thread alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_stopped = threading.Event()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let threads that wait for Ray give up when the main thread is interrupted."""
    _stopped.clear()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            _stopped.set()
        raise


def waited_for(ready: Callable[[], bool], every: float = 0.1) -> None:
    """Wait until `ready`, or raise KeyboardInterrupt because the flow was stopped."""
    while not ready():
        if _stopped.wait(every):
            raise KeyboardInterrupt


def awaited(work: Callable[[], T]) -> T:
    """The result of work that waits for Ray, given up when the flow is stopped; Ray ends with the flow."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    waited_for(result.done)
    return result.result()
