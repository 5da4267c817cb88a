"""Rows of prompt recovery out of the repository's own passages and prompts, and a watcher that remembers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reseed.models.names import ModelSpec, Upcycle
from reseed.problems import load_problem
from reseed.records import LossPoint, Row
from reseed.settings import TrainingSettings
from reseed.training.job import TrainJob

SEEDS = Path(__file__).resolve().parents[1] / "recipes" / "seeds"
PROBLEM = load_problem("prompt-recovery")
SHORT = TrainingSettings(epochs=1, learning_rate=0.01, batch_size=4, evaluate_every=2, max_tokens=320)
TWENTY: dict[str, Any] = {"evaluate_every": 5, "max_grad_norm": 0.1}  # of 80 rows; some gradients are clipped
CURVE = SHORT.model_copy(update=TWENTY)


def rows(count: int, words: int = 8) -> list[Row]:
    """`count` different rows of about `words` words; no generator runs, the rewrite is the passage in capitals."""
    passages = (SEEDS / "passages.txt").read_text(encoding="utf-8").splitlines()
    prompts = (SEEDS / "prompts.txt").read_text(encoding="utf-8").splitlines()
    made = []
    for n in range(count):
        text = " ".join(passages[n % len(passages)].split()[: words + n % 5])
        made.append(PROBLEM.row(text, prompts[n % len(prompts)], text.upper()))
    return made


def job(
    model: Path, seed: int = 0, settings: TrainingSettings = SHORT, sparse: bool = True, micro: int = 4
) -> TrainJob:
    """One CPU worker without DeepSpeed, in float32."""
    spec = ModelSpec(name=str(model), dtype="float32", upcycle=Upcycle(experts=2, top_k=1) if sparse else None)
    return TrainJob(spec, settings, seed, world=1, micro_batch_size=micro, deepspeed=False)


class PowerError(Exception):
    """The power went off."""


@dataclass
class Recorder:
    """Remembers the loss curve, copies every checkpoint into `folder`, and stops the run after step `stop_after`."""

    folder: Path
    stop_after: int | None = None
    points: list[LossPoint] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def point(self, point: LossPoint) -> None:
        self.points.append(point)

    def checkpoint(self, folder: Path, step: int) -> None:
        shutil.copytree(folder, self.folder / f"step-{step}")
        self.steps.append(step)
        if step == self.stop_after:
            raise PowerError
