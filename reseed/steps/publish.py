"""Publish: curated rows become a dated version of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

from reseed.data.rows import open_rows, write_rows
from reseed.data.sources import DATASET
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Metrics, Step


@dataclass(frozen=True)
class Publish:
    """A dataset's version of one day."""

    verb: ClassVar[str] = "publish"
    version: ClassVar[int] = 1
    kind: ClassVar[str] = DATASET
    on_ray: ClassVar[bool] = False
    day: date

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        return {"date": self.day.isoformat()}

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        """`rows.parquet`; the metrics are the dataset table."""
        curated = step.inputs["curated"]
        write_rows(folder / "rows.parquet", open_rows(store.fetch(curated)))
        return store.manifest(curated).metrics

    def summary(self, metrics: Metrics) -> str:
        """The outcome in a few words."""
        return f"{metrics['n']} rows of {metrics['n_prompts']} prompts"
