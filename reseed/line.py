"""The line: what each artifact rests on. All steps of an experiment are made here, and so are their keys.

It is asked backwards: `results()` asks for answers, those for adapters, those for partitions, down to the source. What
was asked once is remembered, so variants that agree share their steps, and a source is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from reseed.data.sources import Source, resolve_source
from reseed.evaluation.experiment import Asked
from reseed.evaluation.looks import LookPlan
from reseed.evaluation.splits import SplitPlan
from reseed.generation.pairs import draw_pairs
from reseed.language.prompts import prompt_format
from reseed.models.names import ENGINE
from reseed.problems import ProblemModule, load_problem
from reseed.recipe.pins import pin
from reseed.recipe.profile import Profile, student
from reseed.recipe.recipe import Recipe, Variant, split_by
from reseed.recipe.stages import scored_variants, start_of, training_order, variants_of
from reseed.records import Artifact, Member, ReseedError, Sampling
from reseed.settings import GenerationSettings
from reseed.steps.generate import JoinShards, WriteShard
from reseed.steps.predict import Blend, Predict
from reseed.steps.rows import Curate, Import, Partition
from reseed.steps.score import Report, Score, report_step, score_inputs
from reseed.steps.stored_adapters import stored_start
from reseed.steps.train import Train
from reseed.store.artifacts import ArtifactStore
from reseed.store.step import Step
from reseed.training.arguments import check_place, micro_batch
from reseed.training.job import Judge

P = ParamSpec("P")
T = TypeVar("T")
AnyStep = Step[Any]


def once(make: Callable[Concatenate[Line, P], T]) -> Callable[Concatenate[Line, P], T]:
    """Remember what a method of a line returned."""

    @wraps(make)
    def known(self: Line, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = (make.__name__, *args, *kwargs.items())
        if asked not in self.known:
            self.known[asked] = make(self, *args, **kwargs)
        return cast(T, self.known[asked])

    return known


class Line:
    """All steps of one recipe on one profile. Variants are asked for by name; None is the untrained student."""

    def __init__(self, recipe: Recipe, place: Profile, store: ArtifactStore) -> None:
        pinned = pin(recipe, place)
        recipe, self.place, self.store = pinned.recipe, pinned.place, store
        self.recipe = split_by(recipe, recipe.splits[0]) if recipe.splits else recipe
        self.earlier: Line | None = None  # that of the look or the split before
        self.unpinned = pinned.unknown  # models whose commit is not known, since the hub cannot be reached
        self.variants = variants_of(self.recipe)
        self.scored = scored_variants(self.recipe)  # the others are stages that these continue
        self.members = training_order(self.recipe)  # each after the one that it continues
        self.known: dict[tuple[object, ...], object] = {}

    @once
    def source(self, given: str, config: str | None, split: str) -> Source:
        """What `data.train` names today."""
        return resolve_source(given, self.store, config, split)

    def source_of(self, variant: str) -> Source | None:
        """Where a variant's rows come from; None if they are generated."""
        data = self.variants[variant].data
        return None if data.train is None else self.source(data.train, data.config, data.split)

    @once
    def shards(self, variant: str) -> list[Step[WriteShard]]:
        """The rows that the generator writes, in parts that are each committed when done."""
        own, engine, problem = self.variants[variant], self.place.roles.generator, self.recipe.problem
        if (settings := own.generation) is None:
            raise ReseedError(f"recipe '{own.recipe}': it has no generation section, so there is nothing to generate")
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p)
        pairs, size = draw_pairs(settings), shard_size(settings, self.place)
        works = [
            WriteShard(problem, engine, sampling, self.place.engines.batch_size, number, tuple(pairs[start:start + size]))
            for number, start in enumerate(range(0, len(pairs), size))
        ]  # fmt: skip
        return [Step(work, own.recipe, seed=settings.seed) for work in works]

    @once
    def rows(self, variant: str) -> Step[JoinShards] | Step[Import]:
        """The raw rows: those of a source that exists, or those that the generator writes."""
        own = self.variants[variant]
        if (source := self.source_of(variant)) is None:
            inputs = {f"shard {number}": shard.artifact for number, shard in enumerate(self.shards(variant))}
            return Step(JoinShards(self.recipe.problem), own.recipe, inputs)
        of_store = {"source": source.artifact} if source.artifact is not None else {}
        return Step(Import(self.recipe.problem, source, own.data.columns), own.recipe, of_store)

    @once
    def curated(self, variant: str) -> Step[Curate]:
        """The rows that are fit to train on."""
        own = self.variants[variant]
        work = Curate(self.recipe.problem, self.place.student(own.model))
        return Step(work, own.recipe, {"rows": self.rows(variant).artifact})

    @once
    def partition(self, variant: str) -> Step[Partition]:
        """Train, validation and test rows."""
        own = self.variants[variant]
        return Step(Partition(own.data), own.recipe, {"curated": self.curated(variant).artifact}, own.data.seed)

    @once
    def adapter(self, member: Member) -> Step[Train]:
        """What a member learns."""
        own = self.variants[member.variant]
        inputs, start = {"partition": self.partition(member.variant).artifact}, self.start(member)
        work = training_of(own, self.place, member, self.recipe.problem)
        return Step(work, f"{own.recipe}-{member.variant}", inputs | ({"start": start} if start else {}), member.seed)

    def start(self, member: Member) -> Artifact | None:
        """The adapter that a member continues: another member's, or one that an earlier run stored."""
        before = start_of(self.variants[member.variant], member)
        return self.adapter(before).artifact if before is not None else self.stored_start(member.variant)

    @once
    def stored_start(self, variant: str) -> Artifact | None:
        """The adapter of an earlier run that a variant's members continue."""
        own = self.variants[variant]
        return stored_start(self.store, variant, own.training, student(own, self.place))

    @once
    def answers(self, member: Member | None) -> Step[Predict]:
        """A member's answers to the held-out rows; the untrained student answers the baseline's."""
        variant = member.variant if member is not None else self.recipe.first
        own = self.variants[variant]
        work = Predict(
            own.problem, student(own, self.place), own.prediction.max_new_tokens, own.training.max_tokens,
            self.place.engines.batch_size, prompt_format(own.training),
        )  # fmt: skip
        inputs = {"partition": self.partition(variant).artifact}
        return Step(work, own.recipe, inputs | ({"adapter": self.adapter(member).artifact} if member else {}))

    @once
    def ensemble(self, variant: str) -> Step[Blend]:
        """The blend of a variant's members."""
        own = sorted(member for member in self.answering() if member.variant == variant)
        inputs = {f"predictions {member}": self.answers(member).artifact for member in own}
        return Step(Blend(self.recipe.problem), f"{self.recipe.name}-{variant}", inputs)

    @once
    def results(self) -> Step[Score]:
        """The scores of everything."""
        recipe, members, seeds = self.recipe, self.answering(), self.recipe.seeds
        before = self.earlier.results().artifact if self.earlier else None
        inputs = score_inputs(
            {
                name: self.partition(name).artifact
                for name in sorted(self.scored, key=lambda name: name != recipe.first)
            },
            {member: self.adapter(member).artifact for member in members},
            {None: self.answers(None).artifact, **{member: self.answers(member).artifact for member in members}},
            {name: self.ensemble(name).artifact for name in self.scored},
            before,
        )
        asked = Asked(
            recipe.question, recipe.problem, self.place.roles.embedder, recipe.constants, tuple(members),
            recipe.first if recipe.first in self.scored else self.scored[0], recipe.delta,
            LookPlan(len(seeds), seeds.before, seeds.most) if seeds.looks else None,
            split_plan(recipe),
        )  # fmt: skip
        return Step(Score(asked, tuple(recipe.variants)), recipe.name, inputs)

    @once
    def report(self) -> Step[Report]:
        """The pages."""
        return report_step(self.results().artifact)

    def answering(self) -> list[Member]:
        """The members that are scored, in the recipe's order."""
        return [member for member in self.recipe.members() if member.variant in self.scored]

    def generating(self) -> list[str]:
        """The variants whose rows the generator writes."""
        return [name for name, own in self.variants.items() if own.data.train is None]

    def all_shards(self) -> list[Step[WriteShard]]:
        """Of all variants that generate, each once."""
        return different(shard for name in self.generating() for shard in self.shards(name))

    def needed_shards(self) -> list[Step[WriteShard]]:
        """Those of rows that are not stored: what was joined once is not generated again, whatever became of its parts."""
        rows = {name: self.rows(name).artifact for name in self.generating()}
        stored = self.store.finished(rows.values())
        return different(shard for name, made in rows.items() if made not in stored for shard in self.shards(name))

    def preparing(self) -> list[AnyStep]:
        """Rows, curated rows and partitions of all variants, each once."""
        return different(
            step for name in self.variants for step in (self.rows(name), self.curated(name), self.partition(name))
        )

    def adapters(self) -> list[Step[Train]]:
        """Of all members, each once and after the one that it continues."""
        return different(self.adapter(member) for member in self.members)

    def all_answers(self) -> list[Step[Predict]]:
        """Of the untrained student, then of the members."""
        return different(self.answers(member) for member in (None, *self.answering()))

    def ensembles(self) -> list[Step[Blend]]:
        """Of all variants."""
        return different(self.ensemble(name) for name in self.scored)

    def steps(self) -> list[AnyStep]:
        """Every step once, each after those that it rests on."""
        ordered: list[AnyStep] = [*self.all_shards(), *self.preparing(), *self.adapters(), *self.all_answers()]
        return [*ordered, *self.ensembles(), self.results(), self.report()]


