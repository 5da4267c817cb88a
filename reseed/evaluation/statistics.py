"""Is a difference more than luck? The crossed delete-one jackknife over seeds and groups, and what follows from it.

Scores vary with the seed that a model is trained with, and with the group of rows (a prompt, a question, a task) that it is
asked about. A claim about other seeds and other prompts has to count both. The two-way variance is V_S + V_G − V_I: by seeds,
by groups, less what both hold of their interaction, and never less than either; Satterthwaite's degrees of freedom. For
its relatives see MacKinnon, Nielsen & Webb (2024), arXiv 2406.08880. `bench/truth.py` measures how often it errs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its score of every row, shape (n,), and its seeds' scores, shape (K, n).

    A recipe's rows are the mean over its members. An ensemble's are the blend's, and its seeds are `pseudo_values`. Seeds are
    None for one model that was not drawn from many, such as the untrained one, or a constant.
    """

    rows: Scores
    seeds: Scores | None = None


@dataclass(frozen=True)
class Noise:
    """The parts of the difference's variance: by seeds alone, by groups alone, and by seeds within groups."""

    seeds: float
    groups: float
    both: float


@dataclass(frozen=True)
class Comparison:
    """A minus B, its confidence interval, and `p`, two-sided.

    Where there is no noise to be measured (one group, or no variance) there is no interval: `low`, `high` and `p` are NaN, and
    `df` is 0.
    """

    difference: float
    low: float
    high: float
    p: float
    df: float
    noise: Noise
    seeds: tuple[int, int]  # K of A and B; 0 for a side without
    groups: int
    effective_groups: float

    @property
    def known(self) -> bool:
        """True when there is an interval."""
        return self.df > 0


def compare(a: Side, b: Side, groups: Sequence[object] | NDArray[Any], level: float = 0.95) -> Comparison:
    """Compare two sides over the same n rows, of which `groups` names the group of each.

    A side with one seed says nothing about other seeds, so it counts as a side without. Raises ValueError for scores that are
    not finite, or not of one shape.
    """
    import numpy as np

    check_shapes(a, b, len(groups))
    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(labels).astype(float)
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    parts = [
        side_variance(side.seeds, labels, sizes) for side in (a, b) if side.seeds is not None and len(side.seeds) > 1
    ]
    by_groups = group_variance(a.rows - b.rows, labels, sizes)
    counts = (seed_count(a), seed_count(b))
    difference = float((a.rows - b.rows).mean())
    return interval(difference, parts, by_groups, counts, len(sizes), effective, level)


def interval(
    difference: float, parts: Sequence[tuple[float, float, int]], by_groups: float, seeds: tuple[int, int], groups: int,
    effective: float, level: float,
) -> Comparison:  # fmt: skip
    """The comparison from its variances: of each side (V_S, V_I, K), and V_G."""
    from scipy.stats import t

    by_seeds, both = sum(part[0] for part in parts), sum(part[1] for part in parts)
    variance = max(by_seeds + by_groups - both, by_seeds, by_groups)
    noise = Noise(max(by_seeds - both, 0.0), max(by_groups - both, 0.0), both)
    if groups < 2 or variance <= 0:
        nan = float("nan")
        return Comparison(difference, nan, nan, nan, 0.0, noise, seeds, groups, effective)
    spent = sum(part[0] ** 2 / (part[2] - 1) for part in parts) + by_groups**2 / max(effective - 1, 1e-9)
    df = max(1.0, variance**2 / spent)
    error = variance**0.5
    width = float(t.ppf(0.5 + level / 2, df)) * error
    p = float(2 * t.sf(abs(difference) / error, df))
    return Comparison(difference, difference - width, difference + width, p, df, noise, seeds, groups, effective)


def check_shapes(a: Side, b: Side, rows: int) -> None:
    """Refuse sides that were not scored on the same rows."""
    import numpy as np

    for side in (a, b):
        for scores, shape in ((side.rows, (rows,)), (side.seeds, (seed_count(side), rows))):
            if scores is not None and scores.shape != shape:
                raise ValueError(f"scores of shape {scores.shape}; wanted {shape}, as there are {rows} groups' names")
            if scores is not None and not np.isfinite(scores).all():
                raise ValueError("scores that are NaN or infinite; score again, none is left out")


def seed_count(side: Side) -> int:
    """K, or 0 for a side without seeds."""
    return 0 if side.seeds is None else len(side.seeds)


