"""The result of an experiment, from its artifacts: held-out rows, predictions and adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from reseed.data.rows import Rows, open_rows
from reseed.evaluation.answers import read_answers
from reseed.evaluation.comparisons import Rule, all_comparisons
from reseed.evaluation.looks import LEVEL, LookPlan, with_looks
from reseed.evaluation.score_table import UNTRAINED, ScoreTable
from reseed.evaluation.scoring import Scorer, TrainedMember, score_all, variant_results
from reseed.evaluation.splits import SplitPlan, split_of, with_splits
from reseed.files import read_jsonl
from reseed.language.embedding import load_embedder
from reseed.models.names import ModelSpec
from reseed.problems import ProblemModule, load_problem
from reseed.records import Artifact, LossPoint, Member, ReseedError
from reseed.results import DatasetStats, MemberResult, Results, VariantResult
from reseed.store.artifacts import ArtifactStore

KIND = "results"


@dataclass(frozen=True)
class Asked:
    """The recipe's question: what is scored and how, and what is compared with what."""

    question: str
    problem: ProblemModule
    embedder: ModelSpec
    constants: tuple[str, ...]
    members: tuple[Member, ...]  # that have answers
    baseline: str
    delta: float | None
    look: LookPlan | None = None  # where seeds are added until it is decided
    split: SplitPlan | None = None  # where rows are split several times

    @property
    def variants(self) -> list[str]:
        """Their names, in the order of the members."""
        return list(dict.fromkeys(member.variant for member in self.members))


@dataclass(frozen=True)
class Evidence:
    """What a result rests on: its artifacts by role, as the results' manifest names them."""

    artifacts: Mapping[str, Artifact]

    @property
    def partitions(self) -> dict[str, Artifact]:
        """Variant → its rows."""
        begin = "partition "
        return {role.removeprefix(begin): made for role, made in self.artifacts.items() if role.startswith(begin)}

    def of(self, what: str, whose: Member | str) -> Artifact:
        """The `adapter`, `predictions` or `ensemble` of a member, a variant or the untrained student."""
        return self.artifacts[f"{what} {whose}"]


def evaluate(
    store: ArtifactStore, asked: Asked, artifacts: Mapping[str, Artifact], experiment: str
) -> tuple[Results, ScoreTable]:
    """Read the answers, embed, score and compare them."""
    problem, evidence = load_problem(asked.problem), Evidence(artifacts)
    first = next(iter(evidence.partitions.values()))
    check_comparable(store, evidence.partitions)
    test, train = part(store, first, "test"), part(store, first, "train")
    group_by = str(store.manifest(first).spec["test"]["group_by"])
    untrained = read_answers(store, evidence.of("predictions", "untrained"))
    members = {member: read_answers(store, evidence.of("predictions", member)) for member in asked.members}
    ensembles = {name: read_answers(store, evidence.of("ensemble", name)) for name in asked.variants}
    scorer = Scorer(problem, list(test), load_embedder(asked.embedder))
    groups = test.column(group_by)
    table, constants = score_all(scorer, groups, untrained, members, ensembles, asked.constants, train)
    trained = {member: trained_member(store, evidence.of("adapter", member)) for member in asked.members}
    variants = with_history(store, variant_results(table, trained), evidence)
    look = asked.look
    rule = Rule(problem.higher_is_better, asked.delta, look.level if look else LEVEL, look.last_level if look else None)
    results = Results(
        experiment=experiment,
        question=asked.question,
        problem=problem.name,
        metric=problem.metric,
        higher_is_better=problem.higher_is_better,
        rows=len(test),
        untrained=float(table.columns[UNTRAINED].mean()),
        variants=variants,
        constants=constants,
        dataset=dataset_of(store, first),
        train_rows=len(train),
        baseline=asked.baseline,
        delta=asked.delta,
        group_by=group_by,
        level=rule.level,
        comparisons=all_comparisons(table, asked.baseline, asked.constants, rule),
    )
    before = load_results(store, artifacts["results before"]) if "results before" in artifacts else None
    if look is not None:
        results = with_looks(results, look, before.looks if before else ())
    if asked.split is not None:
        own = split_of(results, asked.split.seed, len(part(store, first, "validation")))
        results = with_splits(results, asked.split, own, before.splits if before else (), rule)
    return results, table


