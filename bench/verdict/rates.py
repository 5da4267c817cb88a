"""How often `compare` calls: without a difference, and with one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from verdict.habits import BOOTSTRAPS, HABITS
from verdict.noise import ALL, BASE, ROWS, Floats, Labels, draw_sides

from reseed.evaluation.power import Spread, power, spread_of
from reseed.evaluation.statistics import Comparison, compare, recipe_side

GROUPS, SEEDS = (10, 30, 100), (2, 3, 5, 10)
DIFFERENCE = 0.06
Tally = dict[str, tuple[float, int]]  # what was counted: its sum, and of how many
OURS, COVERED = "crossed delete-one jackknife, Satterthwaite t", "covered"


def tally(counted: dict[str, ArrayLike]) -> Tally:
    return {name: (float(np.sum(values)), int(np.size(values))) for name, values in counted.items()}


def rate(found: Tally, name: str) -> float:
    total, count = found[name]
    return total / count


def judged(a: Floats, b: Floats, labels: Labels, level: float = 0.95) -> list[Comparison]:
    """The batch's comparisons of recipes."""
    return [compare(recipe_side(x), recipe_side(y), labels, level) for x, y in zip(a, b, strict=True)]


def called(found: list[Comparison]) -> list[bool]:
    """Where the interval is clear of zero; without an interval nothing is called."""
    return [one.low > 0 or one.high < 0 for one in found]


def covered(found: list[Comparison], truth: float) -> list[bool]:
    return [one.low <= truth <= one.high for one in found if one.known]


def false_calls(draw: np.random.Generator, count: int, model: int, groups: int, seeds: int) -> Tally:
    """Two recipes that are equally good, judged by our procedure and by habit; a tenth of them by the bootstraps."""
    (a, b), labels = draw_sides(ALL[model], draw, count, seeds, groups)
    few = max(1, count // 10)
    found = judged(a, b, labels)
    return tally(
        {OURS: called(found), COVERED: covered(found, 0.0)}
        | {name: habit(a, b, labels) for name, habit in HABITS.items()}
        | {name: bootstrap(a[:few], b[:few], labels, draw) for name, bootstrap in BOOTSTRAPS.items()}
    )


def true_calls(draw: np.random.Generator, count: int, groups: int, seeds: int) -> Tally:
    """A is better than B by 0.06; and how far off the power is that an earlier result, of 3 seeds × 30 groups, foretells."""
    (a, b), labels = draw_sides(BASE, draw, count, seeds, groups)
    found = judged(a + DIFFERENCE, b, labels)
    (a, b), labels = draw_sides(BASE, draw, max(1, count // 100), 3, 30)
    truth = predicted(groups, seeds)
    off = [abs(power(spread_of(one), DIFFERENCE, seeds, groups) - truth) for one in judged(a, b, labels)]
    return tally({"power": called(found), COVERED: covered(found, DIFFERENCE), "foretold off by": off})


def predicted(groups: int, seeds: int) -> float:
    """What `reseed power` says of the base model."""
    spread = Spread(2 * BASE.seed_sds[0] ** 2, 2 * BASE.recipe_sd**2, 2 * BASE.row_sd**2 / ROWS, 2)
    return power(spread, DIFFERENCE, seeds, groups)
