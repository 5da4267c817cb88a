"""Seeds that are split: members of every initialisation with every order, and which of the two their noise comes from.

Members that share an initialisation, or an order, are not independent. So the variance of their mean is two-way, as that over
seeds and groups is in `reseed.evaluation.statistics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reseed.results import SeedNoise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Means = NDArray[np.float64]


def mean_squares(means: Means) -> tuple[float, float, float]:
    """Of initialisations, of orders, and of what is left, from the members' means, shape (I, O), I and O ≥ 2.

    Scheffé (1959), The Analysis of Variance, 7.4: two random factors, one observation a cell.
    """
    rows, columns = means.shape
    by_row, by_column, mean = means.mean(axis=1), means.mean(axis=0), means.mean()
    left = means - by_row[:, None] - by_column + mean
    of_rows = columns * float(((by_row - mean) ** 2).sum()) / (rows - 1)
    of_columns = rows * float(((by_column - mean) ** 2).sum()) / (columns - 1)
    return of_rows, of_columns, float((left**2).sum()) / ((rows - 1) * (columns - 1))


def crossed_variance(means: Means) -> tuple[float, float]:
    """V_S, the variance of the mean over all members, and its degrees of freedom (Satterthwaite's, at least 1)."""
    rows, columns = means.shape
    by_row, by_column, left = (square / means.size for square in mean_squares(means))
    variance = max(by_row + by_column - left, by_row, by_column)
    spread = by_row**2 / (rows - 1) + by_column**2 / (columns - 1)
    return variance, max(1.0, variance**2 / spread) if spread else 1.0


def seed_noise(means: Means) -> SeedNoise:
    """The standard deviations of one run's score by initialisation, by order, and by what only both together explain."""
    rows, columns = means.shape
    of_rows, of_columns, left = mean_squares(means)
    return SeedNoise(
        initialisation=max(0.0, (of_rows - left) / columns) ** 0.5,
        order=max(0.0, (of_columns - left) / rows) ** 0.5,
        both=left**0.5,
    )
