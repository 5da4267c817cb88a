"""A step before it runs: everything that makes one artifact, and therefore the artifact's key.

The key is a digest of the verb and its version, the work's spec, the keys of its inputs, and its seed. No content is
needed for it, so a whole line of steps is planned before anything runs. A step carries everything that its work needs:
its key is computed once and never again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from reseed.files import digest
from reseed.records import Artifact

Metrics = dict[str, Any]
"""What a manifest says about an artifact besides its files."""


class Work(Protocol):
    """What a step does: a frozen record of everything that shapes the artifact besides inputs and seed."""

    verb: ClassVar[str]
    version: ClassVar[int]  # raised when the same spec makes another artifact
    kind: ClassVar[str]

    def spec(self) -> dict[str, Any]:
        """What the key holds."""
        ...


WorkT = TypeVar("WorkT", bound=Work, covariant=True)


@dataclass(frozen=True)
class Step(Generic[WorkT]):
    """One artifact to make; `name` is the folder where people look for it."""

    work: WorkT
    name: str
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    seed: int | None = None

    @property
    def verb(self) -> str:
        """What is done, in a word; its task on the dashboard is named after it."""
        return self.work.verb

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The work's spec, computed once: a model's folder may change while the line runs."""
        return self.work.spec()

    @cached_property
    def artifact(self) -> Artifact:
        """The artifact that the step makes."""
        inputs = {role: artifact.key for role, artifact in self.inputs.items()}
        key = digest([self.work.verb, self.work.version, self.spec, inputs, self.seed])
        return Artifact(self.work.kind, self.name, key)
