"""Sections that train: float16, the optimisers, offloading, and going on after a stop; each under DeepSpeed, on one rank."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu.setup import PROBLEM, Row, Setup, measured, mixtral, one_rank, text_rows, tried

from reseed.models.names import ModelSpec
from reseed.records import LossPoint
from reseed.settings import TrainingSettings
from reseed.training.job import Silent, TrainJob
from reseed.training.loop import train

ADAPTER = "adapter_model.safetensors"


class StopError(Exception):
    """The run is ended here on purpose."""


@dataclass
class Seen(Silent):
    """Keeps the loss curve and the checkpoints."""

    folder: Path
    stop_after: int | None = None
    points: list[LossPoint] = field(default_factory=list)
    last: Path | None = None

    def point(self, point: LossPoint) -> None:
        self.points.append(point)

    def checkpoint(self, folder: Path, step: int) -> None:
        self.last = self.folder / f"step-{step}"
        shutil.copytree(folder, self.last)
        if step == self.stop_after:
            raise StopError


@dataclass(frozen=True)
class Fit:
    """One run."""

    losses: list[float]  # of training, one a step
    seconds: float
    peak: int | None
    seen: Seen

    @property
    def adapter(self) -> str:
        """A digest of the adapter at the last checkpoint."""
        assert self.seen.last is not None
        return hashlib.sha256((self.seen.last / "state" / ADAPTER).read_bytes()).hexdigest()

    def row(self) -> Row:
        """What a table shows. The seconds hold the start, two evaluations and the last check too."""
        shown: Row = {"first loss": self.losses[0], "last loss": self.losses[-1], "s": self.seconds}
        return shown | ({} if self.peak is None else {"peak GiB": self.peak / 2**30})


def fit(
    setup: Setup, name: str, spec: ModelSpec, resume: Path | None = None, stop_after: int | None = None, **changes: Any
) -> Fit:
    """Six steps of eight rows in micro-batches of two, by the loop that every worker runs."""
    one_rank()
    place = setup.own(name)
    shutil.rmtree(place)
    common: dict[str, Any] = {"batch_size": 8, "evaluate_every": 3, "learning_rate": 1e-3, "max_tokens": 320}
    settings = TrainingSettings.model_validate(common | {"dropout": 0.05, "warmup_steps": 0} | changes)
    seen, linear = Seen(place / "seen", stop_after), torch.nn.functional.linear
    job = TrainJob(spec, settings, seed=0, world=1, micro_batch_size=2, deepspeed=True)
    rows = text_rows(56, words=8 if setup.tiny else 40)

    def run() -> None:
        with contextlib.suppress(StopError):
            train(job, PROBLEM, rows[:48], rows[48:], place / "work", seen, resume)

    try:
        seconds, peak = measured(run, setup.device)
    finally:
        torch.nn.functional.linear = linear  # ZeRO-3 leaves its own behind
    return Fit([point.train for point in seen.points if point.train is not None], seconds, peak, seen)


def precision(setup: Setup) -> Iterator[Row]:
    """bfloat16, float16 with its loss scale, float32; gradients of four micro-steps are summed in 32 bit."""
    for dtype in ("bfloat16", "float16", "float32"):
        yield tried(dtype, lambda dtype=dtype: fit(setup, f"fit-{dtype}", mixtral(setup, dtype)).row())


def optimisers(setup: Setup) -> Iterator[Row]:
    """States in 32 and 8 bit, and paged ones."""
    for name in ("adamw", "adamw-8bit", "paged-adamw-8bit"):
        spec = mixtral(setup)
        yield tried(name, lambda name=name, spec=spec: fit(setup, f"fit-{name}", spec, optimizer=name).row())


def offload(setup: Setup) -> Iterator[Row]:
    """Every place that states and weights may wait in."""
    for stage, where in ((2, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer"), (3, "parameters")):
        changes = {"zero_stage": stage, "offload": where}
        name, spec = f"ZeRO-{stage}, offload {where}", mixtral(setup)
        yield tried(name, lambda c=changes, spec=spec: fit(setup, "fit-offload", spec, **c).row())


def resume(setup: Setup) -> Iterator[Row]:
    """A run that was stopped after half of its steps ends as one that was not, to the bit."""
    for stage, form in ((2, None), (3, None), (2, "nf4")):
        spec = mixtral(setup, four_bit=form)

        def compare(stage: int = stage, spec: ModelSpec = spec) -> Row:
            whole = fit(setup, "fit-whole", spec, zero_stage=stage)
            half = fit(setup, "fit-half", spec, zero_stage=stage, stop_after=3)
            again = fit(setup, "fit-again", spec, resume=half.seen.last, zero_stage=stage)
            return {"same adapter": whole.adapter == again.adapter, **again.row()}

        yield tried(f"ZeRO-{stage}, {form or 'bf16'}", compare)
