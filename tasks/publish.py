"""Publish: the curated rows become a dated version of a dataset."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from reseed.data.sources import DATASET
from reseed.profile import Profile
from reseed.records import Artifact
from reseed.steps import Step
from reseed.store import ArtifactStore
from tasks.run_once import log, run_once


@task(cache_policy=NO_CACHE, task_run_name="published")
def published(profile: Profile, name: str, day: date) -> Artifact | None:
    """The dataset version of a day, if there is one: a day is published once, whatever changed since."""
    ref = ArtifactStore(profile.store).ref(DATASET, name, day.isoformat())
    if ref is not None:
        log().info("%s@%s is published already: %s", name, day, ref.artifact)
    return ref.artifact if ref is not None else None


@task(cache_policy=NO_CACHE, task_run_name="publish")
def publish(profile: Profile, name: str, curated: Artifact, day: date) -> Artifact:
    """Name the curated rows after their day, and move `latest` to the newest day. Of two racers the first one counts."""
    store = ArtifactStore(profile.store)
    step = Step("publish", 1, DATASET, name, {"date": day.isoformat()}, {"curated": curated})

    def work(folder: Path) -> dict[str, Any]:
        shutil.copy(store.fetch(curated) / "rows.jsonl", folder / "rows.jsonl")
        return store.manifest(curated).metrics

    store.move_ref(DATASET, name, day.isoformat(), run_once(store, step, work), expected=None)
    versions = {ref: artifact for ref, artifact in store.refs(DATASET, name).items() if ref != "latest"}
    store.point(DATASET, name, "latest", versions[max(versions)])
    artifact = versions[day.isoformat()]
    create_table_artifact(
        [store.manifest(artifact).metrics],
        key=f"{name}-dataset",
        description=f"{name}@{day}, latest is {max(versions)}",
    )
    return artifact
