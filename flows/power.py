"""`reseed power`: what a recipe's design can see, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reseed.records import ReseedError

if TYPE_CHECKING:
    from reseed.evaluation.design import Planned
    from reseed.recipe.recipe import Recipe
    from reseed.results import Results
    from reseed.store.artifacts import ArtifactStore

LARGEST = 1e100  # its square is still a number
BARS = " ▁▂▃▄▅▆▇█"


def planned_design(
    recipe: Recipe, store: ArtifactStore, earlier: str | None, spread: str | None, groups: int | None
) -> Planned:
    """The design, with spreads as stated, or as the newest result of `earlier` or of the recipe itself measured them."""
    from reseed.evaluation.design import from_result, from_spreads
    from reseed.evaluation.experiment import latest_results
    from reseed.evaluation.looks import LEVEL, last_level
    from reseed.recipe.stages import scored_variants
    from reseed.reporting.verdict import headlines

    refuse_unknown(recipe)
    variants = len(scored_variants(recipe))  # stages are compared with nothing
    level = last_level(recipe.seeds.most) if recipe.seeds.looks else LEVEL
    if spread is not None:
        return from_spreads(*stated(spread), recipe.seeds.most, wanted_groups(groups), variants, level)
    results = latest_results(store, earlier or recipe.name)
    refuse_crossed(results)
    measured = [found for found in headlines(results) if found.low is not None]
    if not measured:
        raise ReseedError(
            f"results '{results.experiment}': no comparison has an interval; give --spread SEED,GROUP --groups N"
        )
    design = from_result(measured[0], recipe.seeds.most, variants, level)
    return design if groups is None else design.with_groups(wanted_groups(groups))


def refuse_unknown(recipe: Recipe) -> None:
    """Refuse designs whose power no simulation has shown."""
    if recipe.seeds.orders:
        raise ReseedError(
            f"recipe '{recipe.name}': the power of seeds split into initialisation and order is not known; ask for a list, "
            "--set seeds=[0,1,2]"
        )
    if recipe.splits:
        raise ReseedError(
            f"recipe '{recipe.name}': the power over several splits is not known; ask for one of them, --set splits=[]"
        )


def refuse_crossed(results: Results) -> None:
    """Refuse spreads that are not those of independent seeds."""
    if any(own.seed_noise is not None for own in results.variants):
        raise ReseedError(
            f"results '{results.experiment}': its seeds were split, so its spread is not that of so many independent seeds; "
            "name a result of a list of seeds with --from, or give --spread SEED,GROUP --groups N"
        )


def stated(spread: str) -> tuple[float, float]:
    """Two standard deviations."""
    try:
        seed, group = (float(part) for part in spread.split(","))
    except ValueError:
        seed = group = -1.0
    if not (0 <= seed < LARGEST and 1 / LARGEST < group < LARGEST):
        raise ReseedError(
            f"--spread {spread}: wanted SEED,GROUP, two standard deviations of the score, as in 0.015,0.08"
        )
    return seed, group


def wanted_groups(groups: int | None) -> int:
    """How many groups of test rows there are to be."""
    if groups is None or groups < 2:
        raise ReseedError(
            f"--groups {groups}: wanted the number of groups of test rows, 2 or more; --spread cannot do without it"
        )
    return groups


def wanted_difference(recipe: Recipe, asked: float | None) -> float:
    """The difference to look for: as asked, or the recipe's δ."""
    if asked is not None and not 0 < asked < float("inf"):
        raise ReseedError(f"--difference {asked:g}: wanted a number above 0")
    if wanted := asked or recipe.delta:
        return wanted
    raise ReseedError(
        "which difference? give --difference D, or `delta: D` in the recipe: the smallest that matters to you"
    )


def power_lines(design: Planned, difference: float, group: str) -> list[str]:
    """What the design sees, a grid of others with a bar for each, and the cheapest with enough power."""
    from reseed.evaluation.design import FACTORS, power_grid, smallest_difference
    from reseed.evaluation.power import WANTED, cheapest
    from reseed.reporting.text import count, plural_of

    least = smallest_difference(design)
    sees = f"a difference of {least:.4g} or more" if least < float("inf") else "no difference at all"
    own = f"{count(design.seeds, 'seed')} × {count(design.groups, group)}"
    lines = [
        f"{own}: a true difference of {difference:g} is called with a power of {design.power(difference):.0%}",
        f"with a power of {WANTED:.0%} it sees {sees}",
        "",
        " " * 10 + "".join(f"{design.groups * factor:>12}" for factor in FACTORS) + f" {plural_of(group)}",
    ]
    seeds = sorted({design.seeds, 3, 5, 10})
    for number, line in zip(seeds, power_grid(design, difference, seeds), strict=True):
        cells = "".join(f"{BARS[round(value * 8)]} {value:.0%}".rjust(12) for value in line)
        lines.append(f"{count(number, 'seed'):<10}{cells}" + (" ← this design" if number == design.seeds else ""))
    best = cheapest(design.spread, difference, design.seeds, design.groups, design.effective, design.level)
    lines.append("")
    if best is None:
        return [
            *lines,
            f"up to 30 seeds and fifty times the {plural_of(group)} would not see it with a power of {WANTED:.0%}",
        ]
    found = f"{count(best.seeds, 'seed')} × {count(best.groups, group)} (power {best.power:.0%})"
    return [
        *lines,
        f"the cheapest design: {found}, where training a member costs as much as its answers to these {plural_of(group)}",
    ]


def group_name(recipe: Recipe) -> str:
    """What one group of the recipe's test rows is called."""
    from reseed.reporting.verdict import noun

    return noun(recipe.data.test.group_by)
