"""Which days a run of the nightly has to make.

A night is a day of the schedule, in the schedule's time zone: that of the instant for which the run was scheduled,
however late it starts. The missed ones are found in the store, not in Prefect's queue: a server that did not run at two
o'clock has scheduled nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter, ValidationError

from reseed.data.versions import published_days
from reseed.recipe.profile import Profile
from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    Schedule = CronSchedule | IntervalSchedule | RRuleSchedule

Missed = Literal["leave", "every", "newest"]
"""What a run does about nights before its own: nothing; make them first; make only the newest that is due by now."""


def read_day(given: date | str | int) -> date:
    """The day that a person named. The flow takes any text and judges it here: Prefect's own word for a parameter that is
    wrong is a traceback, and to it a bare 20261120 is a number of seconds."""
    if isinstance(given, date) or re.match(r"\d{4}-\d\d-\d\d", str(given)):
        with suppress(ValidationError):
            return TypeAdapter(date).validate_python(given)
    raise ReseedError(f"day {given!r}: no such date; wanted year-month-day, as in day=2026-11-20")


def nights_of_this_run(profile: Profile, name: str, missed: Missed) -> list[date]:
    """The days that the current flow run has to make of the dataset `name`, in their order."""
    from prefect.runtime import flow_run

    due: datetime = flow_run.scheduled_start_time
    days = published_days(ArtifactStore(profile.store), name) if missed == "every" else []
    return nights(due, datetime.now(UTC), schedule_of_this_run(), days, missed)


def nights(
    due: datetime, now: datetime, schedule: Schedule | None, published: Iterable[date], missed: Missed
) -> list[date]:
    """The days to make for a run that was due at `due`, in their order. Without a schedule: the day of `due` in UTC.

    Missed is what the schedule names after the newest published day. The first version has no nights before it, and a
    version that was removed is not made again.
    """
    zone = ZoneInfo((schedule and schedule.timezone) or "UTC")
    day = due.astimezone(zone).date()
    if schedule is None or missed == "leave":
        return [day]
    if missed == "newest":
        return [max([day, *scheduled_days(schedule, due, now, zone)])]
    newest = max((known for known in published if known < day), default=day)
    begin = datetime.combine(newest + timedelta(days=1), datetime.min.time(), zone)
    return [*(found for found in scheduled_days(schedule, begin, due, zone) if found < day), day]


def scheduled_days(schedule: Schedule, begin: datetime, end: datetime, zone: ZoneInfo) -> list[date]:
    """The schedule's days from `begin` to `end`, with both."""
    if begin > end:
        return []
    from prefect.server.schemas import schedules  # the client's schedules cannot tell their dates

    counted = getattr(schedules, type(schedule).__name__).model_validate(schedule.model_dump())
    found: set[datetime] = set()
    while new := set(asyncio.run(counted.get_dates(start=begin, end=end))) - found:  # a thousand at a time
        found |= new
        begin = max(new)
    return sorted({at.astimezone(zone).date() for at in found})


def schedule_of_this_run() -> Schedule | None:
    """The schedule that made the current flow run, else the first of its deployment: by hand, a night is the same."""
    from prefect import get_client
    from prefect.client.schemas.schedules import NoSchedule
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None:
        return None
    with get_client(sync_client=True) as client:
        known = client.read_deployment(run.deployment_id).schedules
    own = [entry for entry in known if run.created_by and entry.id == run.created_by.id]
    return next((entry.schedule for entry in own or known if not isinstance(entry.schedule, NoSchedule)), None)
