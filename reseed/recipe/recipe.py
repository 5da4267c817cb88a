"""A recipe: one experiment as data. It states the question, the variants to compare, and the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, PlainValidator, ValidationError, model_validator

from reseed.mistakes import mistake_list, mistakes, nearest
from reseed.problems import ProblemModule
from reseed.recipe.seeds import Seeds, as_seeds
from reseed.recipe.values import merge
from reseed.records import Member, ReseedError
from reseed.settings import DataSettings, GenerationSettings, PredictionSettings, Section, TrainingSettings

# What a variant or a profile may change; everything else is shared. A variant may also have a problem of its own.
VARIABLE = ("generation", "data", "model", "training", "prediction")
OF_VARIANTS = (*VARIABLE, "problem")

SplitSeed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


def as_module(value: object) -> ProblemModule:
    """A recipe's problem, which `load_recipe` has found by then; a validator."""
    if isinstance(value, ProblemModule):
        return value
    if not isinstance(value, str):
        raise ValueError("wanted the name of a problem")
    return ProblemModule(value)


class Variant(Section):
    """What is trained and scored together: the recipe's settings with one variant's changes applied.

    Its problem says what the student reads and writes. The rows, the blend and the scores are the recipe's problem's, so that
    variants remain comparable.
    """

    recipe: str
    problem: ProblemModule
    generation: GenerationSettings | None
    data: DataSettings
    model: str | None
    training: TrainingSettings
    prediction: PredictionSettings


class Recipe(Section):
    """One experiment."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    problem: Annotated[ProblemModule, PlainValidator(as_module)]
    question: str
    generation: GenerationSettings | None = None
    data: DataSettings
    model: str | None = None  # the profile's student wins, see "Later wins" in the README
    training: TrainingSettings = TrainingSettings()
    prediction: PredictionSettings = PredictionSettings()
    constants: tuple[str, ...] = ()  # fixed answers that are scored beside the model
    profiles: dict[str, dict[str, Any]] = Field(default={})  # profile → its changes, applied before a variant's
    variants: dict[str, dict[str, Any]] = Field(default={"default": {}})
    baseline: str | None = None
    delta: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # the smallest difference that matters
    seeds: Annotated[Seeds, PlainValidator(as_seeds)] = Seeds((0, 1, 2))
    splits: tuple[SplitSeed, ...] = ()  # of the rows: data.seed of each, where they are split several times

    @model_validator(mode="after")
    def _parts_agree(self) -> Recipe:
        wrong = []
        if self.data.train is None and self.generation is None:
            wrong.append("data.train: no rows: give data.train, or a generation section")
        if self.data.validation.fraction + self.data.test.fraction >= 1:
            wrong.append(
                "data.test.fraction: with data.validation.fraction it leaves no row to train on; wanted a sum below 1"
            )
        if self.prediction.max_new_tokens >= self.training.max_tokens:
            wrong.append(
                f"prediction.max_new_tokens: {self.prediction.max_new_tokens} leave no room for a prompt in "
                f"training.max_tokens, {self.training.max_tokens}; lower one or raise the other"
            )
        if not self.variants:
            wrong.append("variants: at least one is needed; leave the key out for a single one")
        wrong += baseline_mistakes(self.baseline, self.variants)
        wrong += split_mistakes(self)
        wrong += [
            f"variants.{name}: a name without '/', and neither untrained nor best constant, as comparisons call other things so"
            for name in self.variants
            if "/" in name or name in ("untrained", "best constant")
        ]
        for what, sections, may in (("variant", self.variants, OF_VARIANTS), ("profile", self.profiles, VARIABLE)):
            wrong += [
                f"{what}s.{name}.{key}: a {what} cannot change what all share; it can change {', '.join(may)}"
                for name, changes in sections.items()
                for key in changes
                if key in type(self).model_fields and key not in may
            ]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def first(self) -> str:
        """The variant that the others are compared with: the baseline, else the first."""
        return self.baseline or next(iter(self.variants))

    def members(self) -> list[Member]:
        """Every (variant, seed), in the recipe's order."""
        return [Member(variant, *run) for variant in self.variants for run in self.seeds.runs]

    def variant(self, name: str) -> Variant:
        """One variant with all its settings."""
        shared = self.model_dump(exclude={"profiles", "variants", "baseline", "problem", "seeds", "splits"})
        shared["problem"] = self.problem  # the module itself, not the mapping that model_dump makes of it
        whole = validate(merge(shared, self.variants[name]), f"recipe '{self.name}', variant '{name}'")
        return Variant(recipe=self.name, **{part: getattr(whole, part) for part in OF_VARIANTS})


def split_mistakes(recipe: Recipe) -> list[str]:
    """What is wrong with several splits of the rows."""
    splits, seeds = recipe.splits, recipe.seeds
    if not splits:
        return []
    wrong = []
    if len(splits) < 2 or len(set(splits)) < len(splits):
        wrong.append(f"splits: {list(splits)}; wanted two values of data.seed or more that differ, as in [0, 1, 2]")
    if seeds.looks or seeds.orders or len(seeds) < 3:
        seen = "looks" if seeds.looks else "crossed ones" if seeds.orders else list(seeds.listed)
        wrong.append(
            f"seeds: {seen}, but every split is trained with the same list of them; wanted three or more, [0, 1, 2]"
        )
    if "seed" in recipe.data.model_fields_set:
        wrong.append(
            f"data.seed: {recipe.data.seed}, but the recipe's splits are the values of data.seed; leave one out"
        )
    return wrong


def split_by(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with one of its splits as its `data.seed`."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"seed": seed})})


def baseline_mistakes(baseline: object, variants: object) -> list[str]:
    """What is wrong with the baseline, even if the rest of the recipe is invalid."""
    if not isinstance(baseline, str) or not isinstance(variants, dict) or not variants or baseline in variants:
        return []
    names = [str(name) for name in variants]
    return [f"baseline: '{baseline}' is none of the variants {', '.join(names)}{nearest(baseline, names)}"]


def variable_part(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes without keys that all variants share: changing those is reported as a mistake of its own."""
    return {key: value for key, value in changes.items() if key in OF_VARIANTS or key not in Recipe.model_fields}


def validate(values: dict[str, Any], where: str) -> Recipe:
    """A checked recipe, or one ReseedError that names every mistake."""
    recipe, wrong = examine(values)
    if recipe is None or wrong:
        raise ReseedError(mistake_list(where, wrong))
    return recipe


def examine(values: dict[str, Any], elsewhere: Sequence[str] = ()) -> tuple[Recipe | None, list[str]]:
    """The recipe, whose variants are checked too, or None; and every mistake, also those found `elsewhere`: in what a
    profile changes, where a mistake is named by its place in the file."""
    recipe, wrong = try_recipe(values)
    variants = values.get("variants")
    wrong += [
        line
        for line in baseline_mistakes(values.get("baseline"), values.get("variants", {"default": {}}))
        if line not in wrong
    ]
    shared = {key: value for key, value in values.items() if key not in ("profiles", "variants", "baseline")}
    for name, changes in variants.items() if isinstance(variants, dict) else ():
        if isinstance(changes, dict):
            lines = try_recipe(merge(shared, variable_part(changes)))[1]
            wrong += [f"variants.{name}.{line}" for line in lines if line not in wrong]
    lines = [line for line in wrong if not any(other.endswith(f".{line}") for other in elsewhere)]
    return recipe, [*lines, *elsewhere]


def try_recipe(values: dict[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe, or None and what is wrong with it."""
    try:
        return Recipe.model_validate(values), []
    except ValidationError as error:
        return None, mistakes(error, Recipe)
