"""The days that a nightly has to make: schedules, time zones and lateness, without a server."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

from flows.nights import Missed, nights, read_day
from flows.regenerate import generation_recipe, make_night, regenerate
from reseed.recipe.profile import load_profile
from reseed.recipe.reading import load_recipe
from reseed.records import ReseedError

if TYPE_CHECKING:
    from flows.nights import Schedule

NIGHTLY = CronSchedule(cron="0 2 * * *", timezone="UTC")
BERLIN = CronSchedule(cron="0 1 * * *", timezone="Europe/Berlin")
WEEKLY = CronSchedule(cron="0 2 * * 1", timezone="UTC")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def days(*texts: str) -> list[date]:
    return [date.fromisoformat(text) for text in texts]


def made(due: str, now: str, schedule: CronSchedule | None, published: list[str], missed: Missed) -> list[str]:
    return [str(day) for day in nights(at(due), at(now), schedule, days(*published), missed)]


@pytest.mark.parametrize("missed", ["leave", "every", "newest"])
def test_a_run_that_starts_after_midnight_makes_the_day_it_was_due(missed: Missed) -> None:
    late = CronSchedule(cron="50 23 * * *", timezone="UTC")
    assert made("2026-11-20T23:50", "2026-11-21T00:10", late, ["2026-11-19"], missed) == ["2026-11-20"]


def test_every_missed_night_comes_in_its_order_before_the_own_one() -> None:
    three = ["2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"]
    assert made("2026-11-21T02:00", "2026-11-21T02:00", NIGHTLY, ["2026-11-15", "2026-11-17"], "every") == three
    assert made("2026-11-19T02:00", "2026-11-21T09:00", NIGHTLY, ["2026-11-17"], "every") == three[:2]
    assert made("2026-11-21T02:00", "2026-11-21T02:00", NIGHTLY, ["2026-11-17"], "leave") == three[-1:]


def test_the_newest_only_is_the_last_night_that_is_due() -> None:
    for due in ("2026-11-19T02:00", "2026-11-20T02:00", "2026-11-21T02:00"):
        assert made(due, "2026-11-21T09:00", NIGHTLY, ["2026-11-18"], "newest") == ["2026-11-21"]
    assert made("2026-11-20T02:00", "2026-11-21T01:59", NIGHTLY, [], "newest") == ["2026-11-20"]


def test_what_was_never_planned_is_not_missed() -> None:
    assert made("2026-11-23T02:00", "2026-11-23T02:00", WEEKLY, ["2026-11-09"], "every") == ["2026-11-16", "2026-11-23"]
    assert made("2026-11-23T02:00", "2026-11-23T02:00", WEEKLY, [], "every") == ["2026-11-23"], "the first version"
    assert made("2026-11-20T02:00", "2026-11-23T02:00", NIGHTLY, ["2026-11-22"], "every") == ["2026-11-20"]


@pytest.mark.parametrize(
    "schedule",
    [
        CronSchedule(cron="0 */6 * * *", timezone="Europe/Berlin"),
        IntervalSchedule(interval=timedelta(hours=6), anchor_date=at("2026-01-01T00:00"), timezone="Europe/Berlin"),
        RRuleSchedule(rrule="DTSTART:20260101T000000\nFREQ=HOURLY;INTERVAL=6", timezone="Europe/Berlin"),
    ],
)
def test_no_night_is_lost_after_a_thousand_events(schedule: Schedule) -> None:
    given = nights(at("2026-11-20T12:00"), at("2026-11-20T12:00"), schedule, days("2026-01-31"), "every")
    assert given == [date(2026, 2, 1) + timedelta(days=number) for number in range(293)]


def test_by_hand_a_night_is_the_day_of_the_schedules_time_zone() -> None:
    assert made("2026-07-01T23:30", "2026-07-01T23:30", BERLIN, [], "leave") == ["2026-07-02"]
    assert made("2026-07-01T23:30", "2026-07-01T23:30", None, ["2026-06-01"], "every") == ["2026-07-01"]


@pytest.mark.parametrize(
    ("due", "day"),
    [
        ("2026-03-29T00:00", "2026-03-29"),  # one o'clock in Berlin; in UTC the next night has the same date
        ("2026-03-29T23:00", "2026-03-30"),
        ("2026-10-24T23:00", "2026-10-25"),
        ("2026-10-26T00:00", "2026-10-26"),  # and here UTC would leave out the 25th
    ],
)
def test_summer_time_neither_doubles_nor_drops_a_night(due: str, day: str) -> None:
    assert made(due, due, BERLIN, [], "leave") == [day]


@pytest.mark.parametrize("hour", ["30 2", "0 3", "0 0"])  # 02:30 does not exist on 29 March, and is twice on 25 October
def test_every_day_around_the_change_is_planned_once(hour: str) -> None:
    schedule = CronSchedule(cron=f"{hour} * * *", timezone="Europe/Berlin")
    for month, first in (("03", 25), ("10", 22)):
        want = [f"2026-{month}-{day}" for day in range(first, first + 7)]
        given = made(f"{want[-1]}T12:00", f"{want[-1]}T12:00", schedule, [f"2026-{month}-{first - 1}"], "every")
        assert given == want


def test_a_nightly_takes_the_recipes_own_generation() -> None:
    """Not that of a variant, and no source: what is published is what was generated."""
    base = load_recipe("rewrites", ("variants={few: {generation: {rows: 8}}, many: {}}", "data.train=rows.csv"))
    taken = generation_recipe(base)
    assert list(taken.variants) == ["default"]
    variant = taken.variant("default")
    assert variant.generation == base.generation
    assert variant.data.train is None


PROBLEM = """
columns, metric, higher_is_better = ("text", "label"), "accuracy", True
def prompt(row): return row["text"]
def completion(row): return row["label"]
def scores(answers, rows, embed): return [1.0 for row in rows]
def request(source, instruction): return source
def row(source, instruction, answer): return {"text": answer}
"""


def test_a_problem_that_cannot_make_a_row_is_refused_before_the_night_begins(tmp_path: Path) -> None:
    holdout = {"fraction": 0.2, "group_by": "text"}
    recipe = {
        "name": "mine", "problem": "mine", "question": "Which?", "generation": {"rows": 8}, "model": "wheel:a==1", "seeds": [0],
        "data": {"validation": holdout, "test": holdout},
    }  # fmt: skip
    (tmp_path / "mine.py").write_text(PROBLEM)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    place = load_profile("laptop", (f"store={tmp_path / 'store'}",))
    with pytest.raises(ReseedError, match="row: gave a row without label"):
        make_night(str(tmp_path / "mine.yaml"), (), place, date(2026, 11, 20))


@pytest.mark.parametrize("given", ["2026-11-20", date(2026, 11, 20), at("2026-11-20"), "2026-11-20T00:00:00Z"])
def test_a_day_is_read_as_a_person_or_a_form_writes_it(given: date | str) -> None:
    assert read_day(given) == date(2026, 11, 20)


@pytest.mark.parametrize("given", ["tomorrow", "2026-11-31", "20261120", 20261120, 0, "", "2026-11-20T07:00"])
def test_a_day_that_is_no_date_is_told_in_one_line(given: str | int) -> None:
    """Prefect hands over what it was given: it would answer with a traceback of its own."""
    parameters = regenerate.validate_parameters({"day": given})
    with pytest.raises(ReseedError) as caught:
        read_day(parameters["day"])
    assert str(caught.value) == f"day {given!r}: no such date; wanted year-month-day, as in day=2026-11-20"
