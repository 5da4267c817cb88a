"""What a design can see: the power of seeds and groups, and how many of them a difference needs.

The noncentral t is too hopeful below five seeds, so the parts of the variance are drawn, each by its χ², and judged by the
rule of `reseed.evaluation.statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reseed.evaluation.statistics import Comparison, Noise, degrees_of_freedom, two_way_variance
from reseed.results import ComparisonResult, Design

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
    return spread_behind(found.noise, found.seeds, found.effective_groups)


def spread_of_result(found: ComparisonResult) -> Spread:
    """The same of a stored comparison, whose noise is standard deviations."""
    own = found.noise
    noise = Noise(own.seeds**2, own.groups**2, own.both**2)
    return spread_behind(noise, found.seeds, found.effective_groups)


def spread_behind(noise: Noise, seeds: tuple[int, int], groups: float) -> Spread:
    """The variances of one seed and one group, from those of a difference between sides of so many seeds and groups."""
    several = [count for count in seeds if count > 1]
    mean = sum(several) / len(several) if several else 1.0
    return Spread(noise.seeds * mean, noise.groups * groups, noise.both * mean * groups, len(several))


def noise_of(spread: Spread, seeds: int, groups: float) -> Noise:
    """The noise of a design."""
    return Noise(spread.seed / seeds, spread.group / groups, spread.both / (seeds * groups))


def power(spread: Spread, difference: float, seeds: int, groups: float, level: float = 0.95, seed: int = 0) -> float:
    """The chance that a true difference is called, with so many seeds a side and effective groups."""
    import numpy as np
    from scipy.special import stdtrit

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
    return float((np.abs(found) > stdtrit(df, 0.5 + level / 2) * np.sqrt(variance)).mean())


SEEDS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)
GROUPS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0)  # times those there are
WANTED = 0.8


def cheapest(
    spread: Spread, difference: float, seeds: int, groups: int, effective: float, level: float = 0.95,
    training: float = 1.0, wanted: float = WANTED, fewest: int = 0,
) -> Design | None:  # fmt: skip
    """The cheapest design that sees a true difference with the power wanted; None if 30 seeds and 50 × the groups do not.

    It has no fewer seeds than `fewest`.
    Its cost is seeds × (`training` + groups, in those there are): by default training a member costs as much as its answers.
    More groups are taken to be as uneven as those there are.
    """
    found: Design | None = None
    least = float("inf")
    for own in [own for own in SEEDS if own >= fewest] if spread.sides else (max(seeds, 1),):
        for factor in GROUPS:
            if own * (training + factor) >= least:
                break
            # no bisection: with few seeds more groups may have less power, as the seeds' few degrees of freedom are left
            if (reached := power(spread, difference, own, effective * factor, level)) >= wanted:
                least = own * (training + factor)
                found = Design(own, round(groups * factor), reached)
                break
    return found


def chi_square(draw: np.random.Generator, mean: float, df: float) -> NDArray[np.float64]:
    """Draws of an estimated variance of that mean."""
    return mean * draw.chisquare(df, DRAWS) / df
