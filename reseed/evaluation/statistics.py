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

from reseed.evaluation.crossed import crossed_variance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]


ROUNDING = 1e-10  # of the largest score: a standard error up to this comes from arithmetic, not from noise


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its score of every row, shape (n,), and its seeds' scores, shape (K, n).

    A recipe's rows are the mean over its members. An ensemble's are the blend's, and its seeds are pseudo-values
    (`ensemble_side`). Seeds are None for one model that was not drawn from many, such as the untrained one, or a constant.
    `crossed` is (I, O) where the K = I · O seeds are each initialisation with each order, one initialisation after the other.
    """

    rows: Scores
    seeds: Scores | None = None
    crossed: tuple[int, int] | None = None


@dataclass(frozen=True)
class Noise:
    """The parts of the difference's variance: by seeds alone, by groups alone, and by seeds within groups."""

    seeds: float
    groups: float
    both: float


@dataclass(frozen=True)
class Comparison:
    """A minus B, its confidence interval, and `p`, two-sided.

    Where there is no noise to be measured (one group, or no variance beyond rounding) there is no interval: `low`, `high` and
    `p` are NaN, and `df` is 0.
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
    labels = labels_of(groups)
    sizes = np.bincount(labels).astype(float)
    parts = [
        side_variance(group_sums(side.seeds, labels), sizes, side.crossed)
        for side in (a, b)
        if side.seeds is not None and len(side.seeds) > 1
    ]
    differences = a.rows - b.rows
    by_groups = group_variance(group_sums(differences, labels), sizes)
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    rounding = (ROUNDING * float(np.abs([a.rows, b.rows]).max())) ** 2
    counts = (seed_count(a), seed_count(b))
    return interval(float(differences.mean()), parts, by_groups, counts, len(sizes), effective, level, rounding)


def labels_of(groups: Sequence[object] | NDArray[Any]) -> NDArray[np.intp]:
    """The groups as numbers from 0. Names go into no array, which would give each of them the longest one's room."""
    import numpy as np

    if isinstance(groups, np.ndarray):
        return np.asarray(np.unique(groups, return_inverse=True)[1])
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.intp)


def group_sums(scores: Scores, labels: NDArray[np.intp]) -> Scores:
    """The sums of each group, shape (…, G), of scores of shape (…, n)."""
    import numpy as np

    sizes = np.bincount(labels)
    sums: Scores = np.add.reduceat(scores[..., np.argsort(labels, kind="stable")], np.cumsum(sizes) - sizes, axis=-1)
    return sums


def interval(
    difference: float, parts: Sequence[tuple[float, float, float]], by_groups: float, seeds: tuple[int, int], groups: int,
    effective: float, level: float, rounding: float = 0.0,
) -> Comparison:  # fmt: skip
    """The comparison from its variances: of each side (V_S, V_I, df of V_S), and V_G. A variance up to `rounding` is none."""
    from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes 0.7 ms to check its arguments

    by_seeds, both = sum(part[0] for part in parts), sum(part[1] for part in parts)
    variance = float(two_way_variance(by_seeds, by_groups, both))
    noise = Noise(max(by_seeds - both, 0.0), max(by_groups - both, 0.0), both)
    if groups < 2 or variance <= rounding:
        nan = float("nan")
        return Comparison(difference, nan, nan, nan, 0.0, noise, seeds, groups, effective)
    of_sides = sum(part[0] ** 2 / part[2] for part in parts)
    df = float(degrees_of_freedom(variance, of_sides, by_groups, effective))
    error = variance**0.5
    width = float(stdtrit(df, 0.5 + level / 2)) * error
    p = float(2 * stdtr(df, -abs(difference) / error))
    return Comparison(difference, difference - width, difference + width, p, df, noise, seeds, groups, effective)


