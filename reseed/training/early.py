"""Which step is the best, and when to stop waiting for a better one. Both follow from the curve, so resuming keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from reseed.records import LossPoint


def is_better(
    loss: float, metric: float | None, best_loss: float, best_metric: float | None, higher_is_better: bool
) -> bool:
    """True when this evaluation beats the best: by the metric where there is one, with ties broken by the loss."""
    if metric is None or best_metric is None or metric == best_metric:
        return loss < best_loss
    return (metric > best_metric) == higher_is_better


def out_of_patience(patience: int | None, best_step: int, curve: Sequence[LossPoint]) -> bool:
    """True when `patience` evaluations have come since the best step, none of them better."""
    since = sum(point.validation is not None and point.step > best_step for point in curve)
    return patience is not None and since >= patience


def stopped_early(best: Path, patience: int | None) -> bool:
    """True when the run that wrote the record `best` had run out of patience, and was then killed before it ended."""
    if patience is None:
        return False
    record = json.loads(best.read_text(encoding="utf-8"))
    return out_of_patience(patience, record["step"], [LossPoint(**point) for point in record["curve"]])