StepT = TypeVar("StepT", bound=AnyStep)


def split_plan(recipe: Recipe) -> SplitPlan | None:
    """Which of the recipe's splits its `data.seed` is; None where the rows are split once."""
    if not recipe.splits:
        return None
    return SplitPlan(recipe.data.seed, recipe.splits.index(recipe.data.seed) + 1, len(recipe.splits))


def different(steps: Iterable[StepT]) -> list[StepT]:
    """Each artifact's step once, in their order."""
    return list({step.artifact: step for step in steps}.values())


def plan_line(recipe: Recipe, place: Profile, store: ArtifactStore) -> Line:
    """The line with every step made, so that all mistakes show. Raises ReseedError for settings that the profile's
    workers cannot run."""
    load_problem(recipe.problem)
    line = Line(recipe, place, store)
    for variant in line.variants.values():
        micro_batch(variant.training.batch_size, place.training.workers, place.training.micro_batch_size)
        check_place(variant.training, place.student(variant.model), cuda=place.training.gpus > 0)
    line.steps()
    refuse_twins(line)
    return line


def refuse_twins(line: Line) -> None:
    """Refuse two variants that would be one: their comparison would say "no difference" of a question never asked."""
    seen: dict[str, str] = {}
    for member in line.answering():
        twin = seen.setdefault(line.answers(member).artifact.key, member.variant)
        if twin != member.variant:
            raise ReseedError(
                f"variants '{twin}' and '{member.variant}' of recipe '{line.recipe.name}' do the same on profile "
                f"'{line.place.name}', so there is nothing to compare; let them differ in what is not overridden there "
                f"(by the profile's student, or by --set), or leave one out: --set 'variants={{{twin}: {{}}}}'"
            )


def shard_size(settings: GenerationSettings, place: Profile) -> int:
    """Rows of a shard, which is one engine's batch: fewer than it takes at once would leave it half empty."""
    return settings.shard_rows or place.engines.batch_size


def training_of(variant: Variant, place: Profile, member: Member, scored_by: ProblemModule) -> Train:
    """What makes a member of a variant, in a recipe whose problem scores it."""
    return Train(
        problem=variant.problem,
        model=student(variant, place).model_copy(update={"engine": ENGINE}),  # which trains nothing
        settings=variant.training,
        workers=place.training.workers,
        micro_batch_size=place.training.micro_batch_size,
        judge=judge_of(variant, place, scored_by),
        member=member,
        experiment=variant.recipe,
    )


def judge_of(variant: Variant, place: Profile, scored_by: ProblemModule) -> Judge | None:
    """Who scores a member's answers while it trains, or None where the loss alone chooses the best step."""
    if variant.training.choose_by == "loss":
        return None
    higher, other = load_problem(scored_by).higher_is_better, scored_by if variant.problem != scored_by else None
    return Judge(place.roles.embedder, variant.prediction.max_new_tokens, higher, other)
