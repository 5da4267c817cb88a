"""Which variant is better, and than what: every comparison of an experiment, judged together where several ask the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reseed.evaluation.power import WANTED, cheapest, power, spread_of
from reseed.evaluation.score_table import BEST_CONSTANT, UNTRAINED, ScoreTable, constant_column
from reseed.evaluation.statistics import Comparison, Side, bonferroni_level, compare, holm, without_each_group
from reseed.results import ComparisonResult, Estimand, Influence, NoiseParts, Verdict
from reseed.text import one_line

INFLUENTIAL = 5  # groups whose absence is told


@dataclass(frozen=True)
class Rule:
    """How differences are judged: which way the metric improves, δ, and the level that all of one kind hold at together.

    `last_level` is that of the last look, where there are more to come.
    """

    higher_is_better: bool
    delta: float | None = None
    level: float = 0.95
    last_level: float | None = None


@dataclass(frozen=True)
class Named:
    """A side and what it is called."""

    name: str
    side: Side

    @property
    def seeds(self) -> int:
        """How many it was drawn from; 0 where it was not."""
        return 0 if self.side.seeds is None else len(self.side.seeds)


def all_comparisons(
    table: ScoreTable, baseline: str, constants: Sequence[str], rule: Rule
) -> tuple[ComparisonResult, ...]:
    """Each variant with the baseline, the untrained model, each constant and the best one: as recipe and as ensemble.

    A variant of one seed has no ensemble, and says nothing about its recipe: then only these models are compared. Ensembles of
    split seeds are not compared (`ScoreTable.ensemble`).
    """
    alone = [Named(UNTRAINED, table.fixed(UNTRAINED))]
    alone += [Named(name, table.fixed(constant_column(text))) for text, name in constant_names(constants).items()]
    alone += [Named(BEST_CONSTANT, table.fixed(BEST_CONSTANT))] if BEST_CONSTANT in table.columns else []
    recipes = [Named(name, table.recipe(name)) for name in table.variants()]
    blends = [name for name in table.variants() if len(table.members(name)) > 1 and not table.is_crossed(name)]
    ensembles = [Named(name, table.ensemble(name)) for name in blends]
    kinds: list[tuple[Estimand, list[Named]]] = [("recipe", recipes), ("ensemble", ensembles)]
    found: list[ComparisonResult] = []
    for estimand, sides in kinds:
        for base in [side for side in sides if side.name == baseline]:
            found += compare_family([side for side in sides if side is not base], base, table.groups, estimand, rule)
        for other in alone:
            found += compare_family(sides, other, table.groups, estimand, rule)
    return tuple(found)


def constant_names(constants: Sequence[str]) -> dict[str, str]:
    """What each constant is called; those that begin alike are numbered."""
    names: dict[str, str] = {}
    for text in constants:
        name = f"constant “{one_line(text, 60)}”"
        same = sum(1 for other in names.values() if other.startswith(name))
        names.setdefault(text, f"{name} ({same + 1})" if same else name)
    return names


def compare_family(
    sides: Sequence[Named], other: Named, groups: Sequence[str], estimand: Estimand, rule: Rule
) -> list[ComparisonResult]:
    """Several sides with the same other one: Holm's p values, and intervals that hold together."""
    level = bonferroni_level(rule.level, len(sides))
    found = [compare(one.side, other.side, groups, level) for one in sides]
    adjusted = holm([one.p for one in found])
    results = []
    for one, compared, p in zip(sides, found, adjusted, strict=True):
        result = result_of(one, other, groups, compared, level, estimand)
        if compared.known:
            inside = is_inside(one.side, other.side, groups, len(sides), rule)
            result = replace(result, adjusted_p=p, verdict=verdict_of(compared.difference, p, inside, rule))
        split = one.side.crossed or other.side.crossed  # then members are not so many draws of one kind
        results.append(result if split else with_power(result, compared, rule, len(sides)))
    return results


def result_of(
    a: Named, b: Named, groups: Sequence[str], found: Comparison, level: float, estimand: Estimand
) -> ComparisonResult:
    """A comparison as a record, without what depends on the others."""
    noise, known = found.noise, found.known
    return ComparisonResult(
        a=a.name,
        b=b.name,
        estimand="member" if 1 in (a.seeds, b.seeds) or not a.seeds + b.seeds else estimand,
        difference=found.difference,
        low=found.low if known else None,
        high=found.high if known else None,
        level=level,
        p=found.p if known else None,
        adjusted_p=None,
        verdict=None,
        seeds=found.seeds,
        crossed=(a.side.crossed, b.side.crossed),
        groups=found.groups,
        effective_groups=found.effective_groups,
        noise=NoiseParts(noise.seeds**0.5, noise.groups**0.5, noise.both**0.5),
        influence=influence(a.side, b.side, groups),
    )


def verdict_of(difference: float, p: float, inside: bool, rule: Rule) -> Verdict:
    """The verdict of a comparison that has an interval. What lies within ±δ is no difference, even if it is not zero."""
    if inside:
        return "no difference beyond δ"
    if p > 1 - rule.level:
        return "undecided"
    return "better" if (difference > 0) == rule.higher_is_better else "worse"


def is_inside(a: Side, b: Side, groups: Sequence[str], comparisons: int, rule: Rule) -> bool:
    """True if the interval of two one-sided tests lies within ±δ: for a level of 95 % that is the 90 % interval."""
    if rule.delta is None:
        return False
    found = compare(a, b, groups, bonferroni_level(2 * rule.level - 1, comparisons))
    return -rule.delta < found.low and found.high < rule.delta


def with_power(result: ComparisonResult, found: Comparison, rule: Rule, comparisons: int) -> ComparisonResult:
    """The power of this design, and what would decide what it leaves open: at a look before the last one, more seeds."""
    wanted = abs(rule.delta or found.difference)
    uneven = len({count for count in found.seeds if count > 1}) > 1  # then there is no one number of seeds to speak of
    if not found.known or not wanted or uneven:
        return result
    spread, seeds = spread_of(found), max(*found.seeds, 1)
    own = power(spread, wanted, seeds, found.effective_groups, result.level)
    result = replace(result, sought=wanted, power=own)
    if result.verdict != "undecided" or own >= WANTED:
        return result
    level, fewest = result.level, 0
    if rule.last_level is not None and rule.last_level < rule.level:
        level, fewest = bonferroni_level(rule.last_level, comparisons), seeds + 1
    needed = cheapest(spread, wanted, seeds, found.groups, found.effective_groups, level, fewest=fewest)
    return replace(result, needed=needed)


def influence(a: Side, b: Side, groups: Sequence[str]) -> tuple[Influence, ...]:
    """The groups whose absence moves the difference most, the strongest first."""
    names, without = without_each_group(a.rows - b.rows, groups)
    if len(names) < 2:
        return ()
    whole, sizes = float((a.rows - b.rows).mean()), Counter(groups)
    order = sorted(range(len(names)), key=lambda place: (-abs(without[place] - whole), names[place]))
    return tuple(
        Influence(str(names[place]), sizes[names[place]], float(without[place])) for place in order[:INFLUENTIAL]
    )