def two_way_variance(by_seeds: Any, by_groups: Any, both: Any) -> Any:
    """V = max(V_S + V_G − V_I, V_S, V_G), of numbers or arrays."""
    import numpy as np

    return np.maximum(np.maximum(by_seeds + by_groups - both, by_seeds), by_groups)


def degrees_of_freedom(variance: Any, of_sides: Any, by_groups: Any, groups: float) -> Any:
    """Satterthwaite's: max(1, V² / (Σ V_side² / (K−1) + V_G² / (G*−1))), `of_sides` being the first sum."""
    import numpy as np

    return np.maximum(1.0, variance**2 / (of_sides + by_groups**2 / max(groups - 1, 1e-9)))


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


def group_variance(sums: Scores, sizes: Scores) -> float:
    """V_G from the groups' sums of differences, shape (G,): (G−1)/G · Σ_g (d₋g − mean d₋g)², d₋g the mean without group g."""
    count = len(sizes)
    if count < 2:
        return 0.0
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    return float((count - 1) / count * ((without - without.mean()) ** 2).sum())


def side_variance(sums: Scores, sizes: Scores, crossed: tuple[int, int] | None = None) -> tuple[float, float, float]:
    """V_S and V_I of a side from its seeds' sums in each group, S_kg, shape (K, G), K ≥ 2; and the degrees of freedom of V_S.

    V_S = s²/K of the seeds' means; of seeds that are crossed, `crossed_variance`.
    V_I = Σ e²_kg / n² · G/(G−1) / (K(K−1)), where e_kg = S_kg − mean_k S_kg − m_g (ȳ_k − ȳ).
    """
    (count, groups), rows = sums.shape, float(sizes.sum())
    means = sums.sum(axis=1) / rows
    off = means - means.mean()
    left = sums - sums.mean(axis=0) - off[:, None] * sizes
    pairs = count * (count - 1)
    both = float((left**2).sum()) / rows**2 * groups / max(groups - 1, 1) / pairs
    if crossed is not None:
        variance, df = crossed_variance(means.reshape(crossed))
        return variance, both, df
    return float((off**2).sum()) / pairs, both, count - 1


def without_each_group(differences: Scores, groups: Sequence[str]) -> tuple[list[str], Scores]:
    """The groups' names and d₋g, the mean difference without each; NaN where there is only one group."""
    import numpy as np

    names, labels = list(dict.fromkeys(groups)), labels_of(groups)
    sums, sizes = np.bincount(labels, differences), np.bincount(labels)
    left = len(differences) - sizes
    without: Scores = (differences.sum() - sums) / np.where(left, left, np.nan)
    return names, without


def recipe_side(members: Scores, crossed: tuple[int, int] | None = None) -> Side:
    """What one more run of a recipe would give, from its members' scores, shape (K, n)."""
    return Side(members.mean(axis=0), members, crossed)


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


def cross_fitted_choice(
    scores: Scores, groups: Sequence[object] | NDArray[Any], higher_is_better: bool = True
) -> NDArray[np.intp]:
    """Which of several constants is best for each row's group, chosen on all other groups: shape (n,), of scores (C, n).

    Raises ValueError for a single group, which leaves nothing to choose on.
    """
    import numpy as np

    labels = labels_of(groups)
    if not labels.any():
        raise ValueError("one group: a constant cannot be chosen on other groups")
    elsewhere = scores.sum(axis=1, keepdims=True) - group_sums(scores, labels)  # (C, G)
    elsewhere /= len(labels) - np.bincount(labels)
    best = (elsewhere if higher_is_better else -elsewhere).argmax(axis=0)
    return np.asarray(best[labels])


def cross_fitted(scores: Scores, groups: Sequence[object] | NDArray[Any], higher_is_better: bool = True) -> Scores:
    """The rows' scores, shape (n,), of the constants that `cross_fitted_choice` chooses."""
    import numpy as np

    chosen: Scores = scores[cross_fitted_choice(scores, groups, higher_is_better), np.arange(scores.shape[1])]
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
