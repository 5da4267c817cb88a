"""What a result says, in words: one line for each comparison that the experiment was made for."""

from __future__ import annotations

from reseed.evaluation.looks import is_settled
from reseed.evaluation.power import WANTED
from reseed.reporting.text import count, plural_of, signed
from reseed.results import ComparisonResult, OverSplits, Results
from reseed.text import one_line

FEW = 10  # effective groups below which the words say how few they are
BEFORE = "an older version scored this, which took rows for independent; run the recipe again"
HOW_LOOKED = (
    "The looks were declared before the first one. Each is judged at the level that it may spend (Lan and DeMets), so that all "
    "of them together call an equal variant better or worse in at most one of twenty experiments. What a look decides of these "
    "comparisons stays."
)
HOW_SPLIT = (
    "Each split trains anew, on other rows. Splits share rows, so that their mean is less certain than that of so many draws: "
    "Nadeau and Bengio's variance (2003), from the share of rows that two splits have in common, plus the variance by seeds."
)
SHARES = {0.333: "About a third", 0.5: "About half", 0.667: "About two thirds", 0.75: "About three quarters",
          0.9: "About nine tenths", 1.0: "Nearly all"}  # fmt: skip


def headlines(results: Results) -> list[ComparisonResult]:
    """What the experiment was made for: each variant with the baseline, then with the untrained model and the best constant."""
    own = [found for found in results.comparisons if found.estimand != "ensemble"]
    with_baseline = [found for found in own if found.b == results.baseline]
    return with_baseline + [found for found in own if found.b in ("untrained", "best constant")]


def verdict_lines(results: Results) -> list[str]:
    """A line for each comparison of `headlines`."""
    if not results.variants:
        return ["No variant was trained."]
    if not results.comparisons:
        return [f"No verdict: {BEFORE}."]
    own = [sentence(found, noun(results.group_by)) for found in headlines(results)]
    if not results.splits:
        return own
    return [*map(sentence_over_splits, split_headlines(results)), f"{which_split(results)}:", *own]


def which_split(results: Results) -> str:
    """Which of several splits the scores of a result are of."""
    number, planned = len(results.splits), results.planned_splits
    which = f"On the last of {planned} splits" if number == planned else f"On split {number} of {planned}"
    return f"{which} alone, data.seed {results.splits[-1].seed}"


def split_headlines(results: Results) -> list[OverSplits]:
    """The comparisons of `headlines`, over several splits of the rows."""
    asked = [(found.a, found.b) for found in headlines(results)]
    return [found for found in results.over_splits if (found.a, found.b) in asked]


def sentence_over_splits(found: OverSplits) -> str:
    """What several splits say together."""
    over = f"Over {found.splits} splits of {max(found.seeds)} seeds"
    names = f"{over}, {one_line(f'{found.a} − {found.b}')}: {signed(found.difference)}"
    if found.low is None or found.high is None:
        return f"{names}: no verdict, since the difference is the same in every one."
    return f"{names} ({percent(found.level)} % {signed(found.low)} to {signed(found.high)}): {found.verdict}."


def verdict(results: Results) -> str:
    """The lines as one text."""
    return "\n".join([*verdict_lines(results), *looked(results), *seed_noise_lines(results)])


def seed_noise_lines(results: Results) -> list[str]:
    """Where seeds are split: how much of a variant's noise from run to run is initialisation, and how much order."""
    return [
        f"Seeds of {one_line(own.name)}: a run's score varies by {noise.initialisation:.4f} with its initialisation, by "
        f"{noise.order:.4f} with the order of its rows (and its dropout), and by {noise.both:.4f} with both together."
        for own in results.variants
        if (noise := own.seed_noise) is not None
    ]


def looked(results: Results) -> list[str]:
    """Where seeds are added until it is decided: how far that is."""
    if results.most_seeds is None:
        return []
    seeds = max((look.seeds for look in results.looks), default=0)
    if seeds == results.most_seeds or is_settled(results):
        return [f"Judged at {seeds} of at most {results.most_seeds} seeds."]
    more = "`reseed run --until-decided` adds more until it is decided."
    return [f"Judged at {seeds} of at most {results.most_seeds} seeds; {more}"]


def sentence(found: ComparisonResult, group: str) -> str:
    """The comparison with its interval, what it was made of, its verdict, and what would settle an open one."""
    names = f"{pair(found)}: {signed(found.difference)}"
    if found.low is None or found.high is None:
        return f"{names} ({seeds_and_groups(found, group)}): no verdict, since {why_not(found, group)}."
    interval = f"{percent(found.level)} % {signed(found.low)} to {signed(found.high)}"
    alone = ", of this pair of models, not of the recipe" if found.estimand == "member" else ""
    decided = f"{names} ({interval}; {seeds_and_groups(found, group)}): {said(found)}{alone}."
    return " ".join([decided, *few(found, group), *missing(found, group)])


