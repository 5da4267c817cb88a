"""A recipe: one experiment as data. It states the question it answers, the variants it compares, and the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, field_validator, model_validator

from reseed.mistakes import listed, mistakes, nearest
from reseed.problems import ProblemModule
from reseed.records import Member, ReseedError
from reseed.values import merge

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
# What a variant may change, and what may differ by profile; all else is shared.
VARIABLE = ("generation", "data", "model", "training", "prediction")


class Section(BaseModel):
    """A frozen part of a recipe that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerationSettings(Section):
    """How synthetic rows are written: `rows` pairs of a passage and a prompt, drawn evenly with `seed`."""

    passages: str = "seeds/passages.txt"
    prompts: str = "seeds/prompts.txt"
    rows: int = Field(160, ge=1)
    max_new_tokens: int = Field(96, ge=1)
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    shard_rows: int | None = Field(None, ge=1)  # rows committed together; None: what the profile's engines take at once
    seed: int = 0


class Holdout(Section):
    """Rows kept out of training: whole groups, until `fraction` of the rows is reached."""

    fraction: float = Field(gt=0, lt=1)
    group_by: str


class DataSettings(Section):
    """Where rows come from and how they are split. Without `train`, the rows are generated."""

    train: str | None = None  # store name@ref, path, URL, or hub id
    columns: dict[str, str] | None = None  # the problem's column → the source's, where they differ
    limit: int | None = Field(None, ge=1)  # rows used, after curation, drawn with `seed`
    validation: Holdout  # chooses the best step
    test: Holdout  # the held-out rows that are scored
    seed: int = 0


class TrainingSettings(Section):
    """How one member is trained. `batch_size` counts rows a step over all workers."""

    method: Literal["lora", "qlora"] = "lora"  # qlora: the base in 4 bit, a mixture's experts too
    double_quantization: bool = False  # of the 4-bit base's scales
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    rslora: bool = False  # scale by alpha / √rank instead of alpha / rank
    dora: bool = False  # learn the length of every weight's columns apart from their direction
    start_from: str | None = None  # a variant, for its member of the same seed, or adapter/NAME/KEY of an earlier run
    keep_optimizer: bool = False  # store the optimiser's state with the adapter, and take over that of `start_from`
    epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw-8bit"] = "adamw"  # 8 bit: bitsandbytes, on a GPU
    schedule: Literal["linear", "cosine", "cyclic"] = "linear"  # down to 0; cyclic: `cycles` times, along a cosine
    cycles: int = Field(3, ge=1)
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)  # 0: gradients are not clipped
    batch_size: int = Field(8, ge=1)
    evaluate_every: int = Field(10, ge=1)
    choose_by: Literal["loss", "metric"] = "loss"  # metric: the problem's, of greedy answers to `metric_rows` rows
    metric_rows: int = Field(32, ge=1)
    patience: int | None = Field(None, ge=1)  # evaluations without a better one, after which training stops
    gradient_checkpointing: bool = False  # a third more time, a fraction of the activations' memory
    max_tokens: int = Field(512, ge=16)
    too_long: Literal["shorten", "drop"] = "shorten"  # a row of more tokens: its source text is cut, or it is left out
    prompt_format: Literal["text", "chat"] = "text"  # the problem's own text, or the model's chat template
    system: str | None = None
    loss_on: Literal["completion", "all", "weighted"] = "completion"
    prompt_weight: float = Field(0.1, gt=0, le=1)  # with `weighted`: what a prompt's token counts, an answer's counts 1
    packing: bool = False  # several rows in one sequence, none of which sees another
    group_by_length: bool = False  # pads less, but rows then meet rows of their own length; packing pads less still
    zero_stage: Literal[1, 2, 3] = 2
    offload: Literal["none", "optimizer", "parameters"] = "none"  # into CPU memory; with the parameters, both

    @model_validator(mode="after")
    def _settings_agree(self) -> TrainingSettings:
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError(
                "offload 'parameters' needs zero_stage 3, which divides the parameters among the workers, "
                f"saw {self.zero_stage}; set zero_stage: 3, or offload: optimizer"
            )
        if self.offload != "none" and self.optimizer != "adamw":
            raise ValueError(
                f"offload '{self.offload}' steps the optimiser on the CPU, where optimizer '{self.optimizer}' does not "
                "run; set optimizer: adamw, or offload: none"
            )
        if self.keep_optimizer and self.zero_stage == 3:
            raise ValueError(
                "keep_optimizer stores the optimiser's state of every weight whole, which zero_stage 3 holds nowhere; "
                "set zero_stage: 2, or leave keep_optimizer out"
            )
        return self


