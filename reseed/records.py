"""The small frozen records that cross a boundary: between steps, between processes, into the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Row = dict[str, str]
"""One row of data: column name → text. Every row has an `id`, the digest of its content."""

Finish = Literal["stop", "length", "too-long"]


class ReseedError(Exception):
    """Something a user can mend: the message names the thing, the value seen, the value wanted and the fix."""


@dataclass(frozen=True)
class Artifact:
    """Immutable files in the store: `<kind>/<name>/<key>/`."""

    kind: str
    name: str
    key: str

    @property
    def path(self) -> str:
        """The artifact's folder below the store's root."""
        return f"{self.kind}/{self.name}/{self.key}"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}/{self.key[:12]}"


@dataclass(frozen=True)
class Sampling:
    """How an engine draws text. `temperature` 0 is greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A text for an engine to continue; `id` joins the answer to it."""

    id: str
    text: str
    templated: bool = False  # a chat template wrote the text: it already has its special tokens


@dataclass(frozen=True)
class Generation:
    """What an engine wrote for the prompt with the same id, and why it stopped."""

    id: str
    text: str
    finish: Finish
    tokens: int


@dataclass(frozen=True, order=True)
class Member:
    """One trained (variant, seed). Where seeds are split, `seed` is the initialisation's; `order` is for rows and dropout."""

    variant: str
    seed: int
    order: int | None = None

    @property
    def run(self) -> str:
        """The seed as people and columns name it: `0`, or `0.2` for initialisation 0 and order 2."""
        return run_name(self.seed, self.order)

    def __str__(self) -> str:
        return f"{self.variant} seed {self.run}"


def run_name(seed: int, order: int | None) -> str:
    """`0`, or `0.2` where seeds are split."""
    return str(seed) if order is None else f"{seed}.{order}"


@dataclass(frozen=True)
class LossPoint:
    """One point of a loss curve; `train` is the mean since the last point, `validation` a mean over label tokens.

    `metric` is the problem's, of answers to some validation rows, where the best step is chosen by it.
    """

    step: int
    train: float | None = None
    validation: float | None = None
    metric: float | None = None
