"""A user's mistake is one message, not a traceback, and comes back whole from a Ray worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from reseed.records import ReseedError
from reseed.text import visible

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")  # the last one logs in workers' processes


class OneMessage(logging.Filter):
    """Drops the traceback of a ReseedError, whose message says it all, and makes control characters visible: names of columns,
    rows and paths may come from anywhere."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record and let it pass."""
        if record.exc_info and isinstance(record.exc_info[1], ReseedError):
            record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
        record.msg, record.args = visible(record.getMessage()), ()
        return True


def quiet_mistakes() -> None:
    """Log a ReseedError without its traceback, in flows and tasks."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, OneMessage) for known in logger.filters):
            logger.addFilter(OneMessage())


@contextmanager
def unwrap_errors() -> Iterator[None]:
    """Raise a worker's ReseedError as itself, without Ray's wrapping."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ReseedError):
            raise error.cause from None
        raise


def raise_failures(failed: dict[str, Exception], total: int) -> None:
    """Raise one error for all failed jobs; a user's mistake is raised as itself."""
    name, error = next(iter(failed.items()))
    cause = getattr(error, "cause", None)
    if isinstance(cause, ReseedError):
        raise cause
    raise ReseedError(
        f"{len(failed)} of {total} jobs failed, the first is {name}: {last_line(error)}; "
        "the others are done and kept, start the same command again"
    ) from error


def last_line(error: BaseException) -> str:
    """The last line of an error's text, which in Ray's wrapping is what went wrong; its type if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
