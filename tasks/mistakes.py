"""What a user did wrong is one message, not a traceback; and it comes back whole from a Ray worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from reseed.records import ReseedError
from reseed.text import visible

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")  # the last one in a worker's process


class OneMessage(logging.Filter):
    """Takes the traceback off a record whose exception is a ReseedError, whose message already says it all, and shows
    control characters as text: column names, rows and checkpoints' paths are others' words."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
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
def unwrapped() -> Iterator[None]:
    """Raise a worker's ReseedError as it was raised there, not in Ray's wrapping."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ReseedError):
            raise error.cause from None
        raise


def raise_failures(failed: dict[str, Exception], total: int) -> None:
    """One error for all failed jobs; a mistake of the user's stays what it is."""
    name, error = next(iter(failed.items()))
    cause = getattr(error, "cause", None)
    if isinstance(cause, ReseedError):
        raise cause
    raise ReseedError(
        f"{len(failed)} of {total} jobs failed, the first is {name}: {last_line(error)}; "
        "the others are done and kept, start the same command again"
    ) from error


def last_line(error: BaseException) -> str:
    """The last line of an error's text, which in Ray's wrapping is what went wrong; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
