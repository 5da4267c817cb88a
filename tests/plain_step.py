"""A step by what a manifest says of it, for tests of what is done with any step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reseed.records import Artifact
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Metrics, Step


@dataclass(frozen=True)
class PlainWork:
    """Work that is named by its parts, and does nothing."""

    verb: str
    version: int
    kind: str
    spec_values: Mapping[str, Any]
    on_ray: bool = False

    def spec(self) -> dict[str, Any]:
        return dict(self.spec_values)

    def make(self, step: Step[Any], store: ArtifactStore, folder: Path) -> Metrics:
        return {}

    def summary(self, metrics: Metrics) -> str:
        return "done"


def plain_step(
    verb: str, version: int, kind: str, name: str, spec: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None, seed: int | None = None,
) -> Step[Any]:  # fmt: skip
    """One artifact to be."""
    work: Any = PlainWork(verb, version, kind, spec)
    return Step(work, name, inputs or {}, seed)
