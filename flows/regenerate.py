"""The nightly: fresh synthetic rows, curated, published as a dated version of a dataset."""

from __future__ import annotations

from datetime import UTC, date, datetime

from prefect import flow

from reseed.profile import load_profile
from reseed.recipe import load_recipe
from reseed.records import Artifact
from tasks.generate import generate
from tasks.prepare import curate
from tasks.publish import publish, published


@flow(name="regenerate", flow_run_name="{recipe}")
def regenerate(
    recipe: str = "rewrites", profile: str = "laptop", day: date | None = None, overrides: list[str] | None = None
) -> Artifact:
    """The recipe's dataset version of `day` (UTC; today if left out), drawn with a seed of that day."""
    wanted = day or datetime.now(UTC).date()
    dated = load_recipe(recipe, (*(overrides or []), f"generation.seed={wanted:%Y%m%d}"))
    place = load_profile(profile)
    if version := published(place, dated.name, wanted):
        return version
    return publish(place, dated.name, curate(dated, place, generate(dated, place)), wanted)
