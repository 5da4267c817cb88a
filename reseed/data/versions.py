"""Versions of a dataset: refs that are days, and `latest`, which names the newest of them."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

from reseed.data.sources import DATASET
from reseed.store.artifacts import ArtifactStore


def published_days(store: ArtifactStore, name: str) -> list[date]:
    """The days of the dataset's versions; other names for a version, `latest` among them, are no days."""
    days = []
    for ref in store.refs(DATASET, name):
        with suppress(ValueError):
            days.append(date.fromisoformat(ref))
    return days