def group_variance(difference: Scores, labels: NDArray[np.intp], sizes: Scores) -> float:
    """V_G of differences of shape (n,): (G−1)/G · Σ_g (d₋g − mean d₋g)², d₋g being the mean without group g."""
    import numpy as np

    count = len(sizes)
    if count < 2:
        return 0.0
    sums = np.bincount(labels, weights=difference)
    without = (difference.sum() - sums) / (len(difference) - sizes)
    return float((count - 1) / count * ((without - without.mean()) ** 2).sum())


def side_variance(seeds: Scores, labels: NDArray[np.intp], sizes: Scores) -> tuple[float, float, int]:
    """V_S and V_I of a side whose seeds scored shape (K, n), K ≥ 2; and K.

    V_S = s²/K of the seeds' means. V_I = Σ e²_kg / n² · G/(G−1) / (K(K−1)), where e_kg = S_kg − mean_k S_kg − m_g (ȳ_k − ȳ)
    and S_kg is seed k's sum in group g.
    """
    import numpy as np

    (count, rows), groups = seeds.shape, len(sizes)
    means = seeds.mean(axis=1)
    order, starts = np.argsort(labels, kind="stable"), np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
    sums = np.add.reduceat(seeds[:, order], starts, axis=1)
    left = sums - sums.mean(axis=0) - sizes * (means - means.mean())[:, None]
    both = float((left**2).sum()) / rows**2 * groups / max(groups - 1, 1) / (count * (count - 1))
    return float(means.var(ddof=1)) / count, both, count


def recipe_side(members: Scores) -> Side:
    """What one more run of a recipe would give, from its members' scores, shape (K, n)."""
    return Side(members.mean(axis=0), members)


def ensemble_side(blend: Scores, without: Scores) -> Side:
    """An ensemble of K members: the blend's scores, shape (n,), and those of the K blends without one member, shape (K, n).

    Its seeds are Tukey's pseudo-values, K · blend − (K−1) · blend without k. One member has none.
    """
    count = len(without)
    return Side(blend, count * blend - (count - 1) * without if count > 1 else None)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, in the order of `ps`; NaN stays NaN and counts as a comparison."""
    import numpy as np

    order = np.argsort(ps)  # NaN comes last
    adjusted, before = [float("nan")] * len(ps), 0.0
    for rank, place in enumerate(order):
        if not np.isnan(ps[place]):
            before = max(before, min(1.0, (len(ps) - rank) * ps[place]))
            adjusted[place] = before
    return adjusted


def bonferroni_level(level: float, comparisons: int) -> float:
    """The level of each of several intervals that hold together at `level`."""
    return 1 - (1 - level) / max(comparisons, 1)


def look_level(seeds: int, before: int, most: int, level: float = 0.95) -> float:
    """The level at which a look is judged, at `seeds` a side after one at `before` (0: none) of `most` in the end.

    Lan & DeMets' (1983) spending in O'Brien and Fleming's form: α(t) = 2 · (1 − Φ(z/√t)) at t = seeds/most. Each look is
    judged by what α grew since the one before.
    """
    from scipy.stats import norm

    def spent(at: int) -> float:
        return float(2 * norm.sf(norm.ppf(0.5 + level / 2) / (at / most) ** 0.5)) if at else 0.0

    return 1 - (spent(seeds) - spent(before))


def cross_fitted(scores: Scores, groups: Sequence[object] | NDArray[Any], higher_is_better: bool = True) -> Scores:
    """The best of several constants, chosen for each group on all others: per-row scores, shape (n,), from shape (C, n)."""
    import numpy as np

    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    one_of = np.eye(labels.max() + 1)[labels]  # (n, G)
    elsewhere = scores.sum(axis=1, keepdims=True) - scores @ one_of  # (C, G)
    elsewhere /= len(labels) - one_of.sum(axis=0)
    best = (elsewhere if higher_is_better else -elsewhere).argmax(axis=0)
    chosen: Scores = scores[best[labels], np.arange(len(labels))]
    return chosen


def fisher_interval(r: float, pairs: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a correlation of so many pairs, by Fisher's z; from −1 to 1 for fewer than four."""
    import numpy as np
    from scipy.stats import norm

    if pairs < 4:
        return -1.0, 1.0
    width = float(norm.ppf(0.5 + level / 2)) / (pairs - 3) ** 0.5
    z = float(np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)))
    return float(np.tanh(z - width)), float(np.tanh(z + width))
