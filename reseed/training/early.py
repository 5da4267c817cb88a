"""Which step is the best, and when to stop waiting for a better one: read off the curve, which a resumed run has too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from reseed.records import LossPoint


def is_better(
    loss: float, metric: float | None, best_loss: float, best_metric: float | None, higher_is_better: bool
) -> bool:
    """True when this evaluation beats the best: by the metric where there is one, and among equals by the loss."""
    if metric is None or best_metric is None or metric == best_metric:
        return loss < best_loss
    return (metric > best_metric) == higher_is_better


def exhausted(patience: int | None, best_step: int, curve: Sequence[LossPoint]) -> bool:
    """True when `patience` evaluations followed the best step, none of them better."""
    since = sum(point.validation is not None and point.step > best_step for point in curve)
    return patience is not None and since >= patience


def stopped_early(best: Path, patience: int | None) -> bool:
    """True when the run that wrote the record `best` was at its end: it may have been killed right after."""
    if patience is None:
        return False
    record = json.loads(best.read_text(encoding="utf-8"))
    return exhausted(patience, record["step"], [LossPoint(**point) for point in record["curve"]])
