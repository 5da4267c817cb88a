"""Judging again as seeds are added: what a look may spend, what was settled at one, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reseed.evaluation.statistics import look_level
from reseed.recipe.seeds import LOOKS
from reseed.results import ComparisonResult, Look, Results

LEVEL = 0.95


@dataclass(frozen=True)
class LookPlan:
    """The place of a result among the looks that were declared: its number of seeds, that of the look before (0: none), and
    the greatest."""

    seeds: int
    before: int
    most: int

    @property
    def level(self) -> float:
        """The level of this look: all of them together call an equal variant better or worse in one of twenty experiments."""
        return look_level(self.seeds, self.before, self.most, LEVEL)

    @property
    def last_level(self) -> float:
        """The level of the last look: what any other design is judged at before it runs, since an early look is stricter."""
        return last_level(self.most)


def last_level(most: int) -> float:
    """The level of the last of the looks that end at so many seeds."""
    return look_level(most, max(look for look in LOOKS if look < most), most, LEVEL)


def planned_level(results: Results, found: ComparisonResult) -> float:
    """The level at which another design of the comparison would be judged: that of the last look, if there are several."""
    if results.most_seeds is None:
        return found.level
    return 1 - (1 - found.level) * (1 - last_level(results.most_seeds)) / (1 - results.level)


def question_of(comparisons: Sequence[ComparisonResult], baseline: str | None) -> list[ComparisonResult]:
    """The recipe's question: each variant with the baseline; a single variant with the untrained model."""
    own = [found for found in comparisons if found.estimand != "ensemble"]
    return [found for found in own if found.b == baseline] or [
        found for found in own if (found.a, found.b) == (baseline, "untrained")
    ]


def look_of(found: ComparisonResult, seeds: int) -> Look:
    """A comparison as one look saw it."""
    return Look(seeds, found.level, found.a, found.b, found.difference, found.low, found.high, found.verdict)


def settled_at(looks: Sequence[Look], a: str, b: str) -> Look | None:
    """The first look that decided the comparison."""
    return next((look for look in looks if (look.a, look.b) == (a, b) and look.decides), None)


def with_looks(results: Results, plan: LookPlan, earlier: Sequence[Look]) -> Results:
    """The result with this look added to the earlier ones. What one of those decided remains so: its error is spent."""
    question = question_of(results.comparisons, results.baseline)
    looks = (*earlier, *(look_of(found, plan.seeds) for found in question))

    def carried(found: ComparisonResult) -> ComparisonResult:
        first = settled_at(looks, found.a, found.b) if found in question else None
        if first is None:
            return found
        return replace(found, verdict=first.verdict, decided_at=first.seeds, needed=None)

    return replace(results, looks=looks, most_seeds=plan.most, comparisons=tuple(map(carried, results.comparisons)))


def is_settled(results: Results) -> bool:
    """True if every comparison that the recipe asks for was decided, at this look or before."""
    question = question_of(results.comparisons, results.baseline)
    return bool(question) and all(settled_at(results.looks, found.a, found.b) is not None for found in question)
