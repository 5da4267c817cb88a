"""A user's mistake is logged as one message; every other error keeps its traceback."""

from __future__ import annotations

import logging

import pytest

from reseed.records import ReseedError
from tasks.mistakes import LOGGERS, OneMessage, last_line, quiet_mistakes, unwrap_errors


def filtered(error: Exception) -> logging.LogRecord:
    """The record of a failed task, as Prefect makes it, after the filter."""
    record = logging.LogRecord(
        "prefect.task_runs", logging.ERROR, __file__, 1, "Task run failed with exception: %r", (error,),
        (type(error), error, None),
    )  # fmt: skip
    assert OneMessage().filter(record), "nothing is lost"
    return record


def test_only_a_mistake_loses_its_traceback() -> None:
    mistake, bug = filtered(ReseedError("rows: 100 % are empty; give some")), filtered(ValueError("a bug"))
    assert mistake.getMessage() == "rows: 100 % are empty; give some"
    assert mistake.exc_info is None
    assert "a bug" in bug.getMessage()
    assert bug.exc_info is not None


def test_what_a_file_says_is_no_command_to_the_terminal() -> None:
    hostile = "the file has te\x1b]0;PWNED\x07\x1b[2Jxt, b"
    assert filtered(ReseedError(hostile)).getMessage() == r"the file has te\x1b]0;PWNED\x07\x1b[2Jxt, b"
    record = logging.LogRecord("prefect.flow_runs", logging.INFO, __file__, 1, "%s: 100 %%", (hostile,), None)
    assert OneMessage().filter(record)
    assert record.getMessage() == r"the file has te\x1b]0;PWNED\x07\x1b[2Jxt, b: 100 %"


def test_the_filter_is_set_once() -> None:
    quiet_mistakes()
    quiet_mistakes()
    for name in LOGGERS:
        assert [type(known) for known in logging.getLogger(name).filters].count(OneMessage) == 1


def test_a_workers_mistake_comes_back_as_itself() -> None:
    from ray.exceptions import RayTaskError

    def wrapped(cause: Exception) -> Exception:
        return RayTaskError("work", "Traceback …", cause).as_instanceof_cause()

    with pytest.raises(ReseedError, match=r"^lower it$") as caught, unwrap_errors():
        raise wrapped(ReseedError("lower it"))
    assert type(caught.value) is ReseedError
    with pytest.raises(RayTaskError), unwrap_errors():
        raise wrapped(ValueError("a bug"))


def test_an_error_without_a_text_is_reported_by_its_type() -> None:
    assert last_line(TimeoutError()) == "TimeoutError"
    assert last_line(ValueError("wrapped\n  the reason\n")) == "  the reason"
