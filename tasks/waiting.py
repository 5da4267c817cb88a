"""Waiting for Ray that can be interrupted: Ctrl-C and a cancelled flow run reach only the main thread."""

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
    """Make threads that wait for Ray give up when the main thread is interrupted."""
    _stopped.clear()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            _stopped.set()
        raise


def wait_until(ready: Callable[[], bool], every: float = 0.1) -> None:
    """Wait until `ready`; raise KeyboardInterrupt if the flow is stopped."""
    while not ready():
        if _stopped.wait(every):
            raise KeyboardInterrupt


def wait_for_result(work: Callable[[], T]) -> T:
    """The result of work that waits for Ray. It is abandoned if the flow is stopped, since Ray ends with the flow."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    wait_until(result.done)
    return result.result()
