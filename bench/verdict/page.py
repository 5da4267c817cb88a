"""The simulation's numbers as Markdown: the goals, then a table for each section that ran."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from verdict.claims import CONSTANT_SCORE, CONSTANTS, DELTAS, INDEPENDENT, PARTS, SHAPES, WITH_FIXED
from verdict.habits import BOOTSTRAPS, HABITS, RESAMPLES
from verdict.noise import ALL, MODELS
from verdict.rates import COVERED, GROUPS, OURS, SEEDS, Tally, predicted, rate
from verdict.splits import BY_PAIRS, SEEDS_OF_SPLITS, SPLITS
from verdict.splits import PARTS as PARTS_OF_SPLITS

Cells = dict[tuple[int, ...], Tally]
Goal = tuple[str, str, str, bool]  # what, goal, measured, met
WANTED_POWER = {30: (0.38, 0.55, 0.67), 100: (0.71, 0.91, 0.97)}  # at K = 3, 5, 10


def page(kept: dict[str, Any]) -> str:
    """The goals, and all tables of the sections that have run."""
    makers: dict[str, Callable[[Cells], str]] = {
        "false calls": false_calls, "power": power, "ensembles": ensembles, "log loss": log_loss, "families": families,
        "looks": looks, "split seeds": split_seeds, "splits": over_splits, "equivalence": equivalence,
        "constants": constants, "binary": binary,
    }  # fmt: skip
    shown = [(what, goal, measured, "yes" if met else "**no**") for what, goal, measured, met in goals(kept)]
    found = cells_of(kept)
    parts = [runs(kept), table(["", "goal", "measured", "met"], shown)]
    return "\n\n".join([*parts, *(make(found[name]) for name, make in makers.items() if name in found)])


def cells_of(kept: dict[str, Any]) -> dict[str, Cells]:
    """Section → cell → what was counted."""
    return {
        name: {tuple(map(int, cell.split())): tally for cell, tally in section["cells"].items()}
        for name, section in kept["sections"].items()
    }


def runs(kept: dict[str, Any]) -> str:
    """Which sections were run with how many comparisons, and how far a rate may be off."""
    by_run = dict[str, list[str]]()
    for name, one in kept["sections"].items():
        number = f"{one['comparisons']:,}".replace(",", " ")
        off = short(2 * (0.05 * 0.95 / one["comparisons"]) ** 0.5)
        about = f"{number} comparisons a cell (a rate of .05 is exact to ±{off}), seed {one['seed']}, commit {one['commit']}"
        by_run.setdefault(about, []).append(name)
    return "\n".join(f"- {', '.join(names)}: {about}" for about, names in by_run.items())


def goals(kept: dict[str, Any]) -> list[Goal]:
    """Each goal of a section that has run, and of the large comparison."""
    return list(reached(cells_of(kept), kept["size"]))


def reached(found: dict[str, Cells], size: dict[str, float]) -> Iterator[Goal]:
    if cells := nine(found.get("false calls", {})):
        yield at_most("false calls, worst of 9 models × G 10/30/100 × K 3/5/10", worst(cells, OURS, more_seeds), 0.055)
        yield at_most("false calls, worst of 9 models × G 10/30/100 at K = 2", worst(cells, OURS, two_seeds), 0.065)
    if cells := found.get("power"):
        yield from power_goals(cells)
    for name, what in (("ensembles", "blend of mean scores"), ("log loss", "seven-class log loss")):
        if cells := found.get(name):
            yield at_most(f"ensembles, {what}: false calls, worst at K ≥ 3", worst(cells, OURS, more_seeds), 0.055)
    if cells := found.get("families"):
        yield at_most("Holm's family of four: any false call, worst at K ≥ 3", worst(cells, "Holm", more_seeds), 0.055)
    if cells := found.get("looks"):
        yield at_most("looks at 3, 4, 5, 6, 8, 10 seeds: any false call, worst", worst(cells, "declared looks"), 0.05)
    if cells := found.get("split seeds"):
        for name, sides in ((OURS, "two recipes"), (WITH_FIXED, "one, and a model without seeds")):
            more = worst(cells, name, lambda cell: cell[1] > 0)
            yield at_most(f"3 × 3 and 4 × 4 split seeds, {sides}: false calls, worst", more, 0.055)
            yield at_most(
                f"2 × 2 split seeds, {sides}: false calls, worst", worst(cells, name, lambda cell: cell[1] == 0), 0.065
            )
    if cells := found.get("splits"):
        for name, sides in ((OURS, "two recipes"), (WITH_FIXED, "one, and a model without seeds")):
            yield at_most(f"several splits, {sides}: false calls, worst", worst(cells, name), 0.055)
    if cells := found.get("equivalence"):
        names = [f"{delta} {delta}" for delta in DELTAS]
        yield at_most("no difference beyond δ, said at δ, worst", max(worst(cells, name) for name in names), 0.06)
    if cells := found.get("constants"):
        off = abs(rate(cells[()], "cross-fitted") - CONSTANT_SCORE)
        yield at_most("the cross-fitted constant, off the truth by", off, 0.003, digits=4)
    if cells := found.get("binary"):
        yield at_most("scores of 0 and 1: false calls, worst", worst(cells, OURS), 0.05)
    yield at_most("1 000 members a side × 10 000 rows, s", size["seconds"], 10, digits=2)
    yield at_most("its peak memory, GiB", size["GiB"], 2, digits=2)


def power_goals(cells: Cells) -> Iterator[Goal]:
    for groups, wanted in WANTED_POWER.items():
        seen = [rate(cells[groups, seeds], "power") for seeds in SEEDS[1:]]
        met = all(one >= limit for one, limit in zip(seen, wanted, strict=True))
        goal = "≥ " + " ".join(short(limit, 2) for limit in wanted)
        yield f"power at +0.06, G = {groups}, K = 3 5 10", goal, " ".join(map(short, seen)), met
    off = max(abs(rate(tally, "power") - predicted(*cell)) for cell, tally in cells.items())
    yield at_most("predicted power, off by at most", off, 0.03)


def at_most(what: str, measured: float, limit: float, digits: int = 3) -> Goal:
    return what, f"≤ {limit:g}".replace("≤ 0.", "≤ ."), short(measured, digits), measured <= limit


def short(value: float, digits: int = 3) -> str:
    """Without the zero before the point, as tables of rates are printed."""
    return f"{value:.{digits}f}".removeprefix("0")


def nine(cells: Cells) -> Cells:
    """Without the model beyond the nine."""
    return {cell: tally for cell, tally in cells.items() if cell[0] < len(MODELS)}


def two_seeds(cell: tuple[int, ...]) -> bool:
    return cell[-1] == 2


def more_seeds(cell: tuple[int, ...]) -> bool:
    return cell[-1] > 2


def everywhere(cell: tuple[int, ...]) -> bool:
    return True


def worst(cells: Cells, name: str, where: Callable[[tuple[int, ...]], bool] = everywhere) -> float:
    return max(rate(tally, name) for cell, tally in cells.items() if where(cell))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| :-- |{' --: |' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def by_seeds(cells: Cells, name: str, *start: int) -> str:
    """The rates at each number of seeds."""
    return " ".join(short(rate(cells[(*start, seeds)], name)) for seeds in SEEDS)


COLUMNS = [f"G={groups}" for groups in GROUPS]


def false_calls(cells: Cells) -> str:
    def row(name: str) -> list[str]:
        ends = " / ".join(short(worst(nine(cells), name, where)) for where in (two_seeds, more_seeds))
        return [by_seeds(cells, name, 0, groups) for groups in GROUPS] + [ends]

    rows = [[f"**{name}**" if name == OURS else name, *row(name)] for name in (*HABITS, *BOOTSTRAPS, OURS)]
    few = next(iter(cells.values()))[next(iter(BOOTSTRAPS))][1]
    return (
        "**False calls** where nothing differs (nominal .05), K = 2 3 5 10 seeds a side; the columns of G are the first noise "
        "model's, the last is the worst of all nine models and G. "
        f"The bootstraps judged {few} comparisons a cell, with {RESAMPLES} resamples.\n\n"
        + table(["procedure", *COLUMNS, "worst, K = 2 / K ≥ 3"], rows)
        + "\n\nOur procedure under each noise model, and the least coverage of its 95 % interval.\n\n"
        + table(["noise model", *COLUMNS, "coverage, K = 2 / K ≥ 3"], [model_row(cells, n) for n in range(len(ALL))])
    )


def model_row(cells: Cells, model: int) -> list[str]:
    """Our procedure under one noise model."""
    own = {cell: tally for cell, tally in cells.items() if cell[0] == model}
    least = [
        min(rate(tally, COVERED) for cell, tally in own.items() if where(cell)) for where in (two_seeds, more_seeds)
    ]
    rates = [by_seeds(cells, OURS, model, groups) for groups in GROUPS]
    return [ALL[model].name, *rates, " / ".join(map(short, least))]


def power(cells: Cells) -> str:
    rows = [
        ["called", *(by_seeds(cells, "power", groups) for groups in GROUPS)],
        ["predicted from the true spreads", *(" ".join(short(predicted(g, k)) for k in SEEDS) for g in GROUPS)],
        [
            "an earlier result's prediction is off by",
            *(by_seeds(cells, "foretold off by", groups) for groups in GROUPS),
        ],
        ["coverage", *(by_seeds(cells, COVERED, groups) for groups in GROUPS)],
    ]
    return (
        "**Power** at a true +0.06, the first noise model, K = 2 3 5 10. The earlier result has 3 seeds × 30 prompts, and its "
        f"prediction is off by so much on average.\n\n{table(['', *COLUMNS], rows)}"
    )


def ensembles(cells: Cells) -> str:
    rows = [
        [MODELS[n].name, *(by_seeds(cells, OURS, n, g) for g in GROUPS)] for n in dict.fromkeys(c[0] for c in cells)
    ]
    return (
        "**Ensembles** whose score is the mean of the members': false calls at K = 2 3 5 10.\n\n"
        + table(["noise model", *COLUMNS], rows)
    )  # fmt: skip


def log_loss(cells: Cells) -> str:
    rows = [["mean of the members' probabilities", *(by_seeds(cells, OURS, groups) for groups in GROUPS)]]
    return f"**Ensembles, seven-class log loss**: false calls at K = 2 3 5 10.\n\n{table(['', *COLUMNS], rows)}"


def families(cells: Cells) -> str:
    rows = [
        [f"{name}, {'one variant better by 0.06' if better else 'none better'}",
         *(by_seeds(cells, name, better, groups) for groups in GROUPS)]
        for better in (0, 1) for name in ("Holm", "each by itself")
    ]  # fmt: skip
    return (
        "**Four variants against one baseline**: any false call at K = 2 3 5 10.\n\n" + table(["", *COLUMNS], rows)
    )  # fmt: skip


def looks(cells: Cells) -> str:
    names = ["declared looks", "95 % at each look", "rows as if independent"]
    rows = [
        [f"{MODELS[model].name}, G={groups}", *(short(rate(tally, name)) for name in names)]
        for (model, groups), tally in cells.items()
    ]
    return "**Looks** at 3, 4, 5, 6, 8 and 10 seeds: any false call.\n\n" + table(["", *names], rows)


def split_seeds(cells: Cells) -> str:
    names = [f"{inits} × {orders}" for inits, orders in SHAPES]
    rows = [
        ["sd {} by initialisation, {} by order, {} by both".format(*parts), f"G={groups}", *(
            " ".join(short(rate(cells[part, shape, groups], name)) for name in (OURS, WITH_FIXED, INDEPENDENT))
            for shape in range(len(SHAPES))
        )]
        for part, parts in enumerate(PARTS) for groups in (30, 100)
    ]  # fmt: skip
    return (
        "**Seeds split** into initialisations × orders: false calls of two recipes, of one with a model without seeds, and of "
        f"two whose members are taken for independent.\n\n{table(['', '', *names], rows)}"
    )


def over_splits(cells: Cells) -> str:
    names = (OURS, WITH_FIXED, BY_PAIRS)
    rows = [
        [f"noise of {name}", f"{splits} splits", *(
            " ".join(short(rate(cells[part, splits, seeds], one)) for one in names) for seeds in SEEDS_OF_SPLITS
        )]
        for part, (name, *_) in enumerate(PARTS_OF_SPLITS) for splits in SPLITS
    ]  # fmt: skip
    return (
        "**Several splits** of the same rows: false calls of two recipes, of one with a model without seeds, and of two by a "
        "paired t-test over the splits.\n\n" + table(["", "", *(f"{seeds} seeds" for seeds in SEEDS_OF_SPLITS)], rows)
    )


def equivalence(cells: Cells) -> str:
    rows = [
        [f"δ = {delta}, the true difference {truth or 'nil'}",
         *(by_seeds(cells, f"{truth} {delta}", groups) for groups in GROUPS)]
        for delta in DELTAS for truth in (delta, 0.0)
    ]  # fmt: skip
    return f"**No difference beyond δ**: how often it is said, K = 2 3 5 10.\n\n{table(['', *COLUMNS], rows)}"


def constants(cells: Cells) -> str:
    found = cells[()]
    rows = [[name, short(rate(found, name), 4)] for name in found]
    return f"**The best of {CONSTANTS} constants**, each truly worth .03.\n\n{table(['', 'mean score'], rows)}"


def binary(cells: Cells) -> str:
    few = sorted({cell[1] for cell in cells})
    kinds = {0: "about half are 1", 1: "most are 1"}
    rows = [
        [f"{name}, {kinds[easy]}", *(by_seeds(cells, key, easy, groups) for groups in few)]
        for easy in kinds for name, key in (("ours", OURS), ("rows as if independent", "rows"))
    ]  # fmt: skip
    return (
        "**Scores of 0 and 1**, four rows a group: false calls at K = 2 3 5 10.\n\n"
        + table(["", *(f"G={groups}" for groups in few)], rows)
    )  # fmt: skip
