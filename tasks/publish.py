"""Publish: curated rows become a dated version of a dataset."""

from __future__ import annotations

from datetime import date

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from reseed.data.sources import DATASET
from reseed.data.versions import published_days
from reseed.recipe.profile import Profile
from reseed.records import Artifact, ReseedError
from reseed.reporting.markdown import markdown_text
from reseed.steps.publish import Publish
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step
from tasks.progress import artifact_key
from tasks.run_once import log, make_here


@task(cache_policy=NO_CACHE, task_run_name="published")
def published_version(profile: Profile, name: str, day: date) -> Artifact | None:
    """The dataset version of a day, if there is one: a day is published only once, whatever changed since."""
    store = ArtifactStore(profile.store)
    ref = store.ref(DATASET, name, day.isoformat())
    if ref is None:
        return None
    move_latest(store, name)  # a killed run may have left that undone
    log().info("%s@%s is published already: %s", name, day, ref.artifact)
    return ref.artifact


@task(cache_policy=NO_CACHE, task_run_name="publish")
def publish(profile: Profile, name: str, curated: Artifact, day: date) -> Artifact:
    """Name the curated rows after their day, and move `latest` to the newest day. Of two at once, the first counts."""
    store = ArtifactStore(profile.store)
    step = Step(Publish(day), name, {"curated": curated})
    version = make_here(store, step)
    store.move_ref(DATASET, name, day.isoformat(), version, expected=None)
    newest = move_latest(store, name)
    artifact = store.refs(DATASET, name)[day.isoformat()]
    create_table_artifact(
        [store.manifest(artifact).metrics],
        key=artifact_key(f"{name}-dataset"),
        description=markdown_text(f"{name}@{day}, latest is {newest}"),
    )
    return artifact


def move_latest(store: ArtifactStore, name: str) -> str:
    """Point `latest` at the newest day and return that day.

    If another flow moves `latest` after the days were listed, they are listed again, so an older day never wins.
    """
    for _ in range(20):
        before = store.ref(DATASET, name, "latest")
        newest = max(published_days(store, name)).isoformat()
        version = store.refs(DATASET, name)[newest]
        if before is not None and before.artifact == version:
            return newest
        if store.move_ref(DATASET, name, "latest", version, before):
            return newest
    raise ReseedError(f"store {store.url}: {DATASET}/{name}@latest keeps being moved by others; try again")
