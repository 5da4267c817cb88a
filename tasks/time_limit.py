"""A limit for work that nobody watches: what hangs is ended, from inside and, where that fails, from outside."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reseed.records import ReseedError
from tasks.leftovers import kill_after

MOST_HOURS = 8760.0  # a year: a timer takes no infinite number
GRACE_SECONDS = 60.0  # for the end from inside: a flow tells Prefect, and Ray stops


@contextmanager
def time_limit(hours: float | None, what: str) -> Iterator[None]:
    """Raise `ReseedError` in the main thread when the time is over; None is no limit. A machine's sleep does not count.

    A signal interrupts what waits (Ray, a socket), but not C code that never returns to Python, nor a stopped process.
    So the watcher kills the flow with all it started a grace later (a minute, or as long as the limit if that is
    shorter). Why not Prefect's `timeout_seconds`: docs/decisions/0019-nightly.md.
    """
    if hours is None:
        yield
        return
    if not 0 < hours <= MOST_HOURS:  # nor NaN
        raise ReseedError(f"hours is {hours:g}, wanted more than 0 and at most {MOST_HOURS:g}, or none for no limit")
    seconds, ended = hours * 3600, False

    def over(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True
        raise KeyboardInterrupt  # Ray swallows any other exception of a handler and waits on

    alarm = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, over) if alarm else None
    kill_after(seconds + min(seconds, GRACE_SECONDS))
    try:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    except KeyboardInterrupt:
        if not ended:
            raise
        raise ReseedError(
            f"{what} is not done after {hours:g} hours and was stopped; start it again, it continues from what is in the "
            "store, or allow it more: the parameter `hours`"
        ) from None
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        if not ended:  # else the end has to be over within the grace
            kill_after(None)
