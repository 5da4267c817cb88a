"""A profile: where a recipe runs, and which model plays which role."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from reseed.mistakes import mistake_list, mistakes, nearest
from reseed.models.names import ENGINE, FourBit, ModelSpec
from reseed.recipe.recipe import Variant
from reseed.recipe.values import merge, parse_override, read_yaml
from reseed.records import ReseedError
from reseed.settings import Section

PROFILES = Path(__file__).resolve().parents[2] / "infra" / "profiles"


class Roles(Section):
    """The models by role. Without a `student`, the recipe's own model is trained."""

    generator: ModelSpec
    embedder: ModelSpec
    student: ModelSpec | None = None

    @model_validator(mode="after")
    def _student_as_it_is(self) -> Roles:
        if self.student is not None and (self.student.four_bit or self.student.separate_experts):
            raise ValueError(
                "student: the recipe decides how it is held in memory; leave four_bit and separate_experts out, and set "
                "training.method: qlora or training.targets in the recipe"
            )
        if self.embedder.engine != ENGINE:
            raise ValueError(
                f"embedder: engine '{self.embedder.engine}' writes text, and an embedder writes none; leave it out"
            )
        return self


class EnginePool(Section):
    """Actors that generate or predict, and how many rows each takes at once."""

    actors: int = Field(1, ge=1)
    cpus: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)


class TrainingPool(Section):
    """Ray Train workers of one member. A worker takes `micro_batch_size` rows at once."""

    workers: int = Field(1, ge=1)
    cpus: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0)
    gpu_memory_gib: float | None = Field(None, gt=0)  # of one card, if it is on another machine
    micro_batch_size: int = Field(4, ge=1)


class Profile(Section):
    """Where a recipe runs."""

    name: str
    store: str = ".reseed/store"  # a folder, or s3://bucket/prefix
    ray_address: str | None = None  # None: a local Ray in the flow's process
    ray_dashboard: bool = False  # of a local Ray, on loopback; it takes ten processes
    cpus: int | None = Field(None, ge=1)  # of the local Ray; None: the machine's
    roles: Roles
    engines: EnginePool = EnginePool()
    training: TrainingPool = TrainingPool()

    def student(self, recipe_model: str | None) -> ModelSpec:
        """The model that is trained: the profile's student, else the recipe's model."""
        if self.roles.student is not None:
            return self.roles.student
        if recipe_model is None:
            raise ReseedError(
                f"no model to train: profile '{self.name}' names no student, and the recipe no model; give one of them"
            )
        return ModelSpec(name=recipe_model)


def student(variant: Variant, place: Profile) -> ModelSpec:
    """The model that a variant trains, in the form in which it trains and predicts."""
    training = variant.training
    four_bit: FourBit | None = None
    if training.method == "qlora":
        four_bit = "nf4-double" if training.double_quantization else "nf4"
    separate = bool({"gate_proj", "up_proj", "down_proj"} & set(training.targets))
    return place.student(variant.model).model_copy(update={"four_bit": four_bit, "separate_experts": separate})


def cluster_address(profile: Profile) -> str | None:
    """The Ray cluster that RAY_ADDRESS or the profile names; None for a local Ray, which `local` names too."""
    address = os.environ.get("RAY_ADDRESS") or profile.ray_address
    return None if address == "local" else address


def load_profile(name: str, overrides: tuple[str, ...] = ()) -> Profile:
    """The profile in file `name`, or the shipped one of that name, with `a.b=c` overrides applied last."""
    path = next((p for p in (Path(name), PROFILES / f"{name}.yaml") if p.is_file()), None)
    if path is None:
        shipped = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        raise ReseedError(
            f"profile '{name}': no such file or profile{nearest(name, shipped)}; there is {', '.join(shipped)}"
        )
    values = read_yaml(path)
    for override in overrides:
        values = merge(values, parse_override(override))
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise ReseedError(mistake_list(f"profile {path.name}", mistakes(error, Profile))) from None
