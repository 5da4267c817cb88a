"""Progress for people: lines in the log, and a progress artifact on the dashboard."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from tasks.run_once import log

QUIET = 20.0  # seconds without news, after which a line says that it still runs


@dataclass
class Progress:
    """Counts from 0 to `total`."""

    what: str
    total: int
    artifact: Any
    done: int = 0
    quiet: float = QUIET
    started: float = field(default_factory=time.monotonic)
    last_news: float = field(default_factory=time.monotonic)

    def advance(self, by: int, note: str = "") -> None:
        """Count `by` more as done."""
        self.done += by
        self.last_news = time.monotonic()
        log().info("%s: %d of %d%s", self.what, self.done, self.total, f", {note}" if note else "")
        if self.artifact is not None:
            update_progress_artifact(self.artifact, 100.0 * self.done / self.total)

    def remind(self) -> None:
        """Log that it still runs, if nothing was logged for a while."""
        now = time.monotonic()
        if now - self.last_news >= self.quiet:
            self.last_news = now
            log().info("%s: %d of %d after %.0f s", self.what, self.done, self.total, now - self.started)


def artifact_key(text: str) -> str:
    """A valid key of a Prefect artifact: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@contextmanager
def progress(what: str, total: int, quiet: float | None = None) -> Iterator[Progress]:
    """A progress that the dashboard shows, if a Prefect task is running."""
    artifact = None
    if TaskRunContext.get() is not None and total:
        artifact = create_progress_artifact(progress=0.0, description=f"{what}: {total}")
    shown, ended = Progress(what, total, artifact, quiet=QUIET if quiet is None else quiet), threading.Event()

    def watch() -> None:
        while not ended.wait(min(1.0, shown.quiet)):
            shown.remind()

    context = copy_context()  # the run's logger is found through it
    watcher = threading.Thread(target=context.run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield shown
    finally:
        ended.set()
        watcher.join()
