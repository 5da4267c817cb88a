"""The nightly: fresh synthetic rows, curated, published as a dated version of a dataset."""

from __future__ import annotations

from datetime import date

from prefect import flow

from flows.nights import Missed, nights_of_this_run, read_day
from flows.planning import refuse_unpinned
from reseed.line import Line
from reseed.recipe.profile import Profile, load_profile
from reseed.recipe.reading import load_recipe, split_overrides
from reseed.recipe.recipe import Recipe
from reseed.records import Artifact
from reseed.rehearsal import rehearse
from reseed.store.artifacts import ArtifactStore
from tasks.ask import ask
from tasks.make import make
from tasks.publish import publish, published_version
from tasks.run_once import log
from tasks.session import session
from tasks.time_limit import time_limit


@flow(name="regenerate", flow_run_name="{recipe}")
def regenerate(
    recipe: str = "rewrites", profile: str = "laptop", day: date | str | int | None = None,
    overrides: list[str] | None = None, missed: Missed = "leave", hours: float | None = None,
) -> Artifact:  # fmt: skip
    """The recipe's dataset version of `day`: if left out, of the day for which the run was scheduled.

    With `missed` it also sees to the nights before (flows/nights.py). `hours` limits each night's time: a run that
    hangs is ended. The first night that fails ends the run; the next run begins with it.
    """
    with session():
        asked = read_day(day) if day is not None else None
        own, where = split_overrides(overrides or [])
        place = load_profile(profile, where)
        with time_limit(hours, "looking for missed nights in the store"):
            name = load_recipe(recipe, own, place.name).name
            days = [asked] if asked else nights_of_this_run(place, name, missed)
        for night in days:
            with time_limit(hours, f"the night {night}"):
                version = make_night(recipe, own, place, night)
        return version


def make_night(recipe: str, overrides: tuple[str, ...], place: Profile, day: date) -> Artifact:
    """One day's version, drawn with a seed of that day; the one that exists, if it does."""
    dated = load_recipe(recipe, (*overrides, f"generation.seed={day:%Y%m%d}"), place.name)
    if version := published_version(place, dated.name, day):
        return version
    line = Line(generation_recipe(dated), place, ArtifactStore(place.store))
    refuse_unpinned(line)
    for note in rehearse(line):
        log().warning(note)
    if shards := line.needed_shards():
        ask(place, shards)
    make(place, line.rows("default"))
    return publish(place, dated.name, make(place, line.curated("default")), day)


def generation_recipe(recipe: Recipe) -> Recipe:
    """The recipe as a nightly uses it: its generation section, without variants or another source of rows."""
    data = recipe.data.model_copy(update={"train": None})
    return recipe.model_copy(update={"data": data, "variants": {"default": {}}, "baseline": None})
