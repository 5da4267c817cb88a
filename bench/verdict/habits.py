"""What people do to tell two variants apart: each says for a batch of comparisons which it would call.

Scores are of shape (count, K, n), their rows lying group by group.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t, ttest_ind
from verdict.noise import Floats, Labels, group_sums

Calls = NDArray[np.bool_]
RESAMPLES = 400  # the same for all comparisons of a batch


def rows_as_if_independent(a: Floats, b: Floats, labels: Labels) -> Calls:
    d = a.mean(axis=1) - b.mean(axis=1)
    return beyond(d.mean(axis=1), 1.96 * d.std(axis=1, ddof=1) / d.shape[1] ** 0.5)


def welch_on_seed_means(a: Floats, b: Floats, labels: Labels) -> Calls:
    below: Calls = ttest_ind(a.mean(axis=2), b.mean(axis=2), axis=1, equal_var=False).pvalue < 0.05
    return below


def groups_only(a: Floats, b: Floats, labels: Labels) -> Calls:
    """Standard errors clustered by group, and t (Miller 2024, arXiv 2411.00640)."""
    d = a.mean(axis=1) - b.mean(axis=1)
    mean = d.mean(axis=1, keepdims=True)
    sums = group_sums(d - mean, labels)
    groups = sums.shape[1]
    error = (groups / (groups - 1) * (sums**2).sum(axis=1)) ** 0.5 / d.shape[1]
    return beyond(mean[:, 0], t.ppf(0.975, groups - 1) * error)


def two_single_runs(a: Floats, b: Floats, labels: Labels) -> Calls:
    """One seed a side, and its rows as if independent."""
    return rows_as_if_independent(a[:, :1], b[:, :1], labels)


def spreads_apart(a: Floats, b: Floats, labels: Labels) -> Calls:
    """Mean ± std of the seeds do not overlap."""
    a, b = a.mean(axis=2), b.mean(axis=2)
    return beyond(a.mean(axis=1) - b.mean(axis=1), a.std(axis=1, ddof=1) + b.std(axis=1, ddof=1))


def stratified_bootstrap(a: Floats, b: Floats, labels: Labels, draw: np.random.Generator) -> Calls:
    """Seeds drawn again in each group by itself, the groups fixed, as rliable does (Agarwal et al. 2021)."""
    seeds, groups = a.shape[1], int(labels[-1]) + 1
    chances = np.full(seeds, 1 / seeds)
    weights = [draw.multinomial(seeds, chances, (RESAMPLES, groups)).swapaxes(1, 2) / seeds for _ in "ab"]
    return resampled(a, b, labels, [each / len(labels) for each in weights])


def crossed_bootstrap(a: Floats, b: Floats, labels: Labels, draw: np.random.Generator) -> Calls:
    """Seeds of each side and groups of both drawn again."""
    seeds, sizes = a.shape[1], np.bincount(labels)
    groups = draw.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)
    groups = (groups / (groups @ sizes)[:, None])[:, None]
    chances = np.full(seeds, 1 / seeds)
    return resampled(
        a, b, labels, [draw.multinomial(seeds, chances, RESAMPLES)[:, :, None] / seeds * groups for _ in "ab"]
    )


def resampled(a: Floats, b: Floats, labels: Labels, weights: list[Floats]) -> Calls:
    """Calls where zero is outside the middle 95 % of the differences; `weights` of each side (resamples, K, G)."""
    sides = [group_sums(side, labels).reshape(len(side), -1) for side in (a, b)]
    first, second = (side @ weight.reshape(RESAMPLES, -1).T for side, weight in zip(sides, weights, strict=True))
    low, high = np.percentile(first - second, (2.5, 97.5), axis=1)
    outside: Calls = (low > 0) | (high < 0)
    return outside


def beyond(difference: Floats, width: Floats) -> Calls:
    outside: Calls = np.abs(difference) > width
    return outside


HABITS: dict[str, Callable[[Floats, Floats, Labels], Calls]] = {
    "rows as if independent, ±1.96 · sd/√n": rows_as_if_independent,
    "Welch's t on seed means": welch_on_seed_means,
    "groups only, t (Miller 2024)": groups_only,
    "two single runs, rows as if independent": two_single_runs,
    "mean ± std not overlapping": spreads_apart,
}
BOOTSTRAPS: dict[str, Callable[[Floats, Floats, Labels, np.random.Generator], Calls]] = {
    "stratified bootstrap, as in rliable": stratified_bootstrap,
    "crossed bootstrap": crossed_bootstrap,
}
