"""A design before it runs: what so many seeds and groups would see, and what a wanted difference costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reseed.evaluation.power import WANTED, Spread, power, spread_of_result
from reseed.evaluation.statistics import bonferroni_level
from reseed.records import ReseedError
from reseed.results import ComparisonResult

FACTORS = (1, 2, 4, 8)  # times the groups there are
STEPS = 20  # of the search for the smallest difference, each of which halves what is left
DOUBLINGS = 40  # before it: two seeds and many variants may need a thousand times the noise


@dataclass(frozen=True)
class Planned:
    """The spreads to expect, and how many seeds a side and groups there are to be."""

    spread: Spread
    seeds: int
    groups: int
    effective: float
    level: float = 0.95  # of one comparison, where several variants are judged together

    def with_groups(self, groups: int) -> Planned:
        """The same with other groups, as uneven as these."""
        return replace(self, groups=groups, effective=self.effective * groups / self.groups)

    def power(self, difference: float, seeds: int | None = None, factor: float = 1.0) -> float:
        """The chance that a true difference is called with so many seeds, and so many times the groups."""
        return power(self.spread, difference, seeds or self.seeds, self.effective * factor, self.level)


def from_result(found: ComparisonResult, seeds: int, variants: int, level: float = 0.95) -> Planned:
    """What an earlier comparison measured, for a recipe of so many seeds. Two variants have twice the variance by seeds."""
    spread = spread_of_result(found)
    if not spread.sides:
        raise ReseedError(
            f"{found.a} − {found.b}: that result has one seed, which says nothing of how seeds differ; run it with two or "
            "more, or give --spread SEED,GROUP"
        )
    sides = min(variants, 2)
    more = sides / spread.sides
    scaled = Spread(spread.seed * more, spread.group, spread.both * more, sides)
    return Planned(scaled, seeds, found.groups, found.effective_groups, level_of(variants, level))


def from_spreads(seed: float, group: float, seeds: int, groups: int, variants: int, level: float = 0.95) -> Planned:
    """Stated standard deviations: of the score from seed to seed, and of the difference from group to group."""
    sides = min(variants, 2)
    spread = Spread(sides * seed**2, group**2, 0.0, sides)
    return Planned(spread, seeds, groups, float(groups), level_of(variants, level))


def level_of(variants: int, level: float) -> float:
    """The level of each comparison with the baseline, all but one of the variants being compared with it."""
    return bonferroni_level(level, variants - 1)


def smallest_difference(design: Planned, wanted: float = WANTED) -> float:
    """The smallest true difference that the design calls with the power wanted; infinite for one seed or one group."""
    spread = design.spread
    noise = float((spread.seed + spread.group + spread.both) ** 0.5)
    high = next((tried for n in range(DOUBLINGS) if design.power(tried := noise * 2**n) >= wanted), float("inf"))
    if high == float("inf"):
        return high
    low = 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if design.power(middle) >= wanted else (middle, high)
    return high


def power_grid(design: Planned, difference: float, seeds: Sequence[int]) -> list[list[float]]:
    """A line for each number of seeds, a column for each of `FACTORS`."""
    return [[design.power(difference, own, factor) for factor in FACTORS] for own in seeds]