def dataset_of(store: ArtifactStore, partition: Artifact) -> DatasetStats:
    """The dataset table of the rows that were partitioned."""
    curated = Artifact(*store.manifest(partition).inputs["curated"].split("/"))
    known = DatasetStats.__dataclass_fields__
    return DatasetStats(**{key: value for key, value in store.manifest(curated).metrics.items() if key in known})


def check_comparable(store: ArtifactStore, partitions: Mapping[str, Artifact]) -> None:
    """Refuse variants whose test rows are not the first one's. Flows call this before anything is trained."""
    (first, known), *others = partitions.items()
    wanted = set(part(store, known, "test").column("id"))
    for name, other in others:
        if other != known and set(part(store, other, "test").column("id")) != wanted:
            raise ReseedError(
                f"variant '{name}' is scored on other rows than '{first}', so they cannot be compared; let variants "
                "share data.test and the source of its rows"
            )


def part(store: ArtifactStore, partition: Artifact, name: str) -> Rows:
    """The rows of one part of a partition."""
    return open_rows(store.fetch(partition), name)


def trained_member(store: ArtifactStore, adapter: Artifact) -> TrainedMember:
    """What the adapter's manifest says about its member."""
    return TrainedMember(best_step=int(store.manifest(adapter).metrics["best_step"]), artifact=adapter.path)


def with_history(
    store: ArtifactStore, variants: tuple[VariantResult, ...], evidence: Evidence
) -> tuple[VariantResult, ...]:
    """The variants' results, with every member's loss curve and number of answers that were cut off."""

    def with_curve(result: MemberResult, member: Member) -> MemberResult:
        points = read_jsonl(store.fetch(evidence.of("adapter", member)) / "curve.jsonl")
        answered = store.manifest(evidence.of("predictions", member)).metrics
        cut_off = int(answered["rows"]) - int(answered["ended_by_themselves"])
        return replace(result, curve=tuple(LossPoint(**point) for point in points), cut_off=cut_off)

    return tuple(
        replace(v, members=tuple(with_curve(m, Member(v.name, m.seed, m.order)) for m in v.members)) for v in variants
    )


def save_results(results: Results, path: Path) -> None:
    """Write the whole record, curves included."""
    path.write_bytes(TypeAdapter(Results).dump_json(results, indent=1))


def load_results(store: ArtifactStore, artifact: Artifact) -> Results:
    """Read the record of a finished experiment."""
    return TypeAdapter(Results).validate_json((store.fetch(artifact) / "results.json").read_bytes())


def latest_results(store: ArtifactStore, experiment: str) -> Results:
    """The newest result of an experiment, as a record."""
    return load_results(store, latest(store, experiment))


def make_latest(store: ArtifactStore, artifact: Artifact, always: bool = False) -> None:
    """Point the experiment's `latest` at a result; unless `always`, not back from one that has it among its inputs: what a
    later look decided stays, also where a run passes through an early one again."""
    store.point(
        KIND, artifact.name, "latest", artifact, stays=lambda now: not always and is_followed(store, now, artifact)
    )


def is_followed(store: ArtifactStore, later: Artifact, artifact: Artifact) -> bool:
    """True if one result is of a later look, or a later split, than the other. One that was removed ends the search."""
    while (manifest := store.find(later)) is not None and (path := manifest.inputs.get("results before")) is not None:
        if path == artifact.path:
            return True
        later = Artifact(*path.split("/"))
    return False


def latest(store: ArtifactStore, experiment: str) -> Artifact:
    """The newest result of an experiment."""
    ref = store.ref(KIND, experiment, "latest")
    if ref is None:
        there = store.names(KIND)
        raise ReseedError(
            f"results '{experiment}': the store {store.url} has none; it has {', '.join(there) or 'no results yet'}. "
            f"`reseed run {experiment}` makes them"
        )
    return ref.artifact
