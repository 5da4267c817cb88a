"""Training in stages: a variant whose members continue another variant's, seed by seed, or from a stored adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reseed.mistakes import nearest
from reseed.recipe.recipe import Recipe, Variant
from reseed.records import Member
from reseed.settings import SHAPE, is_stored


def variants_of(recipe: Recipe) -> dict[str, Variant]:
    """Every variant's own recipe, in the order they are written."""
    return {name: recipe.variant(name) for name in recipe.variants}


def stages(variants: Mapping[str, Variant], name: str) -> list[str]:
    """A variant and those that it continues, the last first. It ends with a stored adapter, or a name that is unknown
    or came before."""
    found = [name]
    while found[-1] in variants and (start := variants[found[-1]].training.start_from) is not None:
        found.append(start)
        if start in found[:-1]:
            break
    return found


def training_order(recipe: Recipe) -> list[Member]:
    """The recipe's members, each after the one that it continues."""
    variants = variants_of(recipe)
    return sorted(recipe.members(), key=lambda member: len(stages(variants, member.variant)))


def start_of(variant: Variant, member: Member) -> Member | None:
    """The member of this recipe that this one continues."""
    start = variant.training.start_from
    return replace(member, variant=start) if start is not None and not is_stored(start) else None


def has_rows_of(variant: Variant, other: Variant) -> bool:
    """True when both are trained, chosen and scored on the same rows."""
    return (variant.data, variant.generation) == (other.data, other.generation)


def scored_variants(recipe: Recipe) -> list[str]:
    """The variants with a result. One that others continue, with other rows than the baseline's, is a stage only."""
    variants = variants_of(recipe)
    base = variants[recipe.first]
    starts = {variant.training.start_from for variant in variants.values()}
    return [name for name, variant in variants.items() if name not in starts or has_rows_of(variant, base)]


def stage_mistakes(recipe: Recipe) -> list[str]:
    """What is wrong with the variants' `start_from`, as lines that begin with a key."""
    variants = variants_of(recipe)
    wrong = [
        line
        for name, variant in variants.items()
        if variant.training.start_from is not None and not is_stored(variant.training.start_from)
        for line in start_mistakes(variants, name, variant.training.start_from)
    ]
    wrong += [
        f"variants.{name}.training.keep_optimizer: only the state of adamw is kept; it has '{variant.training.optimizer}'"
        for name, variant in variants.items()
        if variant.training.keep_optimizer and variant.training.optimizer != "adamw"
    ]
    if recipe.seeds.orders:
        wrong += [
            f"variants.{name}.training.start_from: {variant.training.start_from} decides the first weights of every member, so "
            "seeds split into initialisation and order have nothing to tell apart; wanted a list, as in seeds: [0, 1, 2]"
            for name, variant in variants.items()
            if variant.training.start_from is not None and is_stored(variant.training.start_from)
        ]
    base = recipe.first
    for name, variant in variants.items():
        if not wrong and base in stages(variants, name) and not has_rows_of(variant, variants[base]):
            wrong.append(
                f"baseline: '{name}' continues '{base}' with other rows, so the two cannot be compared; name as "
                f"baseline a variant that has the rows of '{name}'"
            )
    return wrong


def start_mistakes(variants: Mapping[str, Variant], name: str, start: str) -> list[str]:
    """What is wrong with one variant's `start_from`."""
    key = f"variants.{name}.training"
    if start not in variants:
        names = list(variants)
        return [
            f"{key}.start_from: '{start}' is none of the variants {', '.join(names)}{nearest(start, names)}",
        ]
    order = stages(variants, name)
    if order[-1] in order[:-1]:
        return [f"{key}.start_from: it leads in a circle, {' → '.join(order)}; let one of them start anew (null)"]
    own, before = variants[name], variants[start]
    wrong = [
        f"{key}.{field}: {getattr(own.training, field)!r}, but '{start}', where it starts, has "
        f"{getattr(before.training, field)!r}; an adapter keeps its shape"
        for field in SHAPE
        if getattr(own.training, field) != getattr(before.training, field)
    ]
    if own.training.keep_optimizer and not before.training.keep_optimizer:
        wrong.append(f"{key}.keep_optimizer: '{start}', where it starts, keeps no optimiser state; let both keep it")
    if own.model != before.model:
        wrong.append(f"variants.{name}.model: '{own.model}', but '{start}', where it starts, has '{before.model}'")
    return wrong
