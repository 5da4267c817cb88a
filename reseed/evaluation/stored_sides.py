"""What `reseed compare` compares: sides of stored results, also of different runs, if their test rows are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reseed.evaluation.comparisons import Named, Rule, compare_family
from reseed.evaluation.experiment import KIND, latest, load_results
from reseed.evaluation.looks import last_level
from reseed.evaluation.score_table import UNTRAINED, ScoreTable, load_scores, member_column
from reseed.evaluation.statistics import Side, recipe_side
from reseed.mistakes import nearest
from reseed.records import Artifact, ReseedError
from reseed.results import ComparisonResult, Results, Verdict
from reseed.store.artifacts import ArtifactStore
from reseed.store.lookup import find_artifact

TURNED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}  # as the other side has it
SAME = ("problem", "embedder")  # keys of a result's spec that scores depend on


@dataclass(frozen=True)
class StoredSide:
    """One side, what it is, and the result that it is from."""

    name: str
    artifact: Artifact
    who: str  # what it is called there
    side: Side
    ensemble: bool
    recipe: bool
    table: ScoreTable
    results: Results
    spec: Mapping[str, Any]


def compare_stored(
    store: ArtifactStore, a: str, b: str, delta: float | None = None
) -> tuple[ComparisonResult, Results]:
    """Compare two sides, each EXPERIMENT, EXPERIMENT/VARIANT, …/ensemble, …/SEED or EXPERIMENT/untrained; and A's result.

    EXPERIMENT@KEY is an older result. Raises ReseedError for sides whose scores cannot be compared, naming what differs.
    """
    if delta is not None and not 0 < delta < float("inf"):
        raise ReseedError(f"--delta {delta:g}: wanted a difference above 0, the smallest that matters")
    first, second = open_side(store, a), open_side(store, b)
    if (first.artifact, first.who) == (second.artifact, second.who):
        raise ReseedError(f"{first.name} and {second.name} are the same scores; name two sides that may differ")
    if delta is None and (known := of_one_result(first, second)) is not None:
        return known, first.results
    check_same_metric(first, second)
    places = shared_rows(first, second)
    other = at_rows(second.side, places)
    blends = (first.ensemble or second.ensemble) and not (first.recipe or second.recipe)
    level = max(first.results.level, second.results.level)  # a strict one where seeds are added until it is decided
    last = [last_level(side.results.most_seeds) for side in (first, second) if side.results.most_seeds is not None]
    rule = Rule(first.results.higher_is_better, delta or shared_delta(first, second), level, max(last, default=None))
    sides, base = [Named(first.name, first.side)], Named(second.name, other)
    (found,) = compare_family(sides, base, first.table.groups, "ensemble" if blends else "recipe", rule)
    return found, first.results


def of_one_result(a: StoredSide, b: StoredSide) -> ComparisonResult | None:
    """The comparison that the sides' own result made, judged there with those of the other variants, or None.

    What an earlier look decided of it is in it, too.
    """
    if a.artifact != b.artifact:
        return None
    kinds = {("ensemble" if side.ensemble else "recipe") for side in (a, b) if side.side.seeds is not None}
    for found in a.results.comparisons:
        if kinds not in ({found.estimand}, {"recipe"} if found.estimand == "member" else {found.estimand}):
            continue
        names = tuple(side.who.removesuffix("/ensemble") for side in (a, b))
        if names == (found.a, found.b):
            return replace(found, a=a.name, b=b.name)
        if names == (found.b, found.a):
            return replace(turned(found), a=a.name, b=b.name)
    return None


def turned(found: ComparisonResult) -> ComparisonResult:
    """B minus A."""
    return replace(
        found, difference=-found.difference, seeds=found.seeds[::-1], crossed=found.crossed[::-1],
        low=None if found.high is None else -found.high, high=None if found.low is None else -found.low,
        verdict=None if found.verdict is None else TURNED.get(found.verdict, found.verdict),
        influence=tuple(replace(one, difference=-one.difference) for one in found.influence),
    )  # fmt: skip


def at_rows(side: Side, places: list[int]) -> Side:
    """A side with its rows in another order."""
    return replace(side, rows=side.rows[places], seeds=None if side.seeds is None else side.seeds[:, places])


def shared_delta(a: StoredSide, b: StoredSide) -> float | None:
    """The δ of both results, or of the one that has one."""
    known = [side.results.delta for side in (a, b) if side.results.delta is not None]
    if len(set(known)) > 1:
        raise ReseedError(
            f"{a.name} and {b.name} have another delta, {known[0]:g} and {known[1]:g}; say which with --delta"
        )
    return known[0] if known else None


def open_side(store: ArtifactStore, text: str) -> StoredSide:
    """The side that a user names."""
    whole, _, who = text.partition("/")
    experiment, older, key = whole.partition("@")
    shown_by = "`reseed plan RECIPE`, or the address of a page of `reseed report`"
    artifact = (
        find_artifact(store, f"{KIND}/{experiment}/{key}", (KIND,), shown_by) if older else latest(store, experiment)
    )
    results, table = load_results(store, artifact), load_scores(store.fetch(artifact), str(artifact))
    who = who or results.baseline or results.variants[0].name
    side, ensemble = side_of(table, who, text)
    recipe = side.seeds is not None and not ensemble
    return StoredSide(
        f"{whole}/{who}", artifact, who, side, ensemble, recipe, table, results, store.manifest(artifact).spec
    )


def side_of(table: ScoreTable, who: str, text: str) -> tuple[Side, bool]:
    """A variant, its ensemble, one of its members, or the untrained model; and whether it is an ensemble."""
    if who == UNTRAINED:
        return table.fixed(UNTRAINED), False
    known = [UNTRAINED]
    for variant in table.variants():
        if who == variant:
            return table.recipe(variant), False
        if who == f"{variant}/ensemble":
            return table.ensemble(variant), True
        for member in table.members(variant):
            if who == f"{variant}/{member.run}":
                return recipe_side(table.columns[member_column(member)][None]), False
        known += [variant, f"{variant}/ensemble", *(f"{variant}/{member.run}" for member in table.members(variant))]
    raise ReseedError(f"{text}: the result has no '{who}'{nearest(who, known)}; it has {', '.join(known)}")


def check_same_metric(a: StoredSide, b: StoredSide) -> None:
    """Refuse sides that were scored in different ways."""
    for key in SAME:
        if a.spec.get(key) != b.spec.get(key):
            raise ReseedError(
                f"{a.name} and {b.name} were scored with another {key}, so their scores cannot be compared: "
                f"{a.spec.get(key)} and {b.spec.get(key)}"
            )
    if (a.results.metric, a.results.group_by) != (b.results.metric, b.results.group_by):
        raise ReseedError(
            f"{a.name} and {b.name} cannot be compared: {a.results.metric} over groups of {a.results.group_by}, and "
            f"{b.results.metric} over groups of {b.results.group_by}"
        )


def shared_rows(a: StoredSide, b: StoredSide) -> list[int]:
    """The place of each row of A among B's. Both must have been tested on the same rows."""
    where = {row_id: place for place, row_id in enumerate(b.table.ids)}
    only_a, only_b = set(a.table.ids) - set(where), set(where) - set(a.table.ids)
    if only_a or only_b:
        raise ReseedError(
            f"{a.name} and {b.name} were tested on different rows, so their scores cannot be compared: only in the first are "
            f"{len(only_a)} of {len(a.table.ids)} rows, and only in the second {len(only_b)} of {len(where)}; let both recipes "
            "share data.train, data.test and data.seed"
        )
    return [where[row_id] for row_id in a.table.ids]
