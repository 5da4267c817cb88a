"""A comparison that is as large as any."""

from __future__ import annotations

import resource
import time

import numpy as np

from reseed.evaluation.statistics import compare, recipe_side

MEMBERS, ROWS, GROUPS = 1000, 10_000, 2500


def large(draw: np.random.Generator, members: int = MEMBERS, rows: int = ROWS) -> dict[str, float]:
    """Seconds and the process's peak GiB of 1 000 members a side on 10 000 rows; the scores are part of the peak."""
    labels = draw.integers(0, max(2, GROUPS * rows // ROWS), rows)
    a, b = draw.standard_normal((members, rows)), draw.standard_normal((members, rows))
    started = time.perf_counter()
    compare(recipe_side(a), recipe_side(b), labels)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
