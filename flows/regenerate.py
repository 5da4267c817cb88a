"""The nightly: fresh synthetic rows, curated, published as a dated version of a dataset."""

from __future__ import annotations

from datetime import UTC, date, datetime

from prefect import flow

from reseed.profile import load_profile
from reseed.recipe import load_recipe, split_overrides
from reseed.records import Artifact
from tasks.generate import generate
from tasks.leftovers import end_together
from tasks.mistakes import quiet_mistakes
from tasks.prepare import curate
from tasks.publish import publish, published


@flow(name="regenerate", flow_run_name="{recipe}")
def regenerate(
    recipe: str = "rewrites", profile: str = "laptop", day: date | None = None, overrides: list[str] | None = None
) -> Artifact:
    """The recipe's dataset version of `day` (UTC; today if left out), drawn with a seed of that day."""
    quiet_mistakes()
    end_together()
    wanted = day or datetime.now(UTC).date()
    own, where = split_overrides(overrides or [])
    place = load_profile(profile, where)
    dated = load_recipe(recipe, (*own, f"generation.seed={wanted:%Y%m%d}"), place.name)
    if version := published(place, dated.name, wanted):
        return version
    return publish(place, dated.name, curate(dated, place, generate(dated, place)), wanted)
