"""Does training fit? What it needs against what the card and the machine have, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from reseed.models.configs import fetched_config, is_hub, shape_here
from reseed.models.names import ModelSpec
from reseed.recipe.profile import Profile, student
from reseed.recipe.recipe import Variant
from reseed.records import ReseedError
from reseed.settings import TrainingSettings
from reseed.training.arguments import micro_batch
from reseed.training.memory.bound import upper_bound
from reseed.training.memory.room import Room

if TYPE_CHECKING:
    from reseed.training.memory.plan import Memory

# Plans were 0.4 % off what was measured, not counting what CUDA and its allocator take (about a gigabyte): a plan above
# 110 % cannot run, and one below 90 % can. In between nobody knows, so nothing is refused.
SURELY_OVER, SURELY_FITS = 1.1, 0.9
GATHERED_LEAST = 0.69  # of what the plan says ZeRO-3 gathers, an upper bound (docs/benchmarks.md)


@dataclass(frozen=True)
class Need:
    """One way of training: what its memory depends on, and the variants that train that way."""

    variants: tuple[str, ...]
    spec: ModelSpec
    settings: TrainingSettings
    rows: int  # a rank at once
    labels: int  # a row
    workers: int
    on_card: bool


@dataclass(frozen=True)
class Demand:
    """Bytes needed in one place, and those that it has."""

    place: str
    needed: int
    least: int  # certainly taken
    has: int
    has_from: str

    @property
    def verdict(self) -> Literal["fits", "is tight", "does not fit"]:
        """Whether it fits, by the margins above."""
        if self.least > SURELY_OVER * self.has:
            return "does not fit"
        return "fits" if self.needed <= SURELY_FITS * self.has else "is tight"


@dataclass(frozen=True)
class Fit:
    """The demands of one need: a plan or, if `bounded`, an upper bound. If there are none, `unknown` says why."""

    need: Need
    demands: tuple[Demand, ...] = ()
    bounded: bool = False
    unknown: str = ""

    @property
    def over(self) -> bool:
        """True when it certainly does not fit."""
        return any(demand.verdict == "does not fit" for demand in self.demands)

    @property
    def doubtful(self) -> bool:
        """True when it is uncertain whether it fits."""
        return bool(self.unknown) or any(demand.verdict == "is tight" for demand in self.demands)

    def __str__(self) -> str:
        """One line for a person."""
        most = "at most " if self.bounded else ""
        shown = [
            f"{most}{gib(d.needed)} of {gib(d.has)} GiB {d.place} ({d.has_from}): {d.verdict}" for d in self.demands
        ]
        return f"memory: {', '.join(self.need.variants)}: " + ("; ".join(shown) or f"not compared: {self.unknown}")


def needs_of(variants: Mapping[str, Variant], profile: Profile) -> list[Need]:
    """Each way of training that these variants ask for, once."""
    found: dict[tuple[ModelSpec, TrainingSettings, int], list[str]] = {}
    for name, variant in variants.items():
        settings = variant.training.model_copy(update={"start_from": None})
        labels = variant.prediction.max_new_tokens if settings.loss_on == "completion" else settings.max_tokens
        found.setdefault((student(variant, profile), settings, labels), []).append(name)
    pool = profile.training
    return [
        Need(
            variants=tuple(names),
            spec=spec,
            settings=settings,
            rows=micro_batch(settings.batch_size, pool.workers, pool.micro_batch_size),
            labels=labels,
            workers=pool.workers,
            on_card=pool.gpus > 0,
        )
        for (spec, settings, labels), names in found.items()
    ]


def fit_of(need: Need, room: Room, fetch: bool = False) -> Fit:
    """Whether a need fits: by the upper bound if that decides it, else by the plan, which takes seconds.

    `fetch` asks the hub for a config that is not here yet.
    """
    if (room.card if need.on_card else room.host) is None:
        return Fit(need, unknown="how large the cards are is not known; say it as profile.training.gpu_memory_gib")
    try:
        if fetch and is_hub(need.spec.name):
            fetched_config(need.spec.name)
    except ReseedError as error:
        return Fit(need, unknown=str(error))
    shape = shape_here(need.spec)
    if shape is None:
        return Fit(need, unknown=fetch_advice(need.spec))
    most = upper_bound(shape, need.spec, need.settings, need.rows, need.labels)
    if most is not None:
        surely = Fit(need, demands_of(need, room, most, most, most if need.settings.offload != "none" else 0), True)
        if all(demand.verdict == "fits" for demand in surely.demands):
            return surely
    return fit_by_plan(need, room)


def fetch_advice(spec: ModelSpec) -> str:
    """How to get a model whose shape is not known here."""
    return f"neither {spec.name} nor its config.json is on this machine; `reseed fetch RECIPE --profile P` brings it"


def fit_by_plan(need: Need, room: Room) -> Fit:
    """Whether a need fits, by the plan."""
    plan = plan_of(need.spec, need.settings, need.rows, need.labels, need.workers)
    least = max(plan.loading, plan.total - int((1 - GATHERED_LEAST) * plan.gathered))
    return Fit(need, demands_of(need, room, plan.peak, least, plan.host))


def demands_of(need: Need, room: Room, needed: int, least: int, away: int) -> tuple[Demand, ...]:
    """A rank's bytes, and those that it offloads (`away`), as demands of the card and of the machine.

    Without a card all ranks share the machine's memory; with one, only what they offload. On a cluster nothing is known
    of the machines' own memory.
    """
    found = []
    ranks = f"for {need.workers} workers" if need.workers > 1 else "for the worker"
    if need.on_card and room.card is not None:
        found.append(Demand("of a card", needed, least, room.card, room.card_from))
        needed, least = 0, 0
    needed, least = (needed + away) * need.workers, (least + away) * need.workers
    if needed and room.host is not None:
        found.append(Demand(f"of memory {ranks}", needed, least, room.host, "this machine"))
    return tuple(found)


@cache
def plan_of(spec: ModelSpec, settings: TrainingSettings, rows: int, labels: int, workers: int) -> Memory:
    """The plan for the settings' own ZeRO stage, made once a process."""
    from reseed.training.memory.plan import plan_memory

    bare = spec.model_copy(update={"four_bit": None, "separate_experts": False})
    shaping = settings.model_dump(include={"rank", "alpha", "dropout", "targets", "rslora", "dora"})
    shape = shape_for(bare, TrainingSettings.model_validate(shaping))
    return plan_memory(spec, settings, rows, labels, {settings.zero_stage: workers}, shape)[0]


@lru_cache(maxsize=1)
def shape_for(spec: ModelSpec, settings: TrainingSettings) -> Any:
    """The model without storage, shared by all its plans: dtype on disk, sharding and offload do not shape it."""
    from reseed.training.memory.plan import shape_of

    return shape_of(spec, settings)


def gib(size: int) -> str:
    """Bytes in GiB, as `25.1`."""
    return f"{size / 2**30:.1f}"
