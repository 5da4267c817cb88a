"""The line, planned: every step of a recipe with the key of what it will write, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reseed.data.sources import Source, draw_pairs, resolve_source
from reseed.files import digest
from reseed.models.names import FourBit, ModelSpec, has_soft_cap, identity
from reseed.problems import load_problem, problem_identity
from reseed.profile import Profile
from reseed.recipe import GenerationSettings, Recipe
from reseed.records import Artifact, Member, ReseedError
from reseed.stages import scored_variants, start_of, training_order, variants_of
from reseed.steps import Step
from reseed.store import ArtifactStore
from reseed.trained import stored_start
from reseed.training.arguments import check_place, micro_batch
from reseed.training.prompts import RENDERING, prompt_format


@dataclass(frozen=True)
class Line:
    """All steps of one experiment. Variants that agree on a step share it."""

    shards: tuple[Step, ...]
    rows: dict[str, Step]  # variant → raw rows
    curated: dict[str, Step]
    partitions: dict[str, Step]
    members: dict[Member, Step]
    predictions: dict[Member | None, Step]  # None: the untrained student
    results: Step

    def steps(self) -> list[Step]:
        """Every step once, in the order in which they run."""
        ordered = [
            *self.shards, *self.rows.values(), *self.curated.values(), *self.partitions.values(),
            *self.members.values(), *self.predictions.values(), self.results,
        ]  # fmt: skip
        return list({step.artifact: step for step in ordered}.values())


def plan_line(recipe: Recipe, profile: Profile, store: ArtifactStore) -> Line:
    """Every step's key, computed from the recipe, the profile's models, and the sources' content. Raises ReseedError for
    settings that the profile's workers cannot run."""
    load_problem(recipe.problem)
    variants = variants_of(recipe)
    for variant in variants.values():
        micro_batch(variant.training.batch_size, profile.training.workers, profile.training.micro_batch_size)
        check_place(variant.training, profile.student(variant.model), cuda=profile.training.gpus > 0)
    shards: dict[Artifact, Step] = {}
    rows, curated, partitions = {}, {}, {}
    members: dict[Member, Step] = {}
    predictions: dict[Member | None, Step] = {}
    for name, variant in variants.items():
        if variant.data.train is not None:
            rows[name] = import_step(variant, resolve_source(variant.data.train, store))
        else:
            own = shard_steps(variant, profile)
            shards.update({step.artifact: step for step in own})
            rows[name] = generate_step(variant, own)
        curated[name] = curate_step(variant, profile, rows[name].artifact)
        partitions[name] = partition_step(variant, curated[name].artifact)
    scored = scored_variants(recipe)
    stored = {n: stored_start(store, n, v.training, student(v, profile)) for n, v in variants.items()}
    for member in training_order(recipe):
        variant, rows_of = variants[member.variant], partitions[member.variant].artifact
        before = start_of(variant, member)
        start = members[before].artifact if before is not None else stored[member.variant]
        members[member] = train_step(variant, profile, rows_of, member, start)
        if member.variant in scored:
            predictions[member] = predict_step(variant, profile, rows_of, members[member].artifact)
    refuse_twins(recipe, profile, predictions)
    first = variants[recipe.first]
    test = partitions[recipe.first].artifact
    predictions[None] = predict_step(first, profile, test, None)
    results = results_step(recipe, profile, partitions, members, predictions)
    return Line(tuple(shards.values()), rows, curated, partitions, members, predictions, results)


def refuse_twins(recipe: Recipe, profile: Profile, predictions: Mapping[Member | None, Step]) -> None:
    """Refuse two variants that would be one: their comparison would say "no difference" of a question never asked."""
    seen: dict[str, str] = {}
    for member, step in predictions.items():
        if member is None:
            continue
        twin = seen.setdefault(step.artifact.key, member.variant)
        if twin != member.variant:
            raise ReseedError(
                f"variants '{twin}' and '{member.variant}' of recipe '{recipe.name}' do the same on profile "
                f"'{profile.name}', so there is nothing to compare; let them differ in what is not overridden there (by "
                f"the profile's student, or by --set), or leave one out: --set 'variants={{{twin}: {{}}}}'"
            )


def shard_steps(recipe: Recipe, profile: Profile) -> list[Step]:
    """One step for every shard of pairs; its key holds model, sampling, seed, the pairs' content, and how the model's
    chat template is used. The template itself is a part of the model."""
    settings = recipe.generation
    if settings is None:
        raise ReseedError(f"recipe '{recipe.name}': it has no generation section, so there is nothing to generate")
    pairs = draw_pairs(settings)
    steps = []
    size = shard_size(settings, profile)
    for number, start in enumerate(range(0, len(pairs), size)):
        ids = [pair.id for pair in pairs[start : start + size]]
        spec = {
            "problem": problem_identity(recipe.problem),
            "model": identity(profile.roles.generator),
            "rendering": RENDERING,
            "sampling": settings.model_dump(include={"max_new_tokens", "temperature", "top_p"}),
            "batch_size": profile.engines.batch_size,  # sampled text depends on which rows share a batch
            "shard": number,
            "pairs": digest(ids),
            **attention(profile.roles.generator),
        }
        steps.append(Step("generate", 1, "shard", recipe.name, spec, seed=settings.seed))
    return steps


