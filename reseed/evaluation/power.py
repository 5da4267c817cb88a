"""What a design can see: the power of seeds and groups, and how many of them a difference needs.

The noncentral t is too hopeful below five seeds, so the parts of the variance are drawn, each by its χ², and judged by the
rule of `reseed.evaluation.statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reseed.evaluation.statistics import Comparison, Noise, degrees_of_freedom, two_way_variance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWS = 4000


@dataclass(frozen=True)
class Spread:
    """The variances behind a comparison's noise: of one seed, of one group, and of one seed in one group.

    `sides` is how many of the two sides have seeds; each has half of the seeds' variance where both have.
    """

    seed: float
    group: float
    both: float
    sides: int


def spread_of(found: Comparison) -> Spread:
    """What a comparison measured, for other numbers of seeds and groups."""
    sides = sum(1 for count in found.seeds if count > 1)
    seeds = sum(found.seeds) / sides if sides else 1.0
    noise, groups = found.noise, found.effective_groups
    return Spread(noise.seeds * seeds, noise.groups * groups, noise.both * seeds * groups, sides)


def noise_of(spread: Spread, seeds: int, groups: float) -> Noise:
    """The noise of a design."""
    return Noise(spread.seed / seeds, spread.group / groups, spread.both / (seeds * groups))


def power(spread: Spread, difference: float, seeds: int, groups: float, level: float = 0.95, seed: int = 0) -> float:
    """The chance that a true difference is called, with so many seeds a side and effective groups."""
    import numpy as np
    from scipy.stats import t

    if groups <= 1 or (spread.sides and seeds < 2):
        return 0.0
    draw, noise = np.random.default_rng(seed), noise_of(spread, seeds, groups)
    total = noise.seeds + noise.groups + noise.both
    if total <= 0:
        return 1.0 if difference else 0.0
    found = difference + draw.normal(0, total**0.5, DRAWS)
    by_groups = chi_square(draw, noise.groups + noise.both, groups - 1)
    sides = [chi_square(draw, (noise.seeds + noise.both) / spread.sides, seeds - 1) for _ in range(spread.sides)]
    both = chi_square(draw, noise.both, (groups - 1) * max(seeds - 1, 1) * max(spread.sides, 1))
    by_seeds = np.sum(sides, axis=0) if sides else np.zeros(DRAWS)
    variance = two_way_variance(by_seeds, by_groups, both * bool(sides))
    df = degrees_of_freedom(variance, sum(side**2 for side in sides) / max(seeds - 1, 1), by_groups, groups)
    return float((np.abs(found) > t.ppf(0.5 + level / 2, df) * np.sqrt(variance)).mean())


def chi_square(draw: np.random.Generator, mean: float, df: float) -> NDArray[np.float64]:
    """Draws of an estimated variance of that mean."""
    return mean * draw.chisquare(df, DRAWS) / df