def said(found: ComparisonResult) -> str:
    """The verdict, and at which number of seeds it was reached if that was an earlier look."""
    earlier = found.decided_at is not None and found.decided_at < max(found.seeds)
    return f"{found.verdict} (decided at {found.decided_at} seeds)" if earlier else found.verdict or "no verdict"


def percent(level: float) -> str:
    """A level as a percentage with three digits, or with as many as tell it from 100."""
    return next(text for digits in range(3, 18) if (text := f"{100 * level:.{digits}g}") != "100")


def pair(found: ComparisonResult) -> str:
    """`A − B`, as every table and picture calls a comparison."""
    return f"{side(found.a, found)} − {side(found.b, found)}"


def side(name: str, found: ComparisonResult) -> str:
    """A side's name; an ensemble's says so."""
    plain = "/" in name or name in ("untrained", "best constant") or name.startswith("constant “")  # with / as typed
    return one_line(name) if plain or found.estimand != "ensemble" else f"{one_line(name)} (ensemble)"


def seeds_and_groups(found: ComparisonResult, group: str) -> str:
    """`3 seeds × 12 prompts`, or `3 × 3 seeds × 12 prompts` where they are split."""
    sides = zip(found.seeds, found.crossed, strict=True)
    counts = list(dict.fromkeys(" × ".join(map(str, shape or [n])) for n, shape in sides if n))  # A's first
    if not counts:
        return count(found.groups, group)
    return f"{' and '.join(counts)} {'seed' if counts == ['1'] else 'seeds'} × {count(found.groups, group)}"


def why_not(found: ComparisonResult, group: str) -> str:
    """Why there is no interval."""
    if found.groups < 2:
        return f"one {group} says nothing about others"
    return f"the difference is the same in every {group}, and without noise there is nothing to judge it by"


def few(found: ComparisonResult, group: str) -> list[str]:
    """How few groups there really are, if they are."""
    if found.effective_groups > FEW - 0.05:
        return []
    if found.effective_groups > found.groups - 0.05:
        return [f"{count(found.groups, group)} are few."]
    return [f"Unevenly spread, they count as {found.effective_groups:.1f} {plural_of(group)}, which is few."]


def missing(found: ComparisonResult, group: str) -> list[str]:
    """Where the noise of an undecided comparison comes from, and how much more of what would settle it."""
    if found.verdict != "undecided":
        return []
    parts = {
        "seeds": found.noise.seeds**2,
        plural_of(group): found.noise.groups**2,
        f"seeds within {plural_of(group)}": found.noise.both**2,
    }
    most = max(parts, key=lambda name: parts[name])
    share = min(SHARES, key=lambda known: abs(known - parts[most] / sum(parts.values())))
    said = [f"{SHARES[share]} of the noise is {most};"] if max(found.seeds) > 1 else []
    if found.power is None or found.power >= WANTED:  # then this design would mostly see it, and chance was against it
        return [one.replace(";", ".") for one in said]
    own = found.sought is None or found.sought == abs(found.difference)
    size = "a difference this size" if own else f"a difference of δ, {found.sought:g}"
    many = max(found.seeds) > 1
    if found.needed is None:
        more = f"not even {'30 seeds and ' if many else ''}fifty times the {plural_of(group)} would settle {size}."
    else:
        seeds = f"{found.needed.seeds} seeds on " if many else ""
        more = f"about {seeds}{count(found.needed.groups, group)} would settle {size}."
    return [*said, more if said else more[0].upper() + more[1:]]


def noun(column: str) -> str:
    """What one group is called: the last word of the column (`rewrite_prompt`: prompt); a row where each is its own group."""
    if column == "id":
        return "row"
    words = [word for word in column.lower().split("_") if word not in ("id", "name", "key", "")]
    return one_line(words[-1]) if words else "group"


def how_compared(results: Results) -> str:
    """What the intervals count, for the foot of a table of comparisons."""
    delta = "" if results.delta is None else f" δ is {results.delta:g}."
    groups = plural_of(noun(results.group_by))
    return (
        f"Intervals count other seeds and other {groups} (held out by {results.group_by}). Those of several variants with the "
        "same B hold together (Bonferroni), and p is adjusted likewise (Holm); p decides, so a decided interval can "
        f"just include zero.{delta} “recipe”: what one more run would give; “ensemble”: the blend of so many seeds; “member”: "
        "these models alone."
    )
