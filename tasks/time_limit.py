"""A limit for unattended work: what hangs is ended from inside or, if that fails, from outside."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reseed.records import ReseedError
from tasks.leftovers import kill_after

MOST_HOURS = 8760.0  # a year: a timer takes no infinite number
GRACE_SECONDS = 60.0  # to end from inside: the flow reports to Prefect, and Ray stops


@contextmanager
def time_limit(hours: float | None, what: str) -> Iterator[None]:
    """Raise `ReseedError` in the main thread when the time is over; None is no limit. A machine's sleep does not count.

    A signal interrupts what waits (Ray, a socket), but not C code that never returns to Python, nor a stopped process.
    So after a grace period (a minute, or the limit itself if that is shorter) the watcher kills the flow with all that
    it started. Why not Prefect's `timeout_seconds`: docs/decisions/0019-nightly.md.
    """
    if hours is None:
        yield
        return
    if not 0 < hours <= MOST_HOURS:  # also refuses NaN
        raise ReseedError(f"hours is {hours:g}, wanted more than 0 and at most {MOST_HOURS:g}, or none for no limit")
    seconds, ended = hours * 3600, False

    def stop_work(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True
        raise KeyboardInterrupt  # Ray swallows any other exception of a handler and waits on

    alarm = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, stop_work) if alarm else None
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
        if not ended:  # else the grace period is running
            kill_after(None)
