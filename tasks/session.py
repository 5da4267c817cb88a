"""What every flow does around its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.leftovers import end_together
from tasks.mistakes import quiet_mistakes
from tasks.waiting import stoppable


@contextmanager
def session() -> Iterator[None]:
    """A user's mistake is one message in the log, what starts here ends with this process, and Ctrl-C reaches all threads."""
    quiet_mistakes()
    end_together()
    with stoppable():
        yield