class PredictionSettings(Section):
    """How the student answers the held-out rows; greedy, because a result must be repeatable."""

    max_new_tokens: int = Field(32, ge=1)


def as_module(value: object) -> ProblemModule:
    """A problem as a recipe names it; `load_recipe` has found it by then."""
    if isinstance(value, ProblemModule):
        return value
    if not isinstance(value, str):
        raise ValueError("wanted the name of a problem")
    return ProblemModule(value)


class Variant(Section):
    """What is trained and scored together, the recipe's settings with one variant's changes laid on them."""

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
    constants: tuple[str, ...] = ()  # fixed answers scored beside the model
    profiles: dict[str, dict[str, Any]] = {}  # profile → what differs there; laid on before the variants
    variants: dict[str, dict[str, Any]] = Field(default={"default": {}})
    baseline: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)

    @field_validator("seeds")
    @classmethod
    def _seeds_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("wanted at least one seed")
        if strange := [seed for seed in seeds if not 0 <= seed < 2**32]:
            raise ValueError(f"seed {strange[0]} is no seed for NumPy; wanted 0 to {2**32 - 1}")
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            raise ValueError(f"seed {twice[0]} stands twice; name every seed once")
        return seeds

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
        for what, sections in (("variant", self.variants), ("profile", self.profiles)):
            wrong += [
                f"{what}s.{name}.{key}: a {what} cannot change what all share; it can change {', '.join(VARIABLE)}"
                for name, changes in sections.items()
                for key in changes
                if key in type(self).model_fields and key not in VARIABLE
            ]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def first(self) -> str:
        """The variant that the others are compared with: the baseline, else the one that is written first."""
        return self.baseline or next(iter(self.variants))

    def members(self) -> list[Member]:
        """Every (variant, seed), in the order they are written."""
        return [Member(variant, seed) for variant in self.variants for seed in self.seeds]

    def variant(self, name: str) -> Variant:
        """One variant."""
        values = merge(self.model_dump(exclude={"profiles", "variants", "baseline", "problem"}), self.variants[name])
        values["problem"] = self.problem  # as it was found, and not as a mapping
        whole = validate(values, f"recipe '{self.name}', variant '{name}'")
        return Variant(recipe=self.name, problem=self.problem, **{part: getattr(whole, part) for part in VARIABLE})


def baseline_mistakes(baseline: object, variants: object) -> list[str]:
    """What is wrong with the baseline, also where the rest of the recipe is no recipe yet."""
    if not isinstance(baseline, str) or not isinstance(variants, dict) or not variants or baseline in variants:
        return []
    names = [str(name) for name in variants]
    return [f"baseline: '{baseline}' is none of the variants {', '.join(names)}{nearest(baseline, names)}"]


def variable(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes without what all variants and profiles share, which is told as a mistake of its own."""
    return {key: value for key, value in changes.items() if key in VARIABLE or key not in Recipe.model_fields}


def validate(values: dict[str, Any], where: str, elsewhere: Sequence[str] = ()) -> Recipe:
    """A checked recipe whose variants are checked too, or one ReseedError that names every mistake, also those found
    `elsewhere`: in what a profile changes, where a mistake is told by its place in the file."""
    recipe, wrong = attempt(values)
    variants = values.get("variants")
    wrong += [
        line
        for line in baseline_mistakes(values.get("baseline"), values.get("variants", {"default": {}}))
        if line not in wrong
    ]
    shared = {key: value for key, value in values.items() if key not in ("profiles", "variants", "baseline")}
    for name, changes in variants.items() if isinstance(variants, dict) else ():
        if isinstance(changes, dict):
            lines = attempt(merge(shared, variable(changes)))[1]
            wrong += [f"variants.{name}.{line}" for line in lines if line not in wrong]
    told = [line for line in wrong if not any(other.endswith(f".{line}") for other in elsewhere)] + list(elsewhere)
    if recipe is None or told:
        raise ReseedError(listed(where, told))
    return recipe


def attempt(values: dict[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe, or None and its mistakes."""
    try:
        return Recipe.model_validate(values), []
    except ValidationError as error:
        return None, mistakes(error, Recipe)
