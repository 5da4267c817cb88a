"""Several splits of the same rows into those to train on and those to test on."""

from __future__ import annotations

import numpy as np
from scipy import stats
from verdict.claims import WITH_FIXED
from verdict.rates import OURS, Tally, tally

from reseed.evaluation.splits import correlated, variance_over_splits
from reseed.results import Split

PROMPTS, HELD_OUT = 60, 20
PARTS = (
    ("seeds", 0.03, 0.0, 0.0, 0.003),
    ("prompts that are tested", 0.0, 0.12, 0.0, 0.0),
    ("prompts that are trained on", 0.0, 0.0, 0.12, 0.001),
    ("each training", 0.0, 0.0, 0.0, 0.03),
    ("seeds and prompts", 0.03, 0.08, 0.08, 0.0),
    ("all of it", 0.02, 0.08, 0.08, 0.02),
)  # sd by a seed in all splits, by a variant's luck with a prompt that is tested, or trained on, and by each training
SPLITS = (3, 5, 10)
SEEDS_OF_SPLITS = (3, 5)
BY_PAIRS = "a paired t-test"


def splits(draw: np.random.Generator, count: int, part: int, split_count: int, seeds: int) -> Tally:
    """Two equal recipes on splits that share prompts, by our procedure and by a paired t-test; and one with a model without
    seeds, as good as it is."""
    _, by_seed, by_tested, by_trained, by_training = PARTS[part]
    order = np.argsort(draw.random((count, split_count, PROMPTS)))
    scores = draw.normal(0, by_seed, (count, 2, seeds, 1)) + draw.normal(0, by_training, (count, 2, seeds, split_count))
    luck = mean_luck(draw, by_tested, order[:, :, :HELD_OUT]) + mean_luck(draw, by_trained, order[:, :, HELD_OUT:])
    scores += luck[:, :, None]
    fixed = mean_luck(draw, by_tested, order[:, :, :HELD_OUT])[:, 1]
    return tally(
        {
            OURS: [ours(*sides) for sides in scores],
            WITH_FIXED: [ours(sides[0], other[None]) for sides, other in zip(scores, fixed, strict=True)],
            BY_PAIRS: paired(scores),
        }
    )


def mean_luck(draw: np.random.Generator, sd: float, prompts: np.ndarray) -> np.ndarray:
    """The mean over the prompts of each split, shape (count, J, n), of two variants' luck with them: (count, 2, J)."""
    of_prompts = draw.normal(0, sd, (len(prompts), 2, 1, PROMPTS))
    return np.asarray(np.take_along_axis(of_prompts, prompts[:, None], axis=3).mean(axis=3))


def ours(a: np.ndarray, b: np.ndarray) -> bool:
    """True if A and B, of shape (seeds, splits), are called different."""
    split = Split(0, PROMPTS - HELD_OUT, 0, HELD_OUT, {})
    variance, df = variance_over_splits([a, b], correlated(split))
    return bool(variance > 0 and 2 * stats.t.sf(abs(a.mean() - b.mean()) / variance**0.5, df) < 0.05)


def paired(scores: np.ndarray) -> np.ndarray:
    """The same by a paired t-test over splits, for each comparison of the batch."""
    means = scores.mean(axis=2)
    return np.asarray(stats.ttest_rel(means[:, 0], means[:, 1], axis=1).pvalue < 0.05)
