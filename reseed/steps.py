"""A step before it runs: what it reads and does, and therefore the key of the artifact that it will write.

The key is a digest of the step and its version, the part of the recipe that it reads, the keys of its inputs and its
seed. Keys need no content, so a whole line of steps can be planned before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reseed.files import digest
from reseed.records import Artifact


@dataclass(frozen=True)
class Step:
    """One artifact to be: `name` is the folder that people look for it under, `spec` all that shapes its content."""

    verb: str
    version: int
    kind: str
    name: str
    spec: dict[str, Any]
    inputs: dict[str, Artifact] = field(default_factory=dict)
    seed: int | None = None

    @property
    def artifact(self) -> Artifact:
        """Where the result is, or will be."""
        inputs = {role: artifact.key for role, artifact in self.inputs.items()}
        key = digest([self.verb, self.version, self.spec, inputs, self.seed])
        return Artifact(self.kind, self.name, key)
