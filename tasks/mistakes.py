"""What a user did wrong is one message, not a traceback; and it comes back whole from a Ray worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from reseed.records import ReseedError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")  # the last one in a worker's process


class OneMessage(logging.Filter):
    """Takes the traceback off a record whose exception is a ReseedError: the message already says it all."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if record.exc_info and isinstance(record.exc_info[1], ReseedError):
            record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
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
