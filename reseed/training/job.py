"""What one member's training is told and tells: the records and the listener of its loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reseed.models.names import ModelSpec
from reseed.models.sizes import Size
from reseed.records import LossPoint
from reseed.settings import TrainingSettings


@dataclass(frozen=True)
class Judge:
    """What scoring needs besides the problem: who embeds the answers, and how long they may be."""

    embedder: ModelSpec
    max_new_tokens: int
    higher_is_better: bool


@dataclass(frozen=True)
class TrainJob:
    """What every rank of one member needs to know."""

    model: ModelSpec
    settings: TrainingSettings
    seed: int
    world: int
    micro_batch_size: int
    deepspeed: bool = True
    judge: Judge | None = None  # where the best step is chosen by the problem's metric


@dataclass(frozen=True)
class TrainSummary:
    """What rank 0 knows at the end. `adapter_digest_start` is the adapter's before the first step; `tokens_seen` counts
    what was trained on, labels or not, without padding: a row counts once for every time it came."""

    best_step: int
    best_loss: float
    best_metric: float | None
    steps: int
    shortened_rows: int
    dropped_rows: int
    adapter_digest_start: str
    logit_shift: float
    tokens_seen: int
    parameters: dict[str, Size]  # by group, on rank 0
    curve: tuple[LossPoint, ...]


class Watcher(Protocol):
    """Whoever listens to one rank's loop: Ray Train, a tracker, a test."""

    def note(self, text: str) -> None:
        """A line for whoever follows the run; rank 0 only."""
        ...

    def point(self, point: LossPoint) -> None:
        """A new point of the loss curve; rank 0 only."""
        ...

    def checkpoint(self, folder: Path, step: int) -> None:
        """A complete checkpoint lies in `folder`; every rank, after the same step."""
        ...


class Silent:
    """A watcher that does nothing, for a run that is not resumed: the summary has its curve, its folder the best adapter."""

    def note(self, text: str) -> None:
        """Not shown."""

    def point(self, point: LossPoint) -> None:
        """Not kept; the summary has the whole curve."""

    def checkpoint(self, folder: Path, step: int) -> None:
        """Not kept."""
