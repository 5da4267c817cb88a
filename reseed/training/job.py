"""What goes into the training of one member and what comes out: records, and the protocol of whoever watches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reseed.models.names import ModelSpec
from reseed.models.sizes import Size
from reseed.problems import ProblemModule
from reseed.records import LossPoint
from reseed.settings import TrainingSettings


@dataclass(frozen=True)
class Judge:
    """What scoring during training needs besides the problem: which model embeds the answers, and how long they may be.

    `problem` scores them where a variant is taught by another one: its best step is chosen by what it will be scored by.
    """

    embedder: ModelSpec
    max_new_tokens: int
    higher_is_better: bool
    problem: ProblemModule | None = None


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
    order: int | None = None  # where seeds are split; then `seed` is that of the adapter's first weights alone

    @property
    def order_seed(self) -> int:
        """The seed of the rows' order and of the dropout masks."""
        return self.seed if self.order is None else self.order


@dataclass(frozen=True)
class TrainSummary:
    """The outcome of a run. `adapter_digest_start` is the adapter's digest before the first step; `tokens_seen` counts all
    tokens trained on, labels or not, without padding: a row counts each time it is seen."""

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
    """Follows one rank's loop: Ray Train, a tracker, a test."""

    def note(self, text: str) -> None:
        """Take a line for the log; rank 0 only."""
        ...

    def point(self, point: LossPoint) -> None:
        """Take a new point of the loss curve; rank 0 only."""
        ...

    def checkpoint(self, folder: Path, step: int) -> None:
        """Take the complete checkpoint in `folder`; called on every rank after the same step."""
        ...


class Silent:
    """A watcher that keeps nothing, for a run that is never resumed: the summary has its curve, its folder the adapter."""

    def note(self, text: str) -> None:
        """Not shown."""

    def point(self, point: LossPoint) -> None:
        """Not kept; the summary has the whole curve."""

    def checkpoint(self, folder: Path, step: int) -> None:
        """Not kept."""
