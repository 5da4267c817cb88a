"""Several splits of the same rows into those to train on and those to test on."""

from __future__ import annotations

import numpy as np
from scipy import stats
from verdict.rates import OURS, Tally, tally

from reseed.evaluation.splits import variance_over_splits

PROMPTS, HELD_OUT = 60, 20
PARTS = (
    ("seeds", 0.03, 0.0, 0.003),
    ("prompts", 0.0, 0.12, 0.0),
    ("seeds within splits", 0.0, 0.0, 0.03),
    ("seeds and prompts", 0.03, 0.12, 0.0),
    ("all three", 0.02, 0.08, 0.02),
)  # sd by the luck of a seed in all splits, of a variant with a prompt, and of each training
SPLITS = (3, 5, 10)
BY_PAIRS = "a paired t-test"


def splits(draw: np.random.Generator, count: int, part: int, split_count: int, seeds: int) -> Tally:
    """Two equal recipes on splits that share prompts; and a paired t-test over the splits."""
    _, by_seed, by_prompt, by_training = PARTS[part]
    held_out = np.argsort(draw.random((count, split_count, PROMPTS)))[:, :, :HELD_OUT]
    scores = draw.normal(0, by_seed, (count, 2, seeds, 1)) + draw.normal(0, by_training, (count, 2, seeds, split_count))
    of_prompts = draw.normal(0, by_prompt, (count, 2, 1, PROMPTS))
    scores += np.take_along_axis(of_prompts, held_out[:, None], axis=3).mean(axis=3)[:, :, None]
    return tally({OURS: [ours(*sides) for sides in scores], BY_PAIRS: paired(scores)})


def ours(a: np.ndarray, b: np.ndarray) -> bool:
    """True if A and B, of shape (seeds, splits), are called different."""
    variance, df = variance_over_splits([a, b], HELD_OUT / (PROMPTS - HELD_OUT))
    return bool(2 * stats.t.sf(abs(a.mean() - b.mean()) / variance**0.5, df) < 0.05)


def paired(scores: np.ndarray) -> np.ndarray:
    """The same by a paired t-test over splits, for each comparison of the batch."""
    means = scores.mean(axis=2)
    return np.asarray(stats.ttest_rel(means[:, 0], means[:, 1], axis=1).pvalue < 0.05)