def shard_size(settings: GenerationSettings, profile: Profile) -> int:
    """Rows of a shard, which is one engine's job: fewer than its batch would leave it half empty."""
    return settings.shard_rows or profile.engines.batch_size


def generate_step(recipe: Recipe, shards: Sequence[Step]) -> Step:
    """All shards' rows together."""
    inputs = {f"shard {number}": step.artifact for number, step in enumerate(shards)}
    return Step("generate", 1, "rows", recipe.name, {"problem": problem_identity(recipe.problem)}, inputs)


def import_step(recipe: Recipe, source: Source) -> Step:
    """The rows of a source that exists. Only its content counts: a file that moved is the same source."""
    inputs = {"source": source.artifact} if source.artifact is not None else {}
    spec = {"problem": problem_identity(recipe.problem), "content": source.content, "columns": recipe.data.columns}
    return Step("import", 1, "rows", recipe.name, spec, inputs)


def curate_step(recipe: Recipe, profile: Profile, rows: Artifact) -> Step:
    """The rows that are fit to train on. The dataset table counts in the student's tokens."""
    spec = {"problem": problem_identity(recipe.problem), "tokenizer": identity(profile.student(recipe.model))["name"]}
    return Step("curate", 1, "curated", recipe.name, spec, {"rows": rows})


def partition_step(recipe: Recipe, curated: Artifact) -> Step:
    """Train, validation and test rows."""
    spec = recipe.data.model_dump(exclude={"train", "columns", "seed"})
    return Step("partition", 1, "partition", recipe.name, spec, {"curated": curated}, recipe.data.seed)


def train_step(
    recipe: Recipe, profile: Profile, partition: Artifact, member: Member, start: Artifact | None = None
) -> Step:
    """One member's adapter, which goes on from the adapter `start`, if any, whatever its variant is called.

    The number of workers and their micro-batches shape the last bits, so they count.
    """
    spec = {
        "problem": problem_identity(recipe.problem),
        "model": identity(student(recipe, profile)),
        "training": recipe.training.model_dump(mode="json", exclude={"start_from"}),
        "workers": profile.training.workers,
        "micro_batch_size": profile.training.micro_batch_size,
        **rendering(recipe),
    }
    name = f"{recipe.name}-{member.variant}"
    if recipe.training.choose_by == "metric":
        spec["judge"] = {"embedder": identity(profile.roles.embedder), **recipe.prediction.model_dump()}
    inputs = {"partition": partition} | ({"start": start} if start is not None else {})
    return Step("train", 3, "adapter", name, spec, inputs, member.seed)


def predict_step(recipe: Recipe, profile: Profile, partition: Artifact, adapter: Artifact | None) -> Step:
    """The held-out rows answered by the student with one adapter, or by the untrained student."""
    spec = {
        "problem": problem_identity(recipe.problem),
        "model": identity(student(recipe, profile)),
        "sampling": recipe.prediction.model_dump(),
        "max_tokens": recipe.training.max_tokens,
        "batch_size": profile.engines.batch_size,  # even greedy text depends on which rows share a batch
        **rendering(recipe),
        **attention(student(recipe, profile)),
    }
    spec |= recipe.training.model_dump(include={"prompt_format", "system"}, exclude_defaults=True)
    inputs = {"partition": partition} | ({"adapter": adapter} if adapter is not None else {})
    return Step("predict", 1, "predictions", recipe.name, spec, inputs)


def results_step(
    recipe: Recipe,
    profile: Profile,
    partitions: Mapping[str, Step],
    members: Mapping[Member, Step],
    predictions: Mapping[Member | None, Step],
) -> Step:
    """The scores and the report. Its inputs are everything that a number in it came from, at first hand."""
    scored = scored_variants(recipe)
    spec: dict[str, Any] = {
        "problem": problem_identity(recipe.problem),
        "question": recipe.question,
        "embedder": identity(profile.roles.embedder),
        "constants": list(recipe.constants),
        "variants": list(recipe.variants),  # their order, and which is compared with the untrained student
        "baseline": recipe.baseline,
    }
    inputs = {f"partition {name}": step.artifact for name, step in partitions.items() if name in scored}
    inputs |= {f"adapter {member}": step.artifact for member, step in members.items() if member.variant in scored}
    inputs |= {f"predictions {member or 'untrained'}": step.artifact for member, step in predictions.items()}
    return Step("score", 2, "results", recipe.name, spec, inputs)


def rendering(recipe: Recipe) -> dict[str, int]:
    """How chat templates are used, for steps whose student reads one."""
    return {"rendering": RENDERING} if prompt_format(recipe.training).templated else {}


def attention(spec: ModelSpec) -> dict[str, int]:
    """Marks answers of a model whose attention may have a soft cap: it was once left out."""
    return {"attention": 2} if has_soft_cap(spec) else {}


def student(recipe: Recipe, profile: Profile) -> ModelSpec:
    """The model that a variant trains, in the form it is trained and predicts in."""
    training = recipe.training
    four_bit: FourBit | None = None
    if training.method == "qlora":
        four_bit = "nf4-double" if training.double_quantization else "nf4"
    separate = bool({"gate_proj", "up_proj", "down_proj"} & set(training.targets))
    return profile.student(recipe.model).model_copy(update={"four_bit": four_bit, "separate_experts": separate})
