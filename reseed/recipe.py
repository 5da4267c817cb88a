"""A recipe: one experiment as data. It states the question it answers, the variants it compares, and the seeds."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reseed.records import Member, ReseedError

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


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
    shard_rows: int = Field(32, ge=1)
    seed: int = 0


class Holdout(Section):
    """Rows kept out of training: whole groups, until `fraction` of the rows is reached."""

    fraction: float = Field(gt=0, lt=1)
    group_by: str


class DataSettings(Section):
    """Where rows come from and how they are split. Without `train`, the rows are generated."""

    train: str | None = None  # store name@ref, path, URL, or hub id
    limit: int | None = Field(None, ge=1)  # rows used, after curation, drawn with `seed`
    validation: Holdout  # chooses the best step
    test: Holdout  # the held-out rows that are scored
    seed: int = 0


class TrainingSettings(Section):
    """How one member is trained. `batch_size` counts rows a step over all workers."""

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(0, ge=0)
    batch_size: int = Field(8, ge=1)
    evaluate_every: int = Field(10, ge=1)
    max_tokens: int = Field(512, ge=16)
    loss_on: Literal["completion", "all"] = "completion"
    zero_stage: Literal[2] = 2


class PredictionSettings(Section):
    """How the student answers the held-out rows; greedy, because a result must be repeatable."""

    max_new_tokens: int = Field(32, ge=1)


class Recipe(Section):
    """One experiment."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    problem: str
    question: str
    generation: GenerationSettings | None = None
    data: DataSettings
    model: str | None = None  # the profile's student wins, see DESIGN's order of precedence
    training: TrainingSettings = TrainingSettings()
    prediction: PredictionSettings = PredictionSettings()
    constants: tuple[str, ...] = ()  # fixed answers scored beside the model
    variants: dict[str, dict[str, Any]] = Field(default={"default": {}})
    baseline: str | None = None
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)

    @field_validator("seeds")
    @classmethod
    def _seeds_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            raise ValueError(f"seed {twice[0]} stands twice; name every seed once")
        return seeds

    @model_validator(mode="after")
    def _parts_agree(self) -> Recipe:
        if self.data.train is None and self.generation is None:
            raise ValueError("no rows: give data.train, or a generation section")
        if self.data.validation.fraction + self.data.test.fraction >= 1:
            raise ValueError("data.validation.fraction and data.test.fraction leave no row to train on")
        if not self.variants:
            raise ValueError("variants: at least one is needed; leave the key out for a single one")
        if self.baseline is not None and self.baseline not in self.variants:
            raise ValueError(f"baseline '{self.baseline}' is none of the variants {', '.join(self.variants)}")
        return self

    def members(self) -> list[Member]:
        """Every (variant, seed), in the order they are written."""
        return [Member(variant, seed) for variant in self.variants for seed in self.seeds]

    def variant(self, name: str) -> Recipe:
        """The recipe with one variant's overrides applied."""
        values = merge(self.model_dump(exclude={"variants", "baseline"}), self.variants[name])
        return validate(values, f"recipe '{self.name}', variant '{name}'")


def load_recipe(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe in file `name`, or the shipped recipe of that name, with `a.b=c` overrides applied last.

    Raises ReseedError with every mistake at once: key, value seen, what was wanted, nearest valid name.
    """
    path = find_recipe(name)
    values = read_yaml(path)
    for override in overrides:
        values = merge(values, parse_override(override))
    recipe = validate(values, f"recipe {path.name}")
    for variant in recipe.variants:
        recipe.variant(variant)
    return recipe


def find_recipe(name: str) -> Path:
    """A YAML file by its path, or a shipped recipe by its name."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise ReseedError(
        f"recipe '{name}': no such file, and no recipe of that name{nearest(name, shipped)}; there is {', '.join(shipped)}"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReseedError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ReseedError(f"{path}: wanted a mapping of keys, saw {type(values).__name__}")
    return values


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as a nested mapping; the value is read as YAML, so that 3 is a number and [1, 2] a list."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ReseedError(f"--set {text}: wanted key=value, as in --set training.epochs=2")
    nested: Any = yaml.safe_load(value)
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def split_overrides(overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The recipe's overrides, and the profile's, which begin with `profile.`."""
    own = tuple(text for text in overrides if not text.startswith("profile."))
    place = tuple(text.removeprefix("profile.") for text in overrides if text.startswith("profile."))
    return own, place


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, section by section; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and key != "variants":
            merged[key] = merge(base[key], value)
        else:
            merged[key] = value
    return merged


def validate(values: dict[str, Any], where: str) -> Recipe:
    """A checked recipe, or one ReseedError that names every mistake."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ReseedError(explain(error, Recipe, where)) from None


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A validation error as lines: key, what is wrong, the value seen, and the nearest valid name."""
    lines = [f"{where}: {error.error_count()} mistake(s)"]
    for mistake in error.errors():
        place = tuple(str(part) for part in mistake["loc"])
        key = ".".join(place) or "recipe"
        if mistake["type"] == "extra_forbidden":
            known = field_names(model, place[:-1])
            lines.append(f"  {key}: unknown key{nearest(place[-1], known)}; known here: {', '.join(known)}")
        elif mistake["type"] == "missing":
            lines.append(f"  {key}: missing")
        else:
            message = mistake["msg"].removeprefix("Value error, ")
            seen = "" if isinstance(mistake["input"], dict | BaseModel) else f", saw {mistake['input']!r}"
            lines.append(f"  {key}: {message}{seen}")
    return "\n".join(lines)


def field_names(model: type[BaseModel], place: tuple[str, ...]) -> list[str]:
    """The keys that are valid at a place inside a model."""
    for part in place:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return list(model.model_fields)


def nearest(name: str, known: list[str]) -> str:
    """` (did you mean 'x'?)`, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
