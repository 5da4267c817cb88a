"""Progress that a person can see: a log line in the terminal and a progress artifact on the dashboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from tasks.run_once import log


@dataclass
class Progress:
    """Counts from 0 to `total`."""

    what: str
    total: int
    artifact: Any
    done: int = 0

    def advance(self, by: int, note: str = "") -> None:
        """`by` more are done."""
        self.done += by
        log().info("%s: %d of %d%s", self.what, self.done, self.total, f", {note}" if note else "")
        if self.artifact is not None:
            update_progress_artifact(self.artifact, 100.0 * self.done / self.total)


def artifact_key(text: str) -> str:
    """A key that Prefect takes for an artifact: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """A progress that the dashboard shows when a Prefect task is running."""
    artifact = None
    if TaskRunContext.get() is not None and total:
        artifact = create_progress_artifact(progress=0.0, description=f"{what}: {total}")
    yield Progress(what, total, artifact)
