"""Training in stages: a variant whose members continue another variant's, seed by seed, or from a stored adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reseed.data.rows import open_rows
from reseed.mistakes import nearest
from reseed.recipe.recipe import Recipe, Variant
from reseed.recipe.stored_adapters import SHAPE, find_adapter, is_stored, partitions_behind
from reseed.records import Artifact, Member, ReseedError
from reseed.store.artifacts import ArtifactStore


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
    return Member(start, member.seed) if start is not None and not is_stored(start) else None


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


def refuse_leaks(store: ArtifactStore, variants: Mapping[str, Variant], partitions: Mapping[str, Artifact]) -> None:
    """Refuse a variant whose validation or test rows, or others of their groups, an earlier stage was trained on."""
    for name, variant in variants.items():
        for before, earlier in earlier_partitions(store, stages(variants, name)[1:], partitions):
            if earlier.key == partitions[name].key:
                continue
            seen = open_rows(store.fetch(earlier), "train")
            ids = set(seen.column("id"))
            for part, how in (("validation", variant.data.validation), ("test", variant.data.test)):
                rows = open_rows(store.fetch(partitions[name]), part)
                groups = set(seen.column(how.group_by)) if how.group_by in seen.columns else set()
                if known := [row for row in rows if row["id"] in ids or row[how.group_by] in groups]:
                    raise ReseedError(
                        f"variant '{name}': {len(known)} of its {len(rows)} {part} rows are, or share {how.group_by} "
                        f"with, rows that '{before}', where it starts, is trained on, as row {known[0]['id']}; "
                        + ("hold out others" if is_stored(before) else f"take them out of the rows of '{before}'")
                    )


def earlier_partitions(
    store: ArtifactStore, before: list[str], partitions: Mapping[str, Artifact]
) -> Iterator[tuple[str, Artifact]]:
    """The partitions of the stages `before`, with their names; of a stored adapter all that it ever continued."""
    for name in before:
        if is_stored(name):
            yield from ((name, behind) for behind in partitions_behind(store, find_adapter(store, name)))
        else:
            yield name, partitions[name]
